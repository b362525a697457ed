"""The transaction DAG, its features and its rings."""
