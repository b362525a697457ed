"""Scores, reasons, and scoring without a model."""
