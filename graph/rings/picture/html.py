"""A ring as one HTML file that plays in any browser, offline: no request leaves the page."""

import base64
import hashlib
import html
import json
from typing import Any, Final

import pyarrow as pa

from graph.errors import GraphError
from graph.rings.picture.bundle import bundle
from graph.rings.picture.scene import ring_scene
from graph.rings.records import RingRecord

_STYLE: Final = (
    "html,body{height:100%;margin:0;background:#fff}"
    "@media(prefers-color-scheme:dark){html,body{background:#12161b;color:#e9edf1}}"
    "noscript{display:block;padding:1em;font:15px/1.5 sans-serif}"
)


def scene_json(scene: dict[str, Any]) -> str:
    """A scene as JSON that is safe inside a script element of a page, whatever names it holds."""
    text = json.dumps(scene, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # JSON has these characters only inside strings, where their escapes mean the same.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def scene_html(scene: dict[str, Any]) -> str:
    """`ring_html` of a scene that is there already."""
    script = bundle()
    if "</script" in script.lower() or "<!--" in script:
        raise GraphError("the JavaScript of ring pictures cannot lie inside a page: run `make picture` again")
    # Nothing may run or be fetched but what is written here: the script and the style, by their digests.
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(_STYLE)}'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    ring = scene["ring"]
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>Ring {html.escape(ring['id'])}</title>\n"
        f"<style>{_STYLE}</style></head>\n"
        f"<body><noscript>{_words(scene)}</noscript>\n"
        f'<script type="application/json" class="ringwatch-scene">{scene_json(scene)}</script>\n'
        f'<script type="module">{script}</script>\n'
        "</body></html>\n"
    )


def ring_html(record: RingRecord, payments: pa.Table) -> str:
    """Draw a ring as an HTML page that needs nothing but itself.

    Args:
        record: The ring.
        payments: Of `RING_PAYMENTS`, see `ring_scene`.

    Returns:
        The page, about 500 KiB and 200 bytes for each payment.

    Raises:
        GraphError: The payments are not of `RING_PAYMENTS`, or the bundle was not built.

    Example:
        Path("ring.html").write_text(ring_html(record, payments), encoding="utf-8")
    """
    return scene_html(ring_scene(record, payments))


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _words(scene: dict[str, Any]) -> str:
    """The ring for a browser without JavaScript: why it is one, and its members."""
    ring, nodes = scene["ring"], scene["nodes"]
    members = [
        f"<li>{html.escape(nodes['name'][i])}: {html.escape(nodes['role'][i])}, {html.escape(nodes['member'][i])}</li>"
        for i in range(len(nodes["name"]))
        if nodes["member"][i] is not None
    ]
    return (
        f"<h1>Ring {html.escape(ring['id'])}</h1><p>{html.escape(ring['reasons'])}</p>"
        f"<p>The picture needs JavaScript. Members:</p><ul>{''.join(members)}</ul>"
    )
