"""Runs have the shortest names that tell them apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafe_tui.results.names import short_names
from tests.ui.compared import run_id


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        ([run_id("aaaa"), run_id("bbbb", "wide")], ["quickstart", "wide"]),
        ([run_id("aaaa"), run_id("bbbb")], ["aaaa", "bbbb"]),
        ([run_id("aaaa"), run_id("bbbb"), run_id("cccc", "wide")], ["quickstart-aaaa", "quickstart-bbbb", "wide-cccc"]),
        ([run_id("aaaa"), "20270101-000000-quickstart-aaaa"], [run_id("aaaa"), "20270101-000000-quickstart-aaaa"]),
        (["foreign", run_id("aaaa")], ["foreign", "quickstart"]),
        ([run_id("aaaa", "a-b")], ["a-b"]),
        ([], []),
    ],
)
def test_names_are_as_short_as_tells_the_runs_apart(ids: list[str], names: list[str]) -> None:
    assert short_names(ids) == dict(zip(ids, names, strict=True))


@given(st.lists(st.text(min_size=1), unique=True, max_size=8))
def test_names_never_collide(ids: list[str]) -> None:
    assert len(set(short_names(ids).values())) == len(ids)
