"""The browser of the tests: it draws with WebGL, and a page that asks for another machine is caught."""

import pytest

from tests.browser import browser, leaves, page  # noqa: F401 (fixtures)

CANVAS = "document.createElement('canvas').getContext('webgl2') !== null"


def test_a_page_runs_scripts_and_draws_with_webgl(page, tmp_path):  # noqa: F811
    path = tmp_path / "page.html"
    path.write_text("<!doctype html><title>x</title><script>document.title = 'Ring'</script>")
    page.goto(path.as_uri())
    assert page.title() == "Ring"
    assert page.evaluate(CANVAS) is True
    assert page.asked == [path.as_uri()]


def test_a_request_to_another_machine_is_recorded_and_never_made(page, tmp_path):  # noqa: F811
    path = tmp_path / "page.html"
    path.write_text("<!doctype html><img src='http://example.invalid/a.png' onerror='document.title = 1'>")
    page.goto(path.as_uri())
    page.wait_for_function("document.title === '1'")
    assert page.asked[-1] == "http://example.invalid/a.png"
    assert any("ERR_FAILED" in fault for fault in page.faults)
    page.asked.clear()
    page.faults.clear()  # else the fixture fails, as it must


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("file:///a.html", False),
        ("data:text/plain,x", False),
        ("http://127.0.0.1:8000/v1", False),
        ("http://[::1]:8000/", False),
        ("https://localhost.example.com/", True),
        ("http://10.0.0.1/", True),
        ("ws://example.com/", True),
    ],
)
def test_only_files_and_loopback_stay_on_this_machine(url, other):
    assert leaves(url) is other
