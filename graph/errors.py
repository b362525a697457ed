"""The errors of the package `graph`."""


class GraphError(Exception):
    """Root of every error raised by `graph`."""
