"""Metrics and the protocols by which a history is judged."""
