"""The errors of the package `serve`."""


class ServeError(Exception):
    """Root of every error raised by `serve`."""
