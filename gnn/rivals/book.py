"""The Fraud Detection Handbook's baselines on its own features: proof that our split and metrics are the book's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from data.files.datasets import handbook_split
from gnn.evaluate.metrics import Metrics, measure

WINDOW_DAYS = (1, 7, 30)
BOOK_FEATURES = (
    "TX_AMOUNT",
    "TX_DURING_WEEKEND",
    "TX_DURING_NIGHT",
    *(f"CUSTOMER_ID_{what}_{days}DAY_WINDOW" for days in WINDOW_DAYS for what in ("NB_TX", "AVG_AMOUNT")),
    *(f"TERMINAL_ID_{what}_{days}DAY_WINDOW" for days in WINDOW_DAYS for what in ("NB_TX", "RISK")),
)


@dataclass(frozen=True)
class BookModel:
    """A baseline as the book sets it up (chapter 3, baseline feature transformation and first models)."""

    name: str
    pipeline: Pipeline


def book_models() -> tuple[BookModel, ...]:
    """Logistic regression and random forest with the book's settings."""
    return (
        BookModel("logistic", make_pipeline(StandardScaler(), LogisticRegression(random_state=0))),
        BookModel("random_forest", make_pipeline(StandardScaler(), RandomForestClassifier(random_state=0, n_jobs=2))),
    )


def reproduce(transformed: Path) -> dict[str, Metrics]:
    """Train and judge the book's baselines under its split.

    Args:
        transformed: The book's transformed transactions as one Parquet file.

    Returns:
        Metrics by model name.
    """
    names = [*BOOK_FEATURES, "TX_DATETIME", "CUSTOMER_ID", "TX_FRAUD"]
    table = pq.read_table(transformed, columns=names)
    time = table["TX_DATETIME"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    account, fraud = table["CUSTOMER_ID"].to_numpy(), table["TX_FRAUD"].to_numpy() == 1
    x = np.column_stack([table[name].to_numpy() for name in BOOK_FEATURES])
    amount = np.rint(table["TX_AMOUNT"].to_numpy() * 100).astype(np.int64)
    train, test = handbook_split(time, account, fraud)
    found = {}
    for model in book_models():
        model.pipeline.fit(x[train], fraud[train])
        probability = model.pipeline.predict_proba(x[test])[:, 1]
        found[model.name] = measure(probability, fraud[test], amount[test], account[test], time[test])
    return found
