"""What tests of pictures share."""

import pytest

from graph.rings.picture.bundle import BUNDLE, digest, made_of
from tests.browser import browser, page  # noqa: F401 (fixtures)


@pytest.fixture(scope="session")
def built() -> None:
    """The bundle of today's sources; `make test` builds it."""
    if not BUNDLE.exists():
        pytest.skip("the JavaScript of ring pictures is not built: make picture")
    assert made_of() == digest(), "the bundle is older than its sources: make picture"
