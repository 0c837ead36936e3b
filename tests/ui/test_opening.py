"""A screen is one file and one row: every screen that a key names can be opened, and a new one is shown everywhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import ClassVar, get_type_hints

import pytest
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Static

from cafe_tui.ui import screens
from cafe_tui.ui.app import CafeApp
from cafe_tui.ui.screens.opening import NotSelected, OpeningScreen, Selection
from cafe_tui.ui.screens.run import RunScreen
from cafe_tui.ui.screens.runs import OF_A_RUN, RunsScreen
from cafe_tui.ui.widgets.key_bar import KeyBar
from engine.contract.run.rundir import RunDir
from tests.recorded import START, record_run
from tests.ui.waiting import until

OPENING = re.compile(r"show\('(\w+)'\)")


def opening_keys(screen: type[OpeningScreen]) -> Iterator[tuple[str, type[Screen[None]]]]:
    """The keys of a screen that open others, with what they open."""
    for binding in screen.BINDINGS:
        if isinstance(binding, Binding) and (named := OPENING.fullmatch(binding.action)):
            module = import_module(f"{screens.__name__}.{named[1]}")
            yield binding.key, get_type_hints(module.opened)["return"]


def test_the_list_and_a_run_open_the_other_screens() -> None:
    assert {key for key, _ in opening_keys(RunsScreen)} >= {"N", "c", "S"}
    assert {key for key, _ in opening_keys(RunScreen)} >= {"z", "p", "S"}


@pytest.mark.parametrize("name", ["curves", "samples", "compare"])
def test_screens_of_runs_ask_for_a_selection(name: str) -> None:
    with pytest.raises(NotSelected, match=r"select a run|two at least"):
        import_module(f"{screens.__name__}.{name}").opened(Selection(Path("runs")))


def test_a_run_is_not_compared_with_itself() -> None:
    from cafe_tui.ui.screens.compare import opened

    run, other = RunDir(Path("runs/a")), RunDir(Path("runs/b"))
    with pytest.raises(NotSelected):
        opened(Selection(Path("runs"), run=RunDir(Path("runs/a")), marked=[run]))
    assert [run.id for run in opened(Selection(Path("runs"), run=other, marked=[run]))._runs] == ["a", "b"]
    assert [run.id for run in opened(Selection(Path("runs"), run=run, marked=[other, run]))._runs] == ["b", "a"]


@pytest.mark.parametrize("name", OF_A_RUN)
def test_what_is_imported_ahead_exists(name: str) -> None:
    import_module(name)


class ToyScreen(Screen[None]):
    """A screen of one line."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = run

    def compose(self) -> ComposeResult:
        yield Static("toy")


class RunsScreenWithToy(RunsScreen):
    """The list of runs with one more row."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("T", "show('toy')", "Toy", key_display="T")]


async def test_a_new_screen_is_one_file_and_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ModuleType("toy")
    file.opened = lambda selection: ToyScreen(selection.run.id)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cafe_tui.ui.screens.toy", file)
    monkeypatch.setattr("cafe_tui.ui.app.RunsScreen", RunsScreenWithToy)
    run = record_run(tmp_path)
    app = CafeApp(tmp_path, clock=lambda: START + 60)
    async with app.run_test(size=(160, 40)) as pilot:
        home = app.screen
        await until(pilot, lambda: isinstance(home, RunsScreen) and home.selection().run)
        assert "T Toy" in home.query_one(KeyBar).text()
        assert "Toy" in [command.title for command in app.get_system_commands(home)]
        await pilot.press("question_mark")
        await until(pilot, lambda: "Toy" in str(app.screen.query("HelpLines").first().text()))  # type: ignore[attr-defined]
        await pilot.press("escape", "T")
        await until(pilot, lambda: isinstance(app.screen, ToyScreen))
        assert isinstance(app.screen, ToyScreen)
        assert app.screen.run == run.id
