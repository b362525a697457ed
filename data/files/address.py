"""A source together with how it is to be read, in the shape of its name."""

from collections.abc import Sequence
from pathlib import Path

from data.files.options import ReadOptions


class Address(str):
    """The name of a source that carries the options it is to be read with.

    It is text, so whatever passes the name of a file on to a reader passes the options on with it.

    Attributes:
        options: How to read it.
        parts: The sources that it stands for, where there are several.

    Example:
        >>> Address.of(["payments/"], ReadOptions.of(["amount=TX_AMOUNT:major"], ["currency=EUR"]))
        'payments/'
    """

    options: ReadOptions
    parts: tuple[str, ...]

    @classmethod
    def of(cls, sources: Sequence[Path | str], options: ReadOptions) -> "Address":
        """One or several sources under one name."""
        made = cls(", ".join(str(source) for source in sources))
        made.options = options
        made.parts = tuple(str(source) for source in sources)
        return made
