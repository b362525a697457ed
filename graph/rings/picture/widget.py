"""A ring's picture as a widget in Jupyter, whose selection, camera and hidden nodes Python can read and set.

Needs anywidget: `pip install 'ringwatch[notebook]'`. Nothing else of Ringwatch imports it.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from graph.errors import GraphError
from graph.rings.picture.bundle import bundle
from graph.rings.picture.scene import ring_scene
from graph.rings.records import RingRecord

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise GraphError("the picture in a notebook needs anywidget: pip install anywidget") from error

THEMES = ("auto", "light", "dark")


class RingWidget(anywidget.AnyWidget):
    """The picture of a ring in a notebook.

    Nodes are named as `"account:a17"` or `"device:d3"`; a payee is an account.

    Attributes:
        selection: Nodes that are selected. A tie is selected by its two ends.
        hidden: Nodes that are hidden.
        camera: `{"x": .5, "y": .5, "ratio": 1}`: the middle of the view, and how much of the picture it holds (less
            than 1: zoomed in).
        moment: Up to when payments are shown, us; None before the picture is drawn.
        theme: "auto" (that of the browser), "light" or "dark".
        height: Pixels.

    Example:
        picture = ring_widget(record, payments)
        picture.selection = ["device:d3"]
        picture.payments()  # those that the selected nodes have together
    """

    _esm = ""  # of each widget: the bundle is read when there is one, not when this module is imported
    scene = traitlets.Dict().tag(sync=True)
    selection = traitlets.List(traitlets.Unicode()).tag(sync=True)
    hidden = traitlets.List(traitlets.Unicode()).tag(sync=True)
    camera = traitlets.Dict().tag(sync=True)
    moment = traitlets.Int(None, allow_none=True).tag(sync=True)
    theme = traitlets.Enum(THEMES, "auto").tag(sync=True)
    height = traitlets.Int(620, min=200).tag(sync=True)

    def __init__(self, record: RingRecord, payments: pa.Table, **traits: Any) -> None:
        scene = ring_scene(record, payments)
        self._table = payments
        nodes = scene["nodes"]
        self._number = {f"{r}:{n}": i for i, (r, n) in enumerate(zip(nodes["role"], nodes["name"], strict=True))}
        super().__init__(scene=scene, _esm=bundle(), **traits)

    @traitlets.validate("selection", "hidden")
    def _known(self, proposal: Any) -> Any:
        for key in proposal["value"]:
            if key not in self._number:
                raise traitlets.TraitError(
                    f"the picture has no node {key!r}; nodes are named as {next(iter(self._number), 'account:a1')!r}"
                )
        return proposal["value"]

    @traitlets.validate("camera")
    def _view(self, proposal: Any) -> Any:
        value = proposal["value"]
        good = set(value) <= {"x", "y", "ratio"} and all(isinstance(v, int | float) for v in value.values())
        if not good or value.get("ratio", 1) <= 0:
            raise traitlets.TraitError(f"camera = {value!r}: it takes numbers x, y and ratio, the ratio above 0")
        return value

    def payments(self, nodes: Sequence[str] | None = None) -> pa.Table:
        """The payments that have all of these nodes, as `RING_PAYMENTS`, oldest first.

        Args:
            nodes: By default the selected ones; none for all payments of the picture.

        Raises:
            GraphError: The picture has no such node.
        """
        wanted = self.selection if nodes is None else nodes
        if missing := [key for key in wanted if key not in self._number]:
            raise GraphError(f"the picture has no node {missing[0]!r}")
        numbers = {self._number[key] for key in wanted}
        rows = [i for i, of in enumerate(self.scene["payments"]["nodes"]) if numbers <= set(of)]
        return self._table.take(rows)


def ring_widget(record: RingRecord, payments: pa.Table, height: int = 620, theme: str = "auto") -> RingWidget:
    """Draw a ring in a notebook.

    Args:
        record: The ring.
        payments: Of `RING_PAYMENTS`, see `ring_scene`.
        height: Pixels.
        theme: "auto", "light" or "dark".

    Raises:
        GraphError: The payments are not of `RING_PAYMENTS`, or the bundle was not built.
    """
    return RingWidget(record, payments, height=height, theme=theme)
