"""Pictures of rings: one that plays, for the browser and for notebooks, and one that stands still, for reports.

    from graph.rings.picture import draw_record, ring_html, ring_widget

    Path("ring.html").write_text(ring_html(record, payments))   # one file, works offline
    ring_widget(record, payments)                               # in Jupyter
    draw_record(record, payments, Path("ring.svg"))             # for a report

Names are imported when they are first used, so that building the bundle needs none of their dependencies.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from graph.rings.picture.html import ring_html
    from graph.rings.picture.scene import ring_scene
    from graph.rings.picture.static import draw_record
    from graph.rings.picture.ties import draw_ring
    from graph.rings.picture.widget import ring_widget

_WHERE: Final = {
    "draw_record": "static",
    "draw_ring": "ties",
    "ring_html": "html",
    "ring_scene": "scene",
    "ring_widget": "widget",
}
__all__ = ["draw_record", "draw_ring", "ring_html", "ring_scene", "ring_widget"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'graph.rings.picture' has no attribute {name!r}")
    return getattr(import_module(f"graph.rings.picture.{_WHERE[name]}"), name)
