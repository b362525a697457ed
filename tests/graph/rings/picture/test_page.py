"""The page in a browser: it plays, selects, shows, hides, exports, by mouse and by keyboard, and asks for nothing."""

import json
import re
from dataclasses import replace

import pytest

from graph.errors import GraphError
from graph.rings.picture import bundle as bundle_module
from graph.rings.picture import ring_html
from graph.rings.picture.html import scene_json
from graph.rings.records import MemberRole
from tests.graph.rings.picture.records import big_ring, world_ring

NASTY = (
    "</script><script>document.title='broken'</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "\"'`${alert(1)}&lt;!--\u2028",
    "‮ gro.elpmaxe",
)
PICTURE = "document.querySelector('.ringwatch-picture').picture"


def until(page, expression):
    """Wait for it (`page.wait_for_function` would need `eval`, which the page's policy forbids)."""
    for _ in range(400):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


@pytest.fixture
def show(built, page, tmp_path):
    """Opens a ring's page, and waits until it is drawn."""

    def shown(record, payments, search=""):
        path = tmp_path / "ring.html"
        path.write_text(ring_html(record, payments), encoding="utf-8")
        page.goto(path.as_uri() + search)
        until(page, f"{PICTURE} !== undefined")
        page.wait_for_timeout(300)
        return page

    return shown


def state(page, name):
    return page.evaluate(f"{PICTURE}.get('{name}')")


def count(page):
    return page.evaluate(f"[...{PICTURE}.model.node.shown].filter(Boolean).length")


def centre(page, key):
    """Where a node is on the page."""
    box = page.locator(".rw-canvas").bounding_box()
    x, y = page.evaluate(f"{PICTURE}.stage.placeOf({PICTURE}.model.number.get({json.dumps(key)}))")
    return x + box["x"], y + box["y"]


BOTH = pytest.mark.parametrize("renderer", ["webgl", "canvas"])


@BOTH
def test_a_page_asks_for_nothing_but_itself(show, renderer):
    record, payments = world_ring()
    page = show(record, payments, f"#renderer={renderer}")
    assert page.title() == f"Ring {record.id}"
    (asked,) = page.asked
    assert asked.startswith("file://")
    assert page.evaluate(f"{PICTURE}.drawnBy") == renderer
    assert page.locator("canvas").count() >= 1
    assert page.locator(".rw-reasons").inner_text() == record.reasons
    assert count(page) == len({(m.role.replace("payee", "account"), m.name) for m in record.members})


def test_the_policy_of_the_page_forbids_scripts_and_requests_of_others(show):
    page = show(*world_ring())
    tried = page.evaluate("fetch('data:text/plain,x').then(() => 'fetched', () => 'refused')")
    assert tried == "refused"
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    assert page.evaluate("window.ran === undefined")
    assert any("Content Security Policy" in fault for fault in page.faults)
    page.faults.clear()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_follows_the_systems_dark_mode_and_changes_by_key(show, page, theme):
    page.emulate_media(color_scheme=theme)
    show(*world_ring())
    other = {"light": "dark", "dark": "light"}[theme]
    ground = page.locator(".rw").evaluate("e => getComputedStyle(e).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 27)"}[theme]
    page.locator(".rw-stage").focus()
    page.keyboard.press("d")
    assert page.locator(".rw").get_attribute("data-theme") == other


def test_the_slider_shows_the_ring_as_it_grew_and_frauds_as_they_were_reported(show):
    record, payments = world_ring()
    page = show(record, payments)
    everyone = count(page)
    reports = sorted(t for t in page.evaluate(f"{PICTURE}.model.scene.payments.reported") if t)
    slider = page.get_by_label("Moment shown")
    slider.fill("0")
    assert 0 < count(page) < everyone or payments["evidence"].to_pylist().count(False) > 0
    assert page.evaluate(f"Math.max(...{PICTURE}.model.node.frauds)") == 0
    first = {m.name: m.joined_at for m in record.members}
    for moment in (reports[0] - 1, reports[0], reports[len(reports) // 2], reports[-1]):
        page.evaluate(f"{PICTURE}.set({{moment: {moment}}})")
        known = sum(t <= moment for t in reports)
        assert f"{known:,} reported fraud" in page.locator(".rw-panel .rw-facts").inner_text()
        members = page.evaluate(f"{PICTURE}.model.scene.nodes.name.filter((_, a) => {PICTURE}.model.isMember(a))")
        assert set(members) == {name for name, since in first.items() if since <= moment}
    page.evaluate(f"{PICTURE}.set({{moment: {reports[0]}}})")
    assert page.evaluate(f"Math.max(...{PICTURE}.model.node.lit)") == 1.0
    assert "UTC" in slider.get_attribute("aria-valuetext")


def test_play_moves_time_on_to_the_end_and_stops(show):
    page = show(*world_ring())
    page.get_by_label("Moment shown").fill("900")
    before = state(page, "moment")
    page.get_by_label("Speed").select_option("4")
    page.locator(".rw-stage").focus()
    page.keyboard.press("Space")
    until(page, f"{PICTURE}.get('moment') > {before}")
    until(page, f"{PICTURE}.get('moment') === {PICTURE}.model.end && !{PICTURE}.timeline.playing")
    page.get_by_label("Play the ring's growth").click()
    until(page, f"{PICTURE}.get('moment') < {before}")
    page.get_by_label("Pause").click()
    assert page.evaluate(f"{PICTURE}.timeline.playing") is False


@BOTH
def test_a_click_on_a_node_lists_its_payments_and_one_on_a_tie_those_of_both(show, renderer):
    record, payments = world_ring()
    page = show(record, payments, f"#renderer={renderer}")
    hub = next(m for m in record.members if m.role == "device")
    page.mouse.move(*centre(page, f"device:{hub.name}"))
    page.wait_for_timeout(200)
    assert f"{hub.name}" in page.locator(".rw-tip").inner_text()
    page.mouse.click(*centre(page, f"device:{hub.name}"))
    until(page, f"{PICTURE}.get('selection').length === 1")
    assert state(page, "selection") == [f"device:{hub.name}"]
    rows = [r for r in payments.to_pylist() if r["device_id"] == hub.name]
    assert page.locator(".rw-panel tbody tr").count() == min(100, len(rows))
    listed = page.locator(".rw-panel tbody").inner_text()
    assert all(r["transaction_id"] in listed for r in rows)
    account = rows[-1]["account_id"]
    (x0, y0), (x1, y1) = centre(page, f"device:{hub.name}"), centre(page, f"account:{account}")
    page.wait_for_timeout(400)  # else it is a double click
    page.mouse.click((x0 + x1) / 2, (y0 + y1) / 2)
    until(page, f"{PICTURE}.get('selection').length === 2")
    assert set(state(page, "selection")) == {f"device:{hub.name}", f"account:{account}"}
    both = [r for r in rows if r["account_id"] == account]
    assert page.locator(".rw-panel tbody tr").count() == len(both)
    page.keyboard.press("Escape")
    assert page.locator(".rw-panel h2").inner_text() == "The ring"


@BOTH
def test_neighbours_are_shown_on_demand_and_put_away_again(show, renderer):
    page = show(*world_ring(), f"#renderer={renderer}")
    members = count(page)
    key = page.evaluate(f"{PICTURE}.model.key.find((_, a) => {PICTURE}.model.unseen(a).length > 2)")
    unseen = page.evaluate(f"{PICTURE}.model.unseen({PICTURE}.model.number.get('{key}')).length")
    page.mouse.dblclick(*centre(page, key))
    until(page, f"[...{PICTURE}.model.node.shown].filter(Boolean).length === {members + unseen}")
    page.get_by_role("button", name="Put its neighbours away").click()
    assert count(page) == members


def test_a_hidden_node_is_gone_until_it_is_asked_for(show):
    page = show(*world_ring())
    members = count(page)
    page.locator(".rw-stage").focus()
    page.keyboard.press("ArrowRight")
    (chosen,) = state(page, "selection")
    page.keyboard.press("h")
    assert (state(page, "hidden"), state(page, "selection"), count(page)) == ([chosen], [], members - 1)
    page.get_by_role("button", name="Show 1 hidden node again").click()
    assert (state(page, "hidden"), count(page)) == ([], members)


def test_everything_works_by_keyboard_alone(show):
    page = show(*world_ring())
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "rw-stage":
            break
    assert page.evaluate("document.activeElement.className") == "rw-stage"
    page.keyboard.press("ArrowDown")
    seen = {state(page, "selection")[0]}
    for key in ("ArrowRight", "ArrowUp", "ArrowLeft", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
        seen.add(state(page, "selection")[0])
    assert len(seen) > 2
    assert "payment" in page.get_by_role("status").inner_text()
    camera, moment = state(page, "camera"), state(page, "moment")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("+")
    page.keyboard.press(",")
    page.wait_for_timeout(300)
    assert state(page, "camera")["x"] > camera["x"]
    assert state(page, "camera")["ratio"] < camera["ratio"]
    assert state(page, "moment") < moment
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.className") == "rw-scroll"
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()


def test_a_table_says_what_the_picture_shows(show):
    record, payments = world_ring()
    page = show(record, payments)
    page.get_by_role("button", name="Table").click()
    rows = page.locator(".rw-panel tbody tr")
    assert rows.count() == count(page)
    text = page.locator(".rw-panel tbody").inner_text()
    assert all(member.name in text for member in record.members)
    page.get_by_role("button", name=record.accounts[0], exact=True).click()
    assert state(page, "selection") == [f"account:{record.accounts[0]}"]


@pytest.mark.parametrize(("kind", "begins"), [("PNG", b"\x89PNG"), ("SVG", b"<svg")])
def test_it_is_saved_as_a_file(show, kind, begins, tmp_path):
    record, payments = world_ring()
    page = show(record, payments)
    with page.expect_download() as told:
        page.get_by_role("button", name=kind).click()
    assert told.value.suggested_filename == f"ring-{record.id}.{kind.lower()}"
    told.value.save_as(tmp_path / "saved")
    data = (tmp_path / "saved").read_bytes()
    assert data.startswith(begins)
    assert len(data) > 5000
    assert kind == "PNG" or all(member.name in data.decode() for member in record.members[:3])


def test_names_from_outside_are_text_wherever_they_are_shown(show):
    record, payments = world_ring()
    names = dict(zip(record.accounts, NASTY, strict=False))
    accounts = [names.get(name, name) for name in payments["account_id"].to_pylist()]
    at = payments.column_names.index("account_id")
    payments = payments.set_column(at, payments.schema.field("account_id"), [accounts])
    members = tuple(
        replace(m, name=names.get(m.name, m.name) if m.role == "account" else m.name) for m in record.members
    )
    page = show(replace(record, members=members, reasons=NASTY[0], id="K-<b>1"), payments)
    assert page.title() == "Ring K-<b>1"
    page.get_by_role("button", name="Table").click()
    text = page.locator(".rw-panel").inner_text()
    assert all(name.replace("\u2028", "").strip()[:20] in text.replace("\u2028", "") for name in NASTY[:2])
    for name in NASTY:
        page.evaluate(f"{PICTURE}.set({{selection: [{json.dumps('account:' + name)}]}})")
        page.evaluate(f"{PICTURE}._hover({PICTURE}.model.number.get({json.dumps('account:' + name)}), 50, 50)")
    with page.expect_download() as told:
        page.get_by_role("button", name="SVG").click()
    assert re.fullmatch(r"ring-[\w.-]+\.svg", told.value.suggested_filename)
    assert page.locator("img").count() == 0
    assert page.title() == "Ring K-<b>1"


def test_json_in_a_page_cannot_end_its_script():
    text = scene_json({"name": list(NASTY)})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text)["name"] == list(NASTY)


@BOTH
def test_the_view_moves_zooms_and_fits_and_a_node_is_dragged_where_it_is_wanted(show, renderer):
    record, payments = world_ring()
    page = show(record, payments, f"#renderer={renderer}")
    key = f"account:{record.accounts[0]}"
    began = centre(page, key)
    page.mouse.move(*began)
    page.mouse.down()
    page.mouse.move(began[0] + 30, began[1] + 20, steps=4)
    page.mouse.up()
    assert centre(page, key) == pytest.approx((began[0] + 30, began[1] + 20), abs=12)
    page.wait_for_timeout(400)  # else it is a double click
    page.mouse.move(15, 200)
    page.mouse.down()
    page.mouse.move(75, 240, steps=4)
    page.mouse.up()
    page.wait_for_timeout(400)
    assert centre(page, key) == pytest.approx((began[0] + 90, began[1] + 60), abs=25)
    page.mouse.wheel(0, -300)
    until(page, f"{PICTURE}.get('camera').ratio < 0.99")
    page.get_by_role("button", name="Fit").click()
    until(page, f"Math.abs({PICTURE}.get('camera').ratio - 1) < 1e-6")


@BOTH
def test_what_is_drawn_changes_with_time_and_theme(show, renderer):
    """Whatever the numbers say: the pixels of the graph differ, and none of the views is empty."""
    page = show(*world_ring(), f"#renderer={renderer}")
    seen = []
    for change in ("{moment: 0}", f"{{moment: {PICTURE}.model.end}}", "{theme: 'dark'}"):
        page.evaluate(f"{PICTURE}.set({change})")
        page.wait_for_timeout(500)
        seen.append(page.locator(".rw-canvas").screenshot())
    assert len(set(seen)) == 3
    assert min(len(png) for png in seen) > 4000


def test_without_webgl_it_is_drawn_on_a_canvas(show, page):
    page.add_init_script(
        "const get = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...more) {"
        " return /webgl/.test(kind) ? null : get.call(this, kind, ...more) }"
    )
    show(*world_ring())
    assert page.evaluate(f"{PICTURE}.drawnBy") == "canvas"
    page.mouse.click(*centre(page, page.evaluate(f"{PICTURE}.model.key[0]")))
    assert len(state(page, "selection")) == 1


def test_a_large_ring_is_summarised_says_so_and_is_shown_whole_on_demand(show):
    page = show(*big_ring(2600))
    before = count(page)
    assert before < 2100
    assert "A large ring, summarised: " in page.locator(".rw-notice").inner_text()
    page.get_by_role("button", name="Show all members").click()
    assert count(page) == page.evaluate(f"{PICTURE}.model.size")
    assert page.locator(".rw-notice").inner_text() == ""


def test_what_python_sets_is_shown_and_an_unknown_node_is_named(show):
    record, payments = world_ring()
    page = show(record, payments)
    hub = next(f"{m.role}:{m.name}" for m in record.members if m.member_role == MemberRole.HUB)
    page.evaluate(f"{PICTURE}.set({{hidden: ['{hub}'], camera: {{x: .4, y: .6, ratio: .5}}, theme: 'dark'}})")
    assert state(page, "hidden") == [hub]
    assert state(page, "camera") == pytest.approx({"x": 0.4, "y": 0.6, "ratio": 0.5})
    told = page.evaluate(
        f"(() => {{ try {{ {PICTURE}.set({{selection: ['account:?']}}) }} catch (e) {{ return e.message }} }})()"
    )
    assert told == "ringwatch: the picture has no node account:?"


def test_a_missing_bundle_is_said_with_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr(bundle_module, "BUNDLE", tmp_path / "bundle.js")
    with pytest.raises(GraphError, match="make picture"):
        ring_html(*world_ring())
