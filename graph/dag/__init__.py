"""The transaction DAG on the CPU: rows that point back, walks, features, ids."""
