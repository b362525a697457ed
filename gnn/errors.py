"""The errors of the package `gnn`."""


class ModelError(Exception):
    """Root of every error raised by `gnn`."""
