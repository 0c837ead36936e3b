"""Marked runs: nothing is done to what is not shown, dialogs list what they touch, and marks end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from cafe_tui.ui.app import CafeApp
from cafe_tui.ui.screens import manage
from cafe_tui.ui.screens.compare import CompareScreen
from cafe_tui.ui.screens.runs import RunsScreen
from cafe_tui.ui.widgets.confirm import Confirm
from cafe_tui.ui.widgets.prompt import Prompt
from cafe_tui.ui.widgets.run_table import MARK
from cafe_tui.ui.widgets.touched import Touched, TouchedLines
from engine.contract.run.rundir import RunDir
from tests.recorded import START, record_run
from tests.ui.test_app import GivenRows, app_with, row, table
from tests.ui.waiting import until

MANY = 300
DIALOGS = {"d": Confirm, "s": Confirm, "r": Confirm, "t": Prompt, "n": Prompt}
STATES = {"d": "failed", "s": "running", "r": "failed", "t": "finished", "n": "finished"}
"""In which each of these keys has something to do."""


@pytest.fixture
def acted(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The last four letters of the runs to which something was done, by occasion; nothing is really done."""
    seen: list[list[str]] = []

    def act(_: object, runs: Sequence[RunDir], __: Callable[[RunDir], str]) -> None:
        seen.append([run.id[-4:] for run in runs])

    monkeypatch.setattr(manage, "_act", act)
    return seen


def title(pilot: Pilot[None]) -> str:
    return str(pilot.app.screen.query_one("#title", Static).content)


def listed(pilot: Pilot[None]) -> list[str]:
    return [line[-4:] for line in pilot.app.screen.query_one(TouchedLines).text().splitlines()]


def said(pilot: Pilot[None]) -> str:
    return "\n".join(str(each.content) for each in pilot.app.screen.query(Static))


async def confirm(pilot: Pilot[None]) -> None:
    await pilot.press(*(["y"] if isinstance(pilot.app.screen, Confirm) else ["x", "enter"]))
    await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


async def start(pilot: Pilot[None], runs: int) -> None:
    await until(pilot, lambda: f"{runs} run" in title(pilot))


async def filter_by(pilot: Pilot[None], words: str) -> None:
    await pilot.press("slash")
    await until(pilot, lambda: bool(pilot.app.screen.query("#filter")))
    await pilot.press(*words, "enter")


@pytest.mark.parametrize("key", DIALOGS)
async def test_marked_runs_behind_a_filter_stay_as_they_are(key: str, acted: list[list[str]]) -> None:
    rows = [row(number, state=STATES[key]) for number in range(MANY)]
    async with app_with(GivenRows(*rows)).run_test(size=(100, 24)) as pilot:
        await start(pilot, MANY)
        await pilot.press("g", "space", "space", "space")
        await filter_by(pilot, "run0123")
        assert "3 marked, 3 of them not shown" in title(pilot)
        await pilot.press(key)
        await until(pilot, lambda: isinstance(pilot.app.screen, DIALOGS[key]))
        assert listed(pilot) == ["0123"]
        assert "this run" in said(pilot)
        assert "3 marked runs are not shown and stay as they are." in said(pilot)
        await confirm(pilot)
        assert acted == [["0123"]]
        # Of marked runs that are shown and others that are not, the first alone.
        await pilot.press("escape")
        await filter_by(pilot, "run0001")
        await pilot.press(key)
        await until(pilot, lambda: isinstance(pilot.app.screen, DIALOGS[key]))
        assert listed(pilot) == ["0001"]
        assert "2 marked runs are not shown and stay as they are." in said(pilot)
        await confirm(pilot)
        assert acted[1:] == [["0001"]]


async def test_marked_runs_in_a_folded_group_stay_as_they_are(acted: list[list[str]]) -> None:
    given = GivenRows(row(0, profile="a"), row(1, profile="b"), row(2, profile="b"))
    async with app_with(given).run_test(size=(100, 24)) as pilot:
        await start(pilot, 3)
        await pilot.press("asterisk", "p", "g", "enter", "d")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        assert listed(pilot) == ["0001", "0002"]
        assert "1 marked run is not shown and stays as it is." in said(pilot)
        await confirm(pilot)
        assert acted == [["0001", "0002"]]


async def test_a_star_marks_what_is_shown_and_escape_takes_all_marks_away(acted: list[list[str]]) -> None:
    rows = [row(number, profile="a" if number % 2 else "b") for number in range(4)]
    async with app_with(GivenRows(*rows)).run_test(size=(100, 24)) as pilot:
        await start(pilot, 4)
        await filter_by(pilot, "run0002")
        await pilot.press("asterisk")
        await pilot.press("escape")
        assert "1 marked" in title(pilot), "the first escape clears the filter"
        assert "escape" in pilot.app.screen.active_bindings
        await pilot.press("escape")
        assert "marked" not in title(pilot)
        assert "escape" not in pilot.app.screen.active_bindings
        await pilot.press("asterisk")
        assert table(pilot).text().count(MARK) == 4
        await pilot.press("asterisk")
        assert table(pilot).text().count(MARK) == 4
        await pilot.press("escape", "g", "d")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        assert listed(pilot) == ["0000"]


async def test_a_dialog_lists_names_and_states_and_scrolls_them(acted: list[list[str]]) -> None:
    evil = row(MANY, id="20270115-080000-[b]x\x1b[2J-0300")
    rows = [*(row(n, state="failed" if n % 2 else "running") for n in range(MANY)), evil]
    async with app_with(GivenRows(*rows)).run_test(size=(80, 24)) as pilot:
        await start(pilot, MANY + 1)
        await pilot.press("asterisk", "d")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        lines = pilot.app.screen.query_one(TouchedLines).text().splitlines()
        assert len(lines) == 151
        assert lines[0] == "✗ failed    20270115-080000-run0001-0001"
        assert lines[-1].startswith("✓ finished  20270115-080000-[b]x")
        assert "\x1b" not in lines[-1]
        assert "Delete these 151 runs?" in said(pilot)
        assert "150 more marked, left alone: still running" in said(pilot)
        buttons = pilot.app.screen.query_one("#yes").region
        assert pilot.app.screen.region.contains_region(buttons), "the answers stay on screen"
        await pilot.press("pagedown", "down")
        await until(pilot, lambda: pilot.app.screen.query_one(Touched).scroll_offset.y == 10)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        assert acted == []


async def test_leaving_the_comparison_takes_the_marks_away(tmp_path: Path) -> None:
    for i in range(2):
        record_run(tmp_path, run_id=f"20260921-14400{i}-quickstart-k3f9")
    async with CafeApp(tmp_path, clock=lambda: START + 60).run_test(size=(100, 30)) as pilot:
        await start(pilot, 2)
        await pilot.press("space", "c")
        await until(pilot, lambda: isinstance(pilot.app.screen, CompareScreen))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        await until(pilot, lambda: "marked" not in title(pilot))
        await pilot.press("g", "space", "c", "q")  # a comparison with the run under the cursor
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        await pilot.press("asterisk", "d", "escape")  # a dialog is no comparison
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        assert "2 marked" in title(pilot)
