"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from cafe_tui.launch import spawn
from tests.patience import kill

# A busy machine may take any time for an example; what hangs ends by the timeout of its test.
settings.register_profile("any time", deadline=None)
settings.load_profile("any time")


@pytest.fixture(autouse=True)
def _nothing_outlives_its_test() -> Iterator[None]:
    """Engines and queues that a test started in this process, and that would live on, are ended and collected."""
    yield
    while spawn._children:
        kill(spawn._children.pop())
