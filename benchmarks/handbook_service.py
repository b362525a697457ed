"""The Fraud Detection Handbook's payments through the running service, judged from its HTTP answers.

Example: python -m benchmarks.handbook_service ../shared/datasets/handbook/transactions_raw_to_08-31.parquet
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.report import Figure, show, write
from data.files.datasets import handbook
from gnn.evaluate.evaluate import judge
from gnn.model.artifact import load
from gnn.score.replay import score_history
from serve.cli.demo import DemoConfig, run_demo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the raw transactions as one Parquet file")
    parser.add_argument("--out", type=Path, default=Path("var/handbook"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--until", default="2018-08-15", help="last test day, excluded")
    options = parser.parse_args()
    folder = options.out
    folder.mkdir(parents=True, exist_ok=True)
    for table, name in zip(handbook(options.source), ("transactions", "labels"), strict=True):
        pq.write_table(table, folder / f"{name}.parquet")
    config = DemoConfig(
        out=folder / "demo",
        transactions=folder / "transactions.parquet",
        labels=folder / "labels.parquet",
        train_until=datetime(2018, 8, 1, tzinfo=UTC),
        start=datetime(2018, 8, 8, tzinfo=UTC),
        stop=datetime.fromisoformat(options.until).replace(tzinfo=UTC),
        protocol="handbook",
        seed=0,
        epochs=options.epochs,
    )
    result = run_demo(config)
    offline = score_history(load(folder / "demo" / "model"), result.history)
    m = result.metrics
    e = judge(result.history.labelled(), offline, config.start, config.stop, config.protocol)
    apart = max(
        abs(m.average_precision - e.average_precision),
        abs(m.roc_auc - e.roc_auc),
        abs(m.card_precision_at_100 - e.card_precision_at_100),
    )
    figures = {
        "roc_auc": Figure(m.roc_auc, "1", 0.86, "higher", {"book, random forest": 0.867}),
        "average_precision": Figure(m.average_precision, "1", 0.62, "higher", {"book, random forest": 0.658}),
        "card_precision_at_100": Figure(m.card_precision_at_100, "1", None, "higher", {"book, random forest": 0.287}),
        "largest_difference_from_evaluate": Figure(
            float(np.abs(result.probability - offline).max()),
            "probability",
            1e-5,
            "lower",
            {"of AP, AUC, CP@100": apart},
        ),
        "latency_p50": Figure(float(np.quantile(result.latency_ms, 0.5)), "ms", None, "lower"),
        "latency_p99": Figure(float(np.quantile(result.latency_ms, 0.99)), "ms", None, "lower"),
    }
    write("handbook_service", figures, payments=m.payments, frauds=m.frauds)
    show("handbook_service", figures)


if __name__ == "__main__":
    main()
