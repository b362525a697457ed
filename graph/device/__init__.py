"""The transaction DAG in a GPU's memory."""
