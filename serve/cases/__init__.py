"""Rings as investigators work on them: kept current beside the service, and on record in SQL."""
