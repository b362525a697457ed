"""Which labels a history has, and how old a payment must be before its label, or the lack of one, can be relied on.

Banks differ. Some report frauds alone, days or weeks later. Some clear honest payments as well, often much later than
they report frauds. Some know everything at once, and some label a part of the payments and never the rest. What a
missing label means, and which payments may teach and judge, depends on which of these it is.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FRAUDS_ONLY: Final = "frauds only"
BOTH_CLASSES: Final = "both classes"
AT_ONCE: Final = "known at once"
PARTLY: Final = "partly labelled"
NEARLY_ALL: Final = 0.75  # share of the mature payments with a label from which on a missing one is only late
AT_ONCE_US: Final = 3_600_000_000  # an hour
MATURE: Final = 0.9  # quantile of the delays at which labels have nearly all come


@dataclass(frozen=True)
class LabelRegime:
    """Which labels there are, and when they come.

    Attributes:
        name: `frauds only`; `both classes`: nearly every payment gets a label, each class after a delay of its own;
            `known at once`: the same without a delay; `partly labelled`: both classes, but many payments never get one.
        fraud_delay_us: Age of a payment at which its fraud has been reported, the 90 % quantile.
        honest_delay_us: The same of labels that say legitimate; 0 where there are none to speak of.
    """

    name: str
    fraud_delay_us: int
    honest_delay_us: int = 0

    @property
    def missing_is_honest(self) -> bool:
        """Whether a payment without a label counts as legitimate once it is `mature_us` old: its fraud would be known.

        Where honest payments are cleared later than frauds are reported, waiting for them would lose the newest weeks,
        or leave a window in which frauds alone are labelled.
        """
        return self.name in (FRAUDS_ONLY, BOTH_CLASSES)

    @property
    def mature_us(self) -> int:
        """Age from which on a payment may teach and judge: its label has come, or its absence says something."""
        if self.missing_is_honest:
            return self.fraud_delay_us
        return max(self.fraud_delay_us, self.honest_delay_us)


def recognise(
    delay_us: NDArray[np.int64], fraud: NDArray[np.bool_], age_us: NDArray[np.int64], labelled: NDArray[np.bool_]
) -> LabelRegime:
    """Recognise the regime of a history from its labels so far.

    Args:
        delay_us: From each label's payment to its report, int64 [events].
        fraud: What each label said, bool [events]; one at least says fraud.
        age_us: Of each payment by now, int64 [n].
        labelled: Whether it has a label by now, bool [n].
    """
    fraud_delay = int(np.quantile(delay_us[fraud], MATURE))
    if (~fraud).sum() <= fraud.sum():  # a few are reports that were taken back
        return LabelRegime(FRAUDS_ONLY, fraud_delay)
    honest_delay = int(np.quantile(delay_us[~fraud], MATURE))
    latest = max(fraud_delay, honest_delay)
    mature = labelled[age_us >= latest]
    if not len(mature) or mature.mean() < NEARLY_ALL:
        return LabelRegime(PARTLY, fraud_delay, honest_delay)
    return LabelRegime(AT_ONCE if latest <= AT_ONCE_US else BOTH_CLASSES, fraud_delay, honest_delay)
