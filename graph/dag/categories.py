"""Categories of payments as the small codes that rows hold, and the currencies that those codes stand for."""

import zlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

CATEGORY_BUCKETS = 128  # codes 1..127; 0 is missing. Feature hashing (Weinberger et al., ICML 2009)


def category_code(text: str) -> int:
    """The code of one value."""
    return zlib.crc32(text.encode()) % (CATEGORY_BUCKETS - 1) + 1


def category_codes(column: pa.Array) -> NDArray[np.uint8]:
    """Codes of a column of text, uint8 [n]; 0 where missing."""
    if column.null_count == len(column):
        return np.zeros(len(column), np.uint8)
    encoded = pc.dictionary_encode(column)
    codes = np.zeros(len(encoded.dictionary) + 1, np.uint8)
    for i, text in enumerate(encoded.dictionary.to_pylist()):
        codes[i] = category_code(text)
    return codes[encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)]


class CurrencyNames:
    """Which currency the code in a row stands for: a row has no room for its name.

    Several currencies may share a code. Where more than one of them was seen, all of them are named, as `EUR/KMF`: an
    amount is then known to be of one of these.

    Example:
        >>> names = CurrencyNames()
        >>> names.see(pa.array(["EUR", "JPY"]))
        >>> names.of([category_code("JPY")])
        ['JPY']
    """

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._seen: set[str] = set()

    def see(self, currencies: pa.Array) -> None:
        """Payments in these currencies came."""
        for text in currencies.unique().to_pylist() if len(currencies) > 1 else currencies.to_pylist():
            if text not in self._seen:
                self._seen.add(text)
                code = category_code(text)
                names = self._names.get(code)
                self._names[code] = text if names is None else "/".join(sorted([*names.split("/"), text]))

    def of(self, codes: Iterable[int]) -> list[str]:
        """The currencies of codes; empty for one that was never seen."""
        return [self._names.get(code, "") for code in codes]

    def totals(self, codes: NDArray[np.uint8], amounts: NDArray[np.int64]) -> dict[str, int]:
        """Sums of amounts by currency.

        Args:
            codes: Of the currencies, [n].
            amounts: Minor units, [n].
        """
        kinds, at = np.unique(codes, return_inverse=True)
        sums = [int(amounts[at == k].sum()) for k in range(len(kinds))]
        return dict(zip(self.of(kinds.tolist()), sums, strict=True))

    def facts(self) -> list[str]:
        """What a snapshot keeps, as JSON."""
        return sorted(self._seen)

    def adopt(self, facts: Iterable[str]) -> None:
        """Go on from what `facts` gave."""
        self._names, self._seen = {}, set()
        if seen := list(facts):
            self.see(pa.array(seen))
