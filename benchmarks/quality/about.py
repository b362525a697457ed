"""What each quality benchmark trains on and is judged by, for readers of docs/quality.md."""

from collections.abc import Mapping
from datetime import date
from typing import Final

DELAYED: Final = (
    "Labels are reported seven days after the payment. As in the book, each test day leaves out cards that are already "
    "known as fraudulent."
)
BOUND: Final = (
    "The limit is an oracle that knows how the data were generated: it is told every fraud except those at a "
    "terminal that has no known fraud yet, and has to guess these (`benchmarks/quality/oracle.py`). With so few "
    "frauds the guess depends on luck: blind guesses vary by .007 in ROC AUC and .002 in CP@100 (standard "
    "deviation). CP@100 is the card precision of the book: the share of fraudulent cards among the 100 cards with "
    "the highest scores of each day."
)
ABOUT: Final[Mapping[str, str]] = {
    "audit": (
        "What label leakage is worth. `ringwatch audit` measures the same boosted trees under three protocols. "
        "Published: as in published tables, with random test payments, labels known at once, and entities counted "
        "over the whole history. Clean: the same, but test payments are later than training payments. Strict: a "
        "label counts only from its report on, and features use only what came before the payment. Two leaks are "
        "planted on purpose, and the audit must find both."
    ),
    "handbook": (
        "The Fraud Detection Handbook's test week, 2018-08-08 to 08-14 (58,264 payments, 385 frauds). Training uses "
        f"all payments before 2018-08-01, with the labels known when the test begins. {DELAYED} {BOUND}"
    ),
    "handbook_week": (
        "The same test week. Only the seven days that the book trains on (2018-07-25 to 07-31) are used for training; "
        "their last fifth is for validation and calibration. Earlier payments are context only. "
        f"{DELAYED} {BOUND}"
    ),
    "other_weeks": (
        "Another test week of the Handbook, 2018-08-22 to 08-28, with training on all payments before 2018-08-15. It "
        "shows whether the result depends on one week. No trial has used this week's test figures, while those of the "
        f"book's week were seen when the model's defaults were settled. {DELAYED} {BOUND}"
    ),
    "s_ffsd": (
        "S-FFSD in order of time: training on the labelled payments among the first 70 % of all rows, test on the "
        "8,837 labelled payments among the rest (2,683 frauds). `no_labels`: no input contains a label. `delayed`: a "
        "label is known 10,080 rows after its payment (seven days, at one row per minute). `at_once`: a label is "
        "known immediately after its payment, as in published tables; no bank has that."
    ),
    "tolokers": (
        "Tolokers (Platonov et al., ICLR 2023): 11,758 workers, of whom 21.8 % are banned, in the ten published "
        "50/25/25 splits. The graph is static, without time, merchants or devices, so this measures the model's "
        "attention layers alone: each worker reads its neighbours through them. All rows except `trees: own "
        "features` also read the labels of training workers, but never those of the workers they are being fitted "
        "to. Published results, without such inputs: 83.78 for GAT-sep, less for GT-sep and others."
    ),
    "amlsim": (
        "AMLSim: 20,000 accounts, 118,250 transfers, 954 accounts in fan-in schemes, in five folds of accounts. An "
        "account has one label for its whole life, so this is static classification and not causal: transfers after "
        "the scheme are visible. No input contains a label. Ours is two rounds of boosted trees without the "
        "attention network. They read the point-in-time features of an account's transfers, as payer and as payee, "
        "pooled over the account and over the accounts that it trades with. The second round also reads the first "
        "round's scores of those accounts."
    ),
}


def prequential(weeks: int, first: date, every: int) -> str:
    """What the week-by-week evaluation does; the network is trained every so many weeks, 0 for never."""
    network = {0: "Without the network; the rivals are", 1: "All models are"}.get(
        every, f"The network is trained again every {every} weeks, the other models are"
    )
    return (
        f"{weeks} consecutive weeks of the Handbook from {first} on. The models for a week know only the labels "
        f"reported before it begins. {network} trained again every week; one row shows trees that were trained once. "
        f"{DELAYED}"
    )


def world(teaching: int, judging: int) -> str:
    """What the simulated worlds test, by the number of worlds for training and for the test."""
    return (
        f"Simulated payment worlds at the fixed difficulty `WorldConfig.hard`: training on {teaching} worlds of "
        f"150,000 payments, test on {judging} others, in which every account, merchant and device is new to the "
        "model. The first 30 days of a test world are context and are not scored. Results are measured against the "
        "simulator's truth. The labels that the model reads are late; some are missing and some are wrong. Recall is "
        "the share of a ring kind's frauds that are among the 1 % of payments with the highest scores; `lone` stands "
        "for frauds outside rings. The limit is an oracle that the simulator tells who works for each ring, what the "
        "ring owns, its kind and when it attacks, in each case from the moment at which a second account of the ring "
        "has appeared there (`benchmarks/quality/ring_oracle.py`). This is an estimate and no strict bound, because "
        "the oracle looks at nothing else of a payment."
    )


def ablation(worlds: int) -> str:
    """What each part of the model is worth, by the number of training worlds of a seed."""
    return (
        f"What each part of the model is worth. Each seed has {worlds} simulated worlds for training and another one "
        "for the test; each model is trained once. `AP gained` is the difference in AP to the whole model, world by "
        "world; in the last row it is the difference to the row above. In that row the trees also read the known "
        "frauds of entities that recently met the payment's own entities, wherever those frauds happened. Three rows "
        "show what better labels could bring. With correct training labels, and with those of recent payments that "
        "are not reported yet as well, no loss function that corrects for missing, wrong or late labels can do "
        "better. With every fraud reported immediately, in training and in the test, the model has what no real "
        "system has: it need not wait for reports."
    )
