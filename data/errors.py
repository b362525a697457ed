"""The errors of the package `data`."""


class DataError(Exception):
    """Root of every error raised by `data`."""


class SchemaError(DataError):
    """A file lacks a required column or has one of an unusable type."""


class RefusedRow(DataError):
    """A row broke the schema while reading with `strict`."""


class TooManyRefused(DataError):
    """A larger share of the rows of a source broke the schema than is let pass."""


class JournalError(DataError):
    """The journal cannot be opened, read or written."""
