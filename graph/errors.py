"""The errors of the package `graph`."""


class GraphError(Exception):
    """Root of every error raised by `graph`."""


class StaleRings(GraphError):
    """A view of the rings would need payments that the buffer no longer holds; publish the rings again."""
