"""The console in a real browser: by keyboard, without scripts, and with names that are meant to break it."""

import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from graph.rings.picture.bundle import made_of
from serve.cases.records import CaseState
from serve.console.app import build_console
from serve.console.settings import ConsoleSettings
from serve.keys import KeyRing
from tests.browser import browser, page  # noqa: F401 (fixtures)
from tests.serve.cases.fake import paid, ring
from tests.serve.console.conftest import SECRET, Console

WORST = "<img src=x onerror=alert(1)>/..%2F?#é&\"' {{ 7*7 }}"


@pytest.fixture
def site(console: Console) -> Iterator[str]:
    """The console behind a server; its address."""
    console.world.payments.append(paid(WORST[:60], WORST, 6, merchant=WORST, device=WORST, evidence=True))
    console.world.put(ring("K-4", (WORST,), (WORST[:60],), devices=(WORST,), confidence=0.52))
    console.book.sync(console.world)
    app = build_console(console.world, console.book, KeyRing(file=console.file), ConsoleSettings(SECRET))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", loop="asyncio"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


def sign_in(page, site: str, console: Console) -> None:  # noqa: F811
    page.goto(f"{site}/queue")
    page.locator("input[name=key]:focus").wait_for()
    page.keyboard.type(console.key)
    page.keyboard.press("Enter")
    page.wait_for_url("**/queue")
    page.locator("[data-row]:focus").wait_for()


def test_a_verdict_takes_three_keystrokes_from_the_queue(page, site: str, console: Console) -> None:  # noqa: F811
    sign_in(page, site, console)
    page.keyboard.press("Enter")
    page.wait_for_url("**/cases/1")
    page.keyboard.press("c")
    page.keyboard.press("Enter")
    page.wait_for_url("**/queue")
    assert "C-1 is confirmed: 3 payments are fraud" in page.inner_text("main")
    assert [(v.transaction_ids, v.by) for v in console.world.given] == [(("e21", "e11", "e01"), "iris")]


def test_a_case_further_down_is_dismissed_with_a_payment_unticked(page, site: str, console: Console) -> None:  # noqa: F811
    sign_in(page, site, console)
    for key in ("j", "j", "j", "k", "j", "Enter"):
        page.keyboard.press(key)
    page.wait_for_url("**/cases/2")
    page.keyboard.press("e")
    page.keyboard.press("Space")
    page.keyboard.press("d")
    page.keyboard.press("Enter")
    page.wait_for_url("**/queue")
    assert [(v.verdict, v.transaction_ids) for v in console.world.given] == [("legitimate", ("x0",))]


def test_keys_are_letters_where_one_writes(page, site: str, console: Console) -> None:  # noqa: F811
    sign_in(page, site, console)
    page.goto(f"{site}/cases/1")
    page.keyboard.press("m")
    page.keyboard.type("cd? quiz")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("Your comment is kept.").wait_for()
    page.wait_for_load_state()
    assert console.book.case(1).events[-1].note == "cd? quiz"
    page.keyboard.press("?")
    page.wait_for_url("**/help")


def test_the_queue_is_filtered_while_one_types(page, site: str, console: Console) -> None:  # noqa: F811
    sign_in(page, site, console)
    page.keyboard.press("f")
    page.keyboard.type("emil")
    page.locator("[data-row]").nth(1).wait_for(state="detached")
    assert page.inner_text("[data-row]") == "C-2"
    assert page.evaluate("document.activeElement.id") == "text"
    page.check("input[value=dismissed]")
    page.get_by_text("No case matches").wait_for()


def test_the_comparison_comes_by_itself(page, site: str, console: Console) -> None:  # noqa: F811
    sign_in(page, site, console)
    page.goto(f"{site}/cases/1")
    page.locator("#comparison").wait_for()
    assert "busiest hour" in page.inner_text("#comparison")


def test_names_that_are_code_are_shown_as_they_are(page, site: str, console: Console) -> None:  # noqa: F811
    sign_in(page, site, console)
    page.on("dialog", lambda dialog: page.faults.append(f"dialog: {dialog.message}"))
    case = console.book.cases_of_ring("K-4")[0]
    page.goto(f"{site}/cases/{case}")
    for role in ("account", "device"):
        page.goto(f"{site}/cases/{case}")
        page.locator(f".members a[href^='/entities/{role}/']").click()
        page.wait_for_url("**/entities/**")
        assert page.inner_text("h1") == f"{role} {WORST}"
    page.fill("header input[name=q]", WORST)
    page.keyboard.press("Enter")
    page.wait_for_url("**/search**")
    assert page.locator("main ul a").all_inner_texts()[:1] == [WORST]


@pytest.mark.skipif(made_of() is None, reason="the pictures' JavaScript was not built: make picture")
def test_the_picture_plays_in_a_frame_that_reaches_nothing(page, site: str, console: Console) -> None:  # noqa: F811
    sign_in(page, site, console)
    page.goto(f"{site}/cases/1")
    frame = page.frame_locator("iframe.picture")
    frame.get_by_text("Ring K-1").first.wait_for()
    inner = next(f for f in page.frames if f.url.endswith("/picture"))
    assert inner.evaluate("window.origin") == "null"
    assert inner.evaluate("(() => { try { return document.cookie } catch { return 'refused' } })()") == "refused"


def test_everything_works_without_scripts(browser, site: str, console: Console) -> None:  # noqa: F811
    context = browser.new_context(java_script_enabled=False, viewport={"width": 420, "height": 800})
    plain = context.new_page()
    sign_in(plain, site, console)
    plain.keyboard.press("Enter")  # the first case is in focus
    plain.wait_for_url("**/cases/1")
    plain.click("text=Compare with accounts")
    plain.get_by_text("busiest hour").wait_for()
    plain.goto(f"{site}/cases/1")
    plain.uncheck("input[value=e01]")
    plain.fill("textarea[name=note]", "by hand")
    plain.click("text=Confirm fraud")
    plain.wait_for_url("**/queue")
    assert [(v.transaction_ids, v.note) for v in console.world.given] == [(("e21", "e11"), "by hand")]
    assert console.book.case(1).summary.state is CaseState.CONFIRMED
    plain.goto(f"{site}/alerts")
    plain.click("button[aria-label='Alert of payment h0 is done']")
    assert "is done" in plain.inner_text("main")
    context.close()


def test_no_page_is_wider_than_its_window(page, site: str, console: Console) -> None:  # noqa: F811
    sign_in(page, site, console)
    for path in ("/queue", "/cases/1", "/cases/4", "/entities/device/d1", "/payments/e00", "/alerts"):
        page.goto(f"{site}{path}")
        for width in (1280, 420):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
