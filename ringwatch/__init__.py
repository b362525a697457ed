"""Ringwatch for people who import it: `import ringwatch` in place of four packages with common names.

    history = ringwatch.History.read("var/world")
    artifact = ringwatch.train(history.before(day))  # or ringwatch.load_model("var/model")
    metrics = ringwatch.evaluate(artifact, history, start=day)
    ringwatch.RingwatchClient("http://127.0.0.1:8000", key="...").score({...})
    ringwatch.Workbench.over("var/journal.sqlite", "var/model").rings()  # or Workbench.at("http://127.0.0.1:8400")

Names are imported when they are first used: none costs anything before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data.currency import format_amount
    from data.errors import DataError
    from data.files.options import ReadOptions
    from data.files.sources import merged, read_labels, read_transactions
    from data.history import History
    from gnn.errors import ModelError
    from gnn.evaluate.evaluate import evaluate
    from gnn.model.artifact import load as load_model
    from gnn.train.targets import TrainConfig
    from gnn.train.trainer import train
    from graph.errors import GraphError
    from graph.rings.picture.html import ring_html
    from graph.rings.picture.static import draw_record
    from graph.rings.picture.widget import ring_widget
    from serve.cases.workbench import Workbench
    from serve.errors import ServeError
    from serve.http.client import RingwatchClient

_WHERE = {
    "DataError": "data.errors",
    "GraphError": "graph.errors",
    "History": "data.history",
    "ModelError": "gnn.errors",
    "ReadOptions": "data.files.options",
    "RingwatchClient": "serve.http.client",
    "ServeError": "serve.errors",
    "Workbench": "serve.cases.workbench",
    "TrainConfig": "gnn.train.targets",
    "draw_record": "graph.rings.picture.static",
    "evaluate": "gnn.evaluate.evaluate",
    "format_amount": "data.currency",
    "load_model": "gnn.model.artifact",
    "merged": "data.files.sources",
    "read_labels": "data.files.sources",
    "read_transactions": "data.files.sources",
    "ring_html": "graph.rings.picture.html",
    "ring_widget": "graph.rings.picture.widget",
    "train": "gnn.train.trainer",
}
__all__ = [
    "DataError",
    "GraphError",
    "History",
    "ModelError",
    "ReadOptions",
    "RingwatchClient",
    "ServeError",
    "TrainConfig",
    "Workbench",
    "draw_record",
    "evaluate",
    "format_amount",
    "load_model",
    "merged",
    "read_labels",
    "read_transactions",
    "ring_html",
    "ring_widget",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'ringwatch' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), {"load_model": "load"}.get(name, name))


def __dir__() -> list[str]:
    return sorted(__all__)
