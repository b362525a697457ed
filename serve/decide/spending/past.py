"""An account's payments up to a moment: the one input of its profile, its forecast and its guidance."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

DAY_US: Final = 86_400_000_000
HOUR_US: Final = 3_600_000_000


@dataclass(frozen=True)
class Past:
    """An account's payments before a moment, oldest first, without those that were known as fraud by then.

    A fraudster's payments say nothing of the owner's habits. n payments.

    Attributes:
        account: Whose.
        as_of: The moment, us since 1970.
        ids: Transaction ids, [n].
        time: us since 1970, int64 [n].
        paid: Whether the account paid (False: it was paid), bool [n].
        other: With whom: ("payee", name) or, without a payee, ("merchant", name) where it paid; ("account", name)
            where it was paid; [n].
        merchant: Of each, [n].
        category: Merchant category code, "" where unknown, [n].
        amount: Minor units, int64 [n].
        currency: Of each, [n].
        probability: What the model said of each when it came, NaN where unknown, float64 [n].
    """

    account: str
    as_of: int
    ids: list[str]
    time: NDArray[np.int64]
    paid: NDArray[np.bool_]
    other: list[tuple[str, str]]
    merchant: list[str]
    category: list[str]
    amount: NDArray[np.int64]
    currency: list[str]
    probability: NDArray[np.float64]

    @classmethod
    def of(cls, account: str, payments: pa.Table, as_of: int) -> "Past":
        """Read the payments of an account, `graph.rings.records.RING_PAYMENTS` in any order.

        Args:
            account: Whose; payments in which it neither pays nor is paid are left out.
            payments: What is known of it.
            as_of: Later payments are left out, and so is what was reported later, us since 1970.
        """
        time = pc.cast(payments["timestamp"], pa.int64())
        known = pc.less_equal(pc.cast(payments["fraud_reported_at"], pa.int64()), as_of)
        ours = pc.or_(
            pc.equal(payments["account_id"], account), pc.fill_null(pc.equal(payments["payee_id"], account), False)
        )
        keep = pc.and_(pc.and_(pc.less_equal(time, as_of), ours), pc.invert(pc.fill_null(known, False)))
        held = payments.filter(keep).sort_by([("timestamp", "ascending"), ("transaction_id", "ascending")])
        column = {name: held[name].to_pylist() for name in ("account_id", "merchant_id", "payee_id", "mcc", "currency")}
        paid = [payer == account for payer in column["account_id"]]
        rows = zip(paid, column["account_id"], column["merchant_id"], column["payee_id"], strict=True)
        other = [
            ("account", payer) if not p else ("merchant", merchant) if payee is None else ("payee", payee)
            for p, payer, merchant, payee in rows
        ]
        return cls(
            account=account,
            as_of=as_of,
            ids=held["transaction_id"].to_pylist(),
            time=np.asarray(pc.cast(held["timestamp"], pa.int64()).to_numpy(), np.int64),
            paid=np.array(paid, np.bool_),
            other=other,
            merchant=column["merchant_id"],
            category=[mcc or "" for mcc in column["mcc"]],
            amount=np.asarray(held["amount"].to_numpy(), np.int64),
            currency=column["currency"],
            probability=np.asarray(pc.fill_null(held["probability"], np.nan).to_numpy(), np.float64),
        )

    def __len__(self) -> int:
        """Payments."""
        return len(self.ids)

    def before(self, i: int) -> "Past":
        """What was known right before payment `i`, but for labels, which are those of `as_of`."""
        return Past(
            account=self.account,
            as_of=int(self.time[i]),
            ids=self.ids[:i],
            time=self.time[:i],
            paid=self.paid[:i],
            other=self.other[:i],
            merchant=self.merchant[:i],
            category=self.category[:i],
            amount=self.amount[:i],
            currency=self.currency[:i],
            probability=self.probability[:i],
        )
