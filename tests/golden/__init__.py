"""Scores, reasons, rings and answers of a committed model on committed histories, as an earlier version gave them.

`python -m tests.golden.record` writes them anew. That is right only where a score is meant to change; a change of
structure or speed must leave every file here as it is.
"""
