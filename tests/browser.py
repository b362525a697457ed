"""A headless Chromium for tests of pages: Debian's own, driven by Playwright, and nothing may leave the page.

    from tests.browser import browser, page  # noqa: F401 (fixtures)

    def test_a_page_shows_its_title(page):
        page.goto(path.as_uri())
        assert page.title() == "Ring K-7"

A test that asks for `page` is skipped, with the reason, where there is no Chromium or no Playwright. It fails at its
end if the page threw an error, wrote one to its console or asked for anything but files and loopback addresses.
"""

import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# WebGL on the CPU; no sandbox, since root in a container cannot have one; nothing that calls home by itself.
OPTIONS = (
    *("--no-sandbox", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-dev-shm-usage"),
)
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


def leaves(url: str) -> bool:
    """Whether a request for it goes to another machine."""
    parts = urlsplit(url)
    return parts.scheme not in ("file", "data", "blob", "about") and parts.hostname not in LOOPBACK


@pytest.fixture(scope="module")  # while it runs, Playwright holds the thread's event loop: other modules need it back
def browser():
    """One Chromium for all tests of a module (`playwright.sync_api.Browser`)."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser) -> Iterator:
    """A page of 1200 x 800 pixels in a context of its own (`playwright.sync_api.Page`).

    `page.asked` lists the address of every request, `page.faults` every error, in order.
    """
    context = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True)
    made = context.new_page()
    made.set_default_timeout(20_000)
    made.asked, made.faults = [], []  # type: ignore[attr-defined]
    context.on("request", lambda request: made.asked.append(request.url))
    made.on("pageerror", lambda error: made.faults.append(str(error)))
    made.on("console", lambda said: made.faults.append(said.text) if said.type == "error" else None)
    context.route(leaves, lambda route: route.abort())
    yield made
    context.close()
    assert [url for url in made.asked if leaves(url)] == []
    assert made.faults == []
