"""Rings: accounts tied by what they share."""
