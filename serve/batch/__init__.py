"""Whole histories at once: re-scoring and lists of rings."""
