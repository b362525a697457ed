"""Train, judge beside rivals, audit and describe a model on each data set of a folder, as someone new would.

A data set is a sub-folder with `transactions.parquet` and `labels.parquet`, or one that `ringwatch dataset` reads
(Fraud Detection Handbook, S-FFSD). Any other is skipped with a reason. The run fails where a command ends with a
traceback: a model or one clear line is what is asked for.

Example: python -m benchmarks.outside ../shared/datasets --payments 50000
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.files.datasets import handbook, s_ffsd

Tables = tuple[pa.Table, pa.Table]
PUBLISHED: dict[str, Callable[[Path], Tables]] = {"transactions_raw_to_08-31.parquet": handbook, "S-FFSD.zip": s_ffsd}
QUICK = ("--epochs", "1", "--pretraining", "0", "--no-refit")


def read(folder: Path) -> Tables | str:
    """Payments and labels of a data set, or why it cannot be used."""
    if (folder / "transactions.parquet").exists() and (folder / "labels.parquet").exists():
        return pq.read_table(folder / "transactions.parquet"), pq.read_table(folder / "labels.parquet")
    for name, reader in PUBLISHED.items():
        if (folder / name).exists():
            return reader(folder / name)
    return "no transactions.parquet and labels.parquet, and no file that `ringwatch dataset` reads"


def cut(tables: Tables, most: int, folder: Path) -> None:
    """Write the first `most` payments and their labels."""
    payments = tables[0].take(pc.sort_indices(tables[0]["timestamp"])).slice(0, most)
    labels = tables[1].filter(pc.is_in(tables[1]["transaction_id"], payments["transaction_id"].combine_chunks()))
    pq.write_table(payments, folder / "transactions.parquet")
    pq.write_table(labels, folder / "labels.parquet")


def run(*words: str | Path) -> tuple[int, str]:
    """Exit status of a command, and its last line."""
    done = subprocess.run(
        [sys.executable, "-m", "serve", *map(str, words)], capture_output=True, text=True, check=False, timeout=3600
    )
    said = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return done.returncode, said[-1].strip() if said else ""


def tried(folder: Path, model: Path) -> list[tuple[str, int, str]]:
    """Each command with its exit status and what it said last."""
    given = ("--transactions", folder)
    found = [("train", *run("train", *given, "--out", model, *QUICK))]
    if not found[0][1]:
        training = json.loads((model / "manifest.json").read_text())["training"]
        judged = ("--model", model, *given, *(("--from", training["test"]["from"]) if training["test"] else ()))
        figures = folder / "figures.json"
        found.append(("evaluate --against", *run("evaluate", *judged, "--against", "--json", figures)))
        if not found[-1][1]:
            against = json.loads(figures.read_text())["against"]
            best = ", ".join(f"{name} {m['average_precision']:.3f}" for name, m in against.items())
            found[-1] = (*found[-1][:2], f"{training['labels']}; AP {best}")
        found.append(("card", *run("card", *judged, "--out", folder / "CARD.md")))
    return [*found, ("audit", *run("audit", *given))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/datasets"))
    parser.add_argument("--payments", type=int, default=100_000, help="of each data set, the first in time")
    asked = parser.parse_args()
    if not asked.folder.is_dir():
        print(f"skipped: there is no folder {asked.folder}")
        return
    failed = 0
    for source in sorted(path for path in asked.folder.iterdir() if path.is_dir()):
        tables = read(source)
        if isinstance(tables, str):
            print(f"{source.name}: skipped, {tables}")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            cut(tables, asked.payments, Path(scratch))
            begin = time.perf_counter()
            for command, status, said in tried(Path(scratch), Path(scratch) / "model"):
                print(f"{source.name}: {command}: status {status}: {said}", flush=True)
                failed += status not in (0, 2)
            print(f"{source.name}: {time.perf_counter() - begin:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
