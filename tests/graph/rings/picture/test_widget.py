"""The widget: what Python sets is checked and reaches the page, what is done on the page reaches Python."""

import json

import pytest

from graph.errors import GraphError
from graph.rings.picture.bundle import BUNDLE
from graph.rings.picture.html import scene_json
from tests.graph.rings.picture.records import world_ring

traitlets = pytest.importorskip("traitlets")
pytest.importorskip("anywidget", reason="no anywidget here: pip install anywidget")

# What anywidget hands to `render`: a model that says what was set and saved.
MODEL = """
import picture from "./bundle.js";
const values = JSON.parse(document.getElementById("values").textContent);
const heard = {};
window.saved = [];
const changed = new Set();
window.model = {
  get: (name) => values[name],
  set: (name, value) => { values[name] = value; changed.add(name); },
  save_changes: () => { window.saved.push(...changed); changed.clear(); },
  on: (event, call) => { heard[event] = call; },
  fromPython: (name, value) => { values[name] = value; heard["change:" + name](); },
};
window.values = values;
window.cleanup = picture.render({ model: window.model, el: document.getElementById("cell") });
"""


@pytest.fixture
def widget(built):
    from graph.rings.picture import ring_widget

    record, payments = world_ring()
    return ring_widget(record, payments)


def test_selection_hidden_and_camera_are_checked_when_they_are_set(widget):
    record, _ = world_ring()
    key = f"account:{record.accounts[0]}"
    widget.selection = [key]
    widget.hidden = [f"account:{record.accounts[1]}"]
    widget.camera = {"x": 0.2, "y": 0.5, "ratio": 0.4}
    assert widget.selection == [key]
    for name, value, said in (
        ("selection", ["account:?"], "no node 'account:\\?'"),
        ("hidden", ["?"], "no node"),
        ("camera", {"zoom": 1}, "x, y and ratio"),
        ("camera", {"ratio": 0}, "above 0"),
        ("theme", "pink", "auto"),
    ):
        with pytest.raises(traitlets.TraitError, match=said):
            setattr(widget, name, value)
    assert widget.selection == [key]


def test_the_payments_of_what_is_selected_are_a_table(widget):
    record, payments = world_ring()
    assert widget.payments().equals(payments)
    hub = next(m.name for m in record.members if m.role == "device")
    widget.selection = [f"device:{hub}", f"account:{record.accounts[0]}"]
    expected = [
        row["transaction_id"]
        for row in payments.to_pylist()
        if row["device_id"] == hub and row["account_id"] == record.accounts[0]
    ]
    assert widget.payments()["transaction_id"].to_pylist() == expected
    assert set(widget.payments([f"device:{hub}"])["device_id"].to_pylist()) == {hub}
    with pytest.raises(GraphError, match="no node"):
        widget.payments(["device:?"])


def test_page_and_python_hear_of_each_other(widget, page, tmp_path):
    key = widget.scene["nodes"]["name"][0]
    names = ("scene", "selection", "hidden", "camera", "moment", "theme", "height")
    values = {name: getattr(widget, name) for name in names} | {"selection": [f"account:{key}"]}
    served = {
        "/": ("text/html", f"<div id=cell></div><script type='application/json' id=values>{scene_json(values)}</script>"
              "<link rel=icon href='data:,'><script type=module src=/model.js></script>"),
        "/model.js": ("text/javascript", MODEL),
        "/bundle.js": ("text/javascript", BUNDLE.read_text()),
    }  # fmt: skip

    def answer(route):
        kind, body = served[route.request.url.removeprefix("http://localhost")]
        route.fulfill(content_type=kind, body=body)

    page.route("http://localhost/*", answer)
    page.goto("http://localhost/")
    page.wait_for_function("window.values?.moment !== null && window.values.camera.ratio === 1")
    assert page.locator(".rw-panel h2").inner_text() == key
    page.locator(".rw-stage").focus()
    page.keyboard.press("ArrowRight")
    (chosen,) = page.evaluate("window.values.selection")
    assert chosen != f"account:{key}"
    page.keyboard.press("h")
    assert page.evaluate("window.values.hidden") == [chosen]
    page.evaluate("window.model.fromPython('hidden', [])")
    page.evaluate(f"window.model.fromPython('selection', {json.dumps([chosen])})")
    assert page.locator(".rw-panel h2").inner_text() == chosen.split(":", 1)[1]
    page.keyboard.press("+")
    page.wait_for_function("window.values.camera.ratio < 1")
    assert {"selection", "hidden", "camera", "moment"} <= set(page.evaluate("window.saved"))
    page.evaluate("window.cleanup()")
    assert page.locator(".rw").count() == 0
