"""The terminal UI through its keys, on recorded runs and on lists made for the purpose."""

from __future__ import annotations

import gc
import json
import os
import shutil
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Input, Static

from cafe_tui import format as fmt
from cafe_tui.launch import local
from cafe_tui.reading.ordering import ORDERS
from cafe_tui.reading.run import RunFollower
from cafe_tui.reading.runs import RunRow, row_of
from cafe_tui.ui.app import CafeApp, Followers
from cafe_tui.ui.messages import LogGrew, RunsChanged
from cafe_tui.ui.screens.help import HelpLines, HelpScreen
from cafe_tui.ui.screens.run import RunScreen
from cafe_tui.ui.screens.runs import RunsScreen
from cafe_tui.ui.widgets.accuracies import Accuracies
from cafe_tui.ui.widgets.chart import Chart
from cafe_tui.ui.widgets.confirm import Confirm
from cafe_tui.ui.widgets.key_bar import KeyBar
from cafe_tui.ui.widgets.lines import plain
from cafe_tui.ui.widgets.log_view import LogView
from cafe_tui.ui.widgets.pane_tabs import PaneTabs
from cafe_tui.ui.widgets.profile_view import ProfileView
from cafe_tui.ui.widgets.prompt import Prompt
from cafe_tui.ui.widgets.robust_table import RobustTable
from cafe_tui.ui.widgets.run_header import RunHeader
from cafe_tui.ui.widgets.run_table import MARK, RunTable
from cafe_tui.ui.widgets.stage_bar import StageBar
from engine.contract.errors import UsageError
from engine.contract.run.records import Message, Scalars, StageChange, WarningNote, encode
from engine.contract.run.rundir import RunDir, State, annotate
from tests.patience import PATIENCE
from tests.recorded import START, record_run
from tests.ui.waiting import quiet, until

READINGS = {"val_accuracy_adv": 60.0, "val_accuracy_cf": 30.0, "val_accuracy_cc": 85.0, "val_accuracy_ac": 87.6}
NOW = 1_800_000_000.0
WIDE = (160, 50)


def row(number: int, **changes: object) -> RunRow:
    """A finished run; the higher its number, the older."""
    values: dict[str, object] = {
        "id": f"20270115-080000-run{number:04}-{number:04}",
        "name": f"run{number:04}",
        "state": "finished",
        "reason": "",
        "stage": "evaluate",
        "step": 6,
        "total_steps": 6,
        "progress": 1.0,
        "created": NOW - 60.0 * number,
        "tags": (),
        "headline": {"clean": 97.1, "attack": "pgd", "robust": 61.2, "difference": 1.5},
    }
    return RunRow(**{**values, **changes})  # type: ignore[arg-type]


class GivenRows:
    """A follower of the runs folder that says, one poll after the other, what the test gives it; an error stays."""

    behind = False
    troubles: ClassVar[dict[str, str]] = {}
    visible: frozenset[str] = frozenset()

    def __init__(self, *rows: RunRow) -> None:
        self.polls = 0
        self._news: deque[tuple[RunRow, ...] | Exception] = deque([rows] if rows else [])

    def give(self, news: tuple[RunRow, ...] | Exception) -> None:
        self._news.append(news)

    def poll(self) -> tuple[RunRow, ...] | None:
        self.polls += 1
        if self._news and isinstance(self._news[0], Exception):
            lasting = self._news[0] if len(self._news) == 1 else self._news.popleft()
            raise lasting
        return self._news.popleft() if self._news else None


def app_with(given: GivenRows, runs: Path = Path("runs")) -> CafeApp:
    followers = replace(Followers.by(lambda: NOW), runs=lambda _: given)  # type: ignore[arg-type,return-value]
    return CafeApp(runs, followers=followers, clock=lambda: NOW)


def app_on(runs: Path) -> CafeApp:
    """The app a minute after the recorded runs began."""
    return CafeApp(runs, clock=lambda: START + 60)


@pytest.fixture(autouse=True)
def _quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunsScreen, "PERIOD", 0.05)
    monkeypatch.setattr(RunScreen, "PERIOD", 0.05)


def table(pilot: Pilot[None]) -> RunTable:
    return pilot.app.screen.query_one(RunTable)


def ready(pilot: Pilot[None]) -> bool:
    """Whether there is a run under the cursor and keys reach it: the focus comes after the first painting."""
    return table(pilot).selected is not None and table(pilot).has_focus


async def open_run(pilot: Pilot[None]) -> RunScreen:
    """Open the run under the cursor and wait until it is drawn."""
    await until(pilot, lambda: ready(pilot))
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
    screen = pilot.app.screen
    assert isinstance(screen, RunScreen)
    await until(pilot, lambda: bool(screen.query_one(StageBar).text().strip()))
    return screen


# --- the list --------------------------------------------------------------------------------------------------------


async def test_lists_runs_with_state_progress_age_and_headline(tmp_path: Path) -> None:
    given = GivenRows(row(0, state="running", progress=0.25, stage="game", headline={}), row(5))
    async with app_with(given).run_test(size=(160, 20)) as pilot:
        await until(pilot, lambda: "run0005" in table(pilot).text())
        header, running, finished = table(pilot).text().splitlines()
        assert header.split() == [
            "state",
            "run",
            "stage",
            "progress",
            "to",
            "go",
            "trend",
            "age",
            "clean",
            "robust",
            "vs",
            "base",
        ]
        assert "running" in running
        assert "game" in running
        assert "25%" in running
        assert "finished" in finished
        for text in ("5m", "97.1", "61.2 pgd", "+1.5"):
            assert text in finished


@pytest.mark.parametrize("width", [20, 60, 80, 100, 120, 200])
async def test_rows_fit_the_terminal_and_keep_state_and_name(width: int) -> None:
    async with app_with(GivenRows(row(1))).run_test(size=(width, 10)) as pilot:
        await until(pilot, lambda: "run0001" in table(pilot).text() or width == 20)
        for line in table(pilot).text().splitlines():
            assert len(line) <= width


async def test_empty_folder_says_what_to_type(tmp_path: Path) -> None:
    async with CafeApp(tmp_path / "none").run_test() as pilot:
        await until(
            pilot, lambda: "\n    cafe run quickstart" in str(pilot.app.screen.query_one("#empty", Static).content)
        )
        await pilot.press("enter", "s", "j", "G")
        assert isinstance(pilot.app.screen, RunsScreen)


async def test_a_long_list_shows_its_newest_runs_before_it_is_read_whole(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    all_read = threading.Event()

    class Slow(GivenRows):
        def poll(self) -> tuple[RunRow, ...] | None:
            all_read.wait(PATIENCE)
            return super().poll()

    async with app_with(Slow(row(1), row(2)), tmp_path).run_test() as pilot:
        await until(pilot, lambda: "finished" in table(pilot).text())
        assert table(pilot).selected == row_of(run, NOW)
        assert "reading" in str(pilot.app.screen.query_one("#title", Static).content)
        all_read.set()
        await until(pilot, lambda: "2 runs" in str(pilot.app.screen.query_one("#title", Static).content))


async def test_keys_in_the_bottom_line_can_be_clicked() -> None:
    async with app_with(GivenRows(row(1), row(2))).run_test(size=(100, 20)) as pilot:
        await until(pilot, lambda: ready(pilot))
        keys = pilot.app.screen.query_one(KeyBar)
        await until(pilot, lambda: "Open" in keys.text())  # it is drawn again when the table gets the focus
        shown = [word for word in keys.text().split() if len(word) > 1]
        assert shown[:4] == ["Open", "Quit", "New", "run"]
        assert shown[-1] == "Help", "the key that tells all others is never left out"
        await pilot.pause(0.3)
        await pilot.click(KeyBar, offset=(2 + keys.text().index("Help"), 0))
        await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))


async def test_a_folder_that_cannot_be_read_is_said_and_read_again_later() -> None:
    given = GivenRows()
    given.give(UsageError("cannot read the runs folder runs: Permission denied"))
    async with app_with(given).run_test() as pilot:
        await until(pilot, lambda: "Permission denied" in str(pilot.app.screen.query_one("#empty", Static).content))
        given.give((row(1),))
        await until(pilot, lambda: "run0001" in table(pilot).text())


async def test_cursor_and_scroll_stay_on_their_run_while_rows_come_and_change() -> None:
    given = GivenRows(*(row(n) for n in range(10, 210)))
    async with app_with(given).run_test(size=(120, 20)) as pilot:
        await until(pilot, lambda: ready(pilot))
        await pilot.press(*["j"] * 60)
        before = table(pilot).text().splitlines()
        scrolled = table(pilot).scroll_offset.y
        given.give(tuple(row(n) for n in range(207)))
        await until(pilot, lambda: table(pilot).scroll_offset.y == scrolled + 10)
        assert table(pilot).selected == row(70)
        assert table(pilot).text().splitlines() == before
        given.give(tuple(row(n) for n in range(207) if n != 70))
        await until(pilot, lambda: table(pilot).selected == row(71))


async def test_at_the_top_of_the_list_new_runs_are_seen_and_the_cursor_stays_on_its_run() -> None:
    given = GivenRows(row(5), row(6))
    async with app_with(given).run_test() as pilot:
        await until(pilot, lambda: table(pilot).selected == row(5))
        given.give((row(4), row(5), row(6)))
        await until(pilot, lambda: "run0004" in table(pilot).text())
        assert table(pilot).selected == row(5)


async def test_moves_with_arrows_letters_pages_and_mouse() -> None:
    given = GivenRows(*(row(n) for n in range(1000)))
    async with app_with(given).run_test(size=(120, 22)) as pilot:
        await until(pilot, lambda: ready(pilot))
        for keys, expected in (
            (["j", "down", "j"], 3),
            (["k", "up"], 1),
            (["G"], 999),
            (["pageup"], 981),
            (["g"], 0),
            (["pagedown", "k"], 17),
            (["home", "k"], 0),
        ):
            await pilot.press(*keys)
            assert table(pilot).selected == row(expected), keys
            assert row(expected).name in table(pilot).text()
        await pilot.click(RunTable, offset=(5, 4))
        assert table(pilot).selected == row(3)


async def test_changes_repaint_cells_and_nothing_repaints_when_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    given = GivenRows(row(1, state="running", progress=0.1), row(2))
    async with app_with(given).run_test(size=(120, 20)) as pilot:
        await until(pilot, lambda: "10%" in table(pilot).text())
        painted: list[tuple[Widget, tuple[object, ...]]] = []
        refresh = Widget.refresh

        def count(self: Widget, *regions: object, **options: bool) -> Widget:
            painted.append((self, regions))
            return refresh(self, *regions, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(Widget, "refresh", count)
        await quiet(pilot, lambda: len(painted), 0.2)
        painted.clear()
        seen = given.polls
        given.give((row(1, state="running", progress=0.1), row(2)))
        await until(pilot, lambda: given.polls > seen + 3)
        assert painted == []
        given.give((row(1, state="running", progress=0.2), row(2)))
        await until(pilot, lambda: "20%" in table(pilot).text())
        [(widget, [region])] = painted
        assert isinstance(widget, RunTable)
        assert region.height == 1  # type: ignore[attr-defined]
        assert region.width < 15  # type: ignore[attr-defined]


async def test_filter_narrows_as_it_is_typed_and_escape_clears_it() -> None:
    given = GivenRows(row(1), row(2, state="failed", tags=("ablation",)), row(3, state="failed"))
    async with app_with(given).run_test(size=(100, 20)) as pilot:
        await until(pilot, lambda: ready(pilot))
        await pilot.press("slash", *"FAIL")
        await until(pilot, lambda: "run0001" not in table(pilot).text())
        assert "2 of 3 runs" in str(pilot.app.screen.query_one("#title", Static).content)
        await pilot.press("space", *"abl", "enter")
        await until(pilot, lambda: "run0003" not in table(pilot).text())
        assert table(pilot).has_focus
        assert table(pilot).selected == row(2, state="failed", tags=("ablation",))
        await pilot.press("slash", *"zzz")
        await until(pilot, lambda: "zzz" in str(pilot.app.screen.query_one("#empty", Static).content))
        await pilot.press("escape")
        await until(pilot, lambda: all(name in table(pilot).text() for name in ("run0001", "run0002", "run0003")))
        assert not pilot.app.screen.query(Input)
        assert table(pilot).has_focus


async def test_names_are_text_never_markup_nor_control() -> None:
    evil = row(1, id="20270115-080000-[red]x\x1b[2J-0001", name="[red]x\x1b[2J", stage="[/]", tags=("[bold",))
    async with app_with(GivenRows(evil), Path("[odd] runs")).run_test(size=(160, 20)) as pilot:
        await until(pilot, lambda: "[red]x" in table(pilot).text())
        assert "\x1b" not in table(pilot).text()
        assert "[odd] runs" in str(pilot.app.screen.query_one("#title", Static).content)


# --- stopping, help, leaving -----------------------------------------------------------------------------------------


async def test_stop_asks_first_and_then_leaves_the_stop_file(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="game", state="running")
    async with app_on(tmp_path).run_test() as pilot:
        await until(pilot, lambda: ready(pilot))
        for answer in (["n"], ["escape"], ["enter"]):
            await pilot.press("s")
            await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
            await pilot.press(*answer)
            await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
            assert not run.stop_file.exists()
        await pilot.press("s")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, run.stop_file.exists)


async def test_sorting_goes_through_all_orders_and_keeps_the_cursor_on_its_run() -> None:
    rows = [row(i, headline={"robust": float(r), "clean": 90.0}) for i, r in enumerate((50, 70, 60))]
    async with app_with(GivenRows(*rows)).run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "3 runs" in str(pilot.app.screen.query_one("#title", Static).content))
        await pilot.press("j")
        seen = {}
        for _ in ORDERS:
            await pilot.press("o")
            title = str(pilot.app.screen.query_one("#title", Static).content)
            order = title.partition(", by ")[2] or "age"
            seen[order] = [line.split()[2] for line in table(pilot).text().splitlines()[1:]]
            assert table(pilot).selected == rows[1]
        assert set(seen) == set(ORDERS)
        assert [line[-4:] for line in seen["robust"]] == ["0001", "0002", "0000"]
        assert [line[-4:] for line in seen["age"]] == ["0000", "0001", "0002"]


async def test_a_click_on_a_title_sorts_by_it_and_again_turns_the_order_round() -> None:
    robust = [{"robust": value, "attack": "pgd"} for value in (50.0, 70.0)]
    given = GivenRows(row(0, headline=robust[0]), row(1, headline=robust[1]), row(2, headline={}))
    async with app_with(given).run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "3 runs" in str(pilot.app.screen.query_one("#title", Static).content))
        names = lambda: [line.split()[2][-4:] for line in table(pilot).text().splitlines()[1:]]  # noqa: E731
        title = 1 + table(pilot).text().splitlines()[0].index("robust")
        await pilot.click(RunTable, offset=(title, 0))
        await until(pilot, lambda: names() == ["0001", "0000", "0002"])
        assert "robust▾" in table(pilot).text()
        await pilot.click(RunTable, offset=(title, 0))
        await until(pilot, lambda: names() == ["0000", "0001", "0002"])
        assert "robust▴" in table(pilot).text()
        await pilot.press("O")
        await until(pilot, lambda: names() == ["0001", "0000", "0002"])


async def test_runs_are_grouped_by_profile_under_headings_that_fold() -> None:
    given = GivenRows(row(0, profile="a"), row(1, profile="b [b]"), row(2, profile="a", state="running"))
    async with app_with(given).run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "3 runs" in str(pilot.app.screen.query_one("#title", Static).content))
        await pilot.press("p")
        lines = table(pilot).text().splitlines()[1:]
        assert [line.split()[:2] for line in (lines[0], lines[3])] == [["▾", "a"], ["▾", "b"]]
        assert "2 runs, 1 going on, best robust 61.2" in lines[0]
        assert ["run0000" in lines[1], "run0002" in lines[2], "run0001" in lines[4]] == [True] * 3
        assert table(pilot).selected is not None
        await pilot.press("g")
        assert table(pilot).selected is None, "a heading is no run"
        await pilot.press("s", "space", "c")
        await pilot.press("enter")
        assert [line.split()[0] for line in table(pilot).text().splitlines()[1:]] == ["▸", "▾", "✓"]
        await pilot.press("enter", "p")
        assert len(table(pilot).text().splitlines()) == 4


async def test_trends_and_times_to_go_are_read_for_the_runs_in_view(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="train", state="running")
    state = run.state()
    state.pid, state.pid_started, state.host = 1, START + 1, "elsewhere"
    state.progress, state.heartbeat = 0.25, START + 60
    run.write_state(state)
    async with app_on(tmp_path).run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "█" in table(pilot).text())
        assert " 2m " in table(pilot).text(), "59 s for a quarter leave 177 s"
        with run.records_file.open("ab") as file:
            for step, value in enumerate((1, 9, 1, 9)):
                file.write(encode(Scalars(stage="game", step=step, values={"accuracy_ac": float(value)})))
        await until(pilot, lambda: "▁█▁█" in table(pilot).text())


async def test_marked_runs_are_tagged_together(tmp_path: Path) -> None:
    for i in range(3):
        record_run(tmp_path, run_id=f"20260921-14400{i}-quickstart-k3f9")
    async with app_on(tmp_path).run_test(size=WIDE) as pilot:
        await until(pilot, lambda: ready(pilot))
        await pilot.press("space", "space")
        assert "2 marked" in str(pilot.app.screen.query_one("#title", Static).content)
        assert table(pilot).text().count(MARK) == 2
        await pilot.press("t")
        await until(pilot, lambda: isinstance(pilot.app.screen, Prompt))
        await pilot.press(*"good x", "enter")
        tagged = lambda: [RunDir(path).info().tags for path in sorted(tmp_path.iterdir())]  # noqa: E731
        await until(pilot, lambda: tagged() == [[], ["good", "x"], ["good", "x"]])
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        await pilot.press("t")
        await until(pilot, lambda: isinstance(pilot.app.screen, Prompt))
        await pilot.press("minus", "x", "enter")
        await until(pilot, lambda: tagged() == [[], ["good"], ["good"]])


async def test_a_note_begins_from_the_one_there_is(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    annotate(run, note="one")
    async with app_on(tmp_path).run_test(size=WIDE) as pilot:
        await until(pilot, lambda: ready(pilot))
        for keys, expected in ((["end", "2", "enter"], "one2"), (["x", "escape"], "one2")):
            await pilot.press("n")
            await until(pilot, lambda: isinstance(pilot.app.screen, Prompt))
            await pilot.press(*keys)
            await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
            await until(pilot, lambda wanted=expected: run.info().note == wanted)  # type: ignore[misc]


async def test_deleting_asks_and_spares_what_is_still_going(tmp_path: Path) -> None:
    done = record_run(tmp_path, run_id="20260921-144000-quickstart-done")
    going = record_run(tmp_path, run_id="20260921-144001-quickstart-live", upto="train", pid=os.getpid())
    async with app_on(tmp_path).run_test(size=WIDE) as pilot:
        await until(pilot, lambda: ready(pilot))
        await pilot.press("space", "space", "d")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        assert done.path.exists(), "enter alone means no"
        await pilot.press("d")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: not done.path.exists())
        assert going.path.exists()
        await until(pilot, lambda: "1 run," in str(pilot.app.screen.query_one("#title", Static).content))


async def test_a_stopped_run_is_resumed_and_a_finished_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = record_run(tmp_path, run_id="20260921-144001-quickstart-stop", upto="train", state="stopped")
    record_run(tmp_path, run_id="20260921-144000-quickstart-done")
    started: list[str] = []
    monkeypatch.setattr(local, "spawn", lambda run: started.append(run.id))
    async with app_on(tmp_path).run_test(size=WIDE) as pilot:
        await until(pilot, lambda: ready(pilot))
        await pilot.press("space", "space", "r")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: started == [stopped.id])


async def test_a_finished_run_cannot_be_stopped(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    async with app_on(tmp_path).run_test() as pilot:
        await until(pilot, lambda: ready(pilot))
        await pilot.press("s")
        await pilot.pause(0.1)
        assert isinstance(pilot.app.screen, RunsScreen)
        screen = await open_run(pilot)
        assert "s" not in screen.active_bindings
        await pilot.press("s")
        assert not run.stop_file.exists()


@pytest.mark.parametrize("keys", [["q"], ["ctrl+c"], ["ctrl+q"], ["enter", "ctrl+c"]])
async def test_quitting_leaves_the_run_alone(tmp_path: Path, keys: list[str]) -> None:
    run = record_run(tmp_path, upto="game", state="running")
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path != run.state_file}
    app = app_on(tmp_path)
    async with app.run_test() as pilot:
        await until(pilot, lambda: ready(pilot))
        await pilot.press(*keys)
        await until(pilot, lambda: not app.is_running or app._exit)
    assert before == {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path != run.state_file}


@pytest.mark.parametrize("back", ["q", "escape"])
async def test_back_from_help_and_run(tmp_path: Path, back: str) -> None:
    record_run(tmp_path)
    async with app_on(tmp_path).run_test() as pilot:
        screen = await open_run(pilot)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
        text = pilot.app.screen.query_one(HelpLines).text()
        for expected in ("tab", "Next pane", "Back", "psi", "AC", "CF", "CC", "Adv", "head(F_nat + h(Z))"):
            assert expected in text
        await pilot.press(back)
        await until(pilot, lambda: pilot.app.screen is screen)
        await pilot.press(back)
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


# --- one run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [40, 60, 80, 100, 200])
def test_times_are_whole_wherever_a_long_name_ends(cells: int, tmp_path: Path) -> None:
    run = record_run(tmp_path, run_id="20260921-144001-reproduction-mnist5k-seed1-k3f9", upto="game", state="running")
    view = RunFollower(run, clock=lambda: run.state().heartbeat + 1).poll()
    assert view is not None
    assert view.eta is not None
    header = RunHeader()
    header._view = view
    (line,) = header.compose_lines(cells)
    shown = plain(line)[:cells]
    assert f"{fmt.duration(view.elapsed)} so far, about {fmt.duration(view.eta)} to go" in shown
    assert (run.id in shown) == (cells >= 100)
    assert shown.endswith("k3f9") or cells >= 100 or cells == 40


async def test_a_run_shows_stages_curves_accuracies_table_and_log(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    run.log_file.write_text("one\n\x1b[31mtwo [bold]\x1b[0m\n")
    async with app_on(tmp_path).run_test(size=WIDE) as pilot:
        screen = await open_run(pilot)
        await until(pilot, lambda: len(screen.query_one(LogView).lines) == 2)
        assert run.id in screen.query_one(RunHeader).text()
        assert all(stage in screen.query_one(StageBar).text() for stage in ("train", "[game]", "inoculate", "evaluate"))
        first, second, accuracies, errors = screen.query(Chart)
        assert "AC" in accuracies.text()
        assert "CE CF" in errors.text()
        assert "hypothesis" in first.text()
        assert "test function" in first.text()
        assert "psi" in second.text()
        readings = screen.query_one(Accuracies).text().splitlines()
        assert [line.split()[0] for line in readings] == ["Adv", "CF", "CC", "AC"]
        assert readings[0].split()[1] == "66.4"
        assert all(attack in screen.query_one(RobustTable).text() for attack in ("clean", "fgsm", "pgd"))
        assert "+3.1 [0.9, 5.3] p = 0.009" in screen.query_one(RobustTable).text()
        assert not any("\x1b" in line for line in screen.query_one(LogView).lines)


async def test_what_the_engine_appends_appears(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="game", state="running")
    async with app_on(tmp_path).run_test(size=WIDE) as pilot:
        screen = await open_run(pilot)
        with run.records_file.open("ab") as file:
            file.write(encode(Scalars(stage="game", step=100_000, values={**READINGS, "psi": 0.123})))
            file.write(encode(WarningNote(text="[b]gradients vanish")))
            file.write(encode(Message(text="scanning [features]")))
            file.write(b'{"kind":"scal')  # torn
        with run.log_file.open("a") as log:
            log.write("a new line\nhalf a li")
        await until(pilot, lambda: "87.6" in screen.query_one(Accuracies).text())
        await until(pilot, lambda: "[b]gradients vanish" in screen.query_one(RobustTable).text())
        assert "scanning [features]" in screen.query_one(RunHeader).text()
        await until(pilot, lambda: "a new line" in screen.query_one(LogView).lines)
        assert "0.123" in list(screen.query(Chart))[1].text()
        assert "half a li" not in screen.query_one(LogView).lines


async def test_a_failed_run_says_why_and_what_to_do_first(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="train", state="running")
    run.write_state(State(state="failed", error="cannot write [x]: disk full", hint="Free some space."))
    async with app_on(tmp_path).run_test() as pilot:
        screen = await open_run(pilot)
        reason, hint, about = screen.query_one(RunHeader).text().splitlines()
        assert reason == "cannot write [x]: disk full"
        assert hint == "Free some space."
        assert "failed" in about


async def test_low_terminals_show_one_pane_at_a_time_and_high_ones_all(tmp_path: Path) -> None:
    record_run(tmp_path, upto="game", state="running")
    async with app_on(tmp_path).run_test(size=(80, 24)) as pilot:
        screen = await open_run(pilot)
        panes = ("curves", "results", "log", "profile")
        for shown in (*panes, *panes):
            assert [pane for pane in panes if screen.query_one(f"#{pane}").region] == [shown]
            assert f" {shown}]" in screen.query_one(PaneTabs).text()
            assert screen.query_one(f"#{shown}").has_focus
            await pilot.press("tab")
        await pilot.press("3", "shift+tab")
        assert screen.query_one("#results").has_focus
        await pilot.resize_terminal(120, 40)
        assert [pane for pane in panes if screen.query_one(f"#{pane}").region] == ["curves", "results", "log"]
        await pilot.press("4")
        assert [pane for pane in panes if screen.query_one(f"#{pane}").region] == ["profile"]
        await pilot.click(PaneTabs, offset=(3, 0))
        await until(pilot, lambda: screen.query_one("#curves").has_focus)


async def test_other_stages_can_be_looked_at_and_the_screen_follows_again(tmp_path: Path) -> None:
    record_run(tmp_path, upto="game", state="running")
    async with app_on(tmp_path).run_test(size=WIDE) as pilot:
        screen = await open_run(pilot)
        assert "[game]" in screen.query_one(StageBar).text()
        await pilot.press("h")
        assert "[train]" in screen.query_one(StageBar).text()
        await until(pilot, lambda: " val " in screen.query(Chart).first().text())
        await pilot.press("l", "l")
        assert "[game]" in screen.query_one(StageBar).text()


async def test_the_running_stage_tells_the_time_to_go_where_there_is_room(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="game", state="running")
    stages = [record for record in map(json.loads, run.records_file.read_text().splitlines()) if "stage_kind" in record]
    started = next(stage["t"] for stage in stages if stage["stage"] == "game")
    async with CafeApp(tmp_path, clock=lambda: started + 30).run_test(size=WIDE) as pilot:
        bar = (await open_run(pilot)).query_one(StageBar)
        assert "50% 30s to go › · inoculate" in bar.text()
        assert "[game]" in bar.text()
        await pilot.resize_terminal(75, 40)
        await until(pilot, lambda: len(bar.text().rstrip()) <= 73)
        assert "50% › · inoculate" in bar.text()
        assert "evaluate" in bar.text()


async def test_nothing_repaints_on_an_open_run_without_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=WIDE) as pilot:
        await open_run(pilot)
        painted: list[Widget] = []
        refresh = Widget.refresh

        def count(self: Widget, *regions: object, **options: bool) -> Widget:
            painted.append(self)
            return refresh(self, *regions, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(Widget, "refresh", count)
        await quiet(pilot, lambda: len(painted), 0.6)


async def test_resizing_from_tiny_to_huge_keeps_the_charts_inside(tmp_path: Path) -> None:
    record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=(60, 20)) as pilot:
        screen = await open_run(pilot)
        for size in ((1, 1), (10, 3), (40, 12), (200, 60), (79, 33), (150, 34), (60, 20)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            for chart in screen.query(Chart):
                if chart.region:
                    assert {len(line) for line in chart.text().splitlines()} <= {chart.size.width}
                    assert len(chart.text().splitlines()) == chart.size.height
        await pilot.press("escape")
        for size in ((1, 1), (10, 3), (200, 60)):
            await pilot.resize_terminal(*size)
            await pilot.pause()


# --- foreign, torn and vanishing directories -------------------------------------------------------------------------


async def test_foreign_and_torn_directories_are_listed_or_passed_over_but_never_crash(tmp_path: Path) -> None:
    good = record_run(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "file.txt").write_text("x")
    torn = tmp_path / "20270101-000000-torn-aaaa"
    torn.mkdir()
    (torn / "run.json").write_bytes(b'{"id": 3, \xff')
    (torn / "state.json").write_bytes(b"")
    (torn / "records.jsonl").write_bytes(b'\x00\xff\n{"kind":"scalars","stage":[]}\n[]\n{"kind":"cell"}\n')
    (torn / "results.json").write_bytes(b"[1")
    (torn / "profile.toml").write_bytes(b"= not toml")
    async with app_on(tmp_path).run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "torn" in table(pilot).text() and good.id in table(pilot).text())
        assert "notes" not in table(pilot).text()
        while (selected := table(pilot).selected) and selected.id != torn.name:
            await pilot.press("j")
        await pilot.press("enter")
        await until(pilot, lambda: torn.name in pilot.app.screen.query_one(RunHeader).text())


async def test_a_run_that_vanishes_while_it_is_open_leaves_the_screen_usable(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=WIDE) as pilot:
        screen = await open_run(pilot)
        shutil.rmtree(run.path)
        await pilot.pause(0.5)
        await pilot.press("tab", "h", "escape")
        await until(pilot, lambda: "cafe run quickstart" in str(pilot.app.screen.query_one("#empty", Static).content))
        assert screen is not pilot.app.screen


async def test_leaving_a_screen_ends_its_reader(tmp_path: Path) -> None:
    record_run(tmp_path)
    given = GivenRows(row(1))
    polls: list[RunDir] = []
    closed: list[RunDir] = []

    class Counted:
        behind = False

        def __init__(self, run: RunDir) -> None:
            self.run = run

        def poll(self) -> None:
            polls.append(self.run)

        def close(self) -> None:
            closed.append(self.run)

    followers = Followers(lambda _: given, Counted, Counted)  # type: ignore[arg-type,return-value]
    async with CafeApp(tmp_path, followers=followers).run_test() as pilot:
        await until(pilot, lambda: ready(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: bool(polls))
        await quiet(pilot, lambda: given.polls, 0.3)
        listed = given.polls
        await pilot.press("escape")
        await until(pilot, lambda: given.polls > listed)
        await until(pilot, lambda: bool(closed))
        await quiet(pilot, lambda: len(polls), 0.3)


async def test_a_run_that_ended_is_looked_at_less_often_until_it_goes_on(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=WIDE) as pilot:
        screen = await open_run(pilot)
        await until(pilot, lambda: screen.period > RunScreen.PERIOD)
        run.write_state(State(state="running", stage="evaluate", host="elsewhere", heartbeat=START + 59))
        await until(pilot, lambda: screen.period == RunScreen.PERIOD)


async def test_what_happens_to_an_open_run_is_told_but_not_what_had_happened(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="game", state="running")
    async with app_on(tmp_path).run_test(size=WIDE) as pilot:
        await open_run(pilot)
        await pilot.pause(0.3)
        told = lambda: [(toast.message, toast.severity) for toast in pilot.app._notifications]  # noqa: E731
        assert told() == []
        with run.records_file.open("ab") as file:
            file.write(encode(StageChange(stage="game", stage_kind="game", state="finished", t=START + 50)))
            for i in range(5):
                file.write(encode(WarningNote(text=f"[b]warning {i}")))
        run.write_state(State(state="failed", error="disk full"))
        await until(pilot, lambda: len(told()) == 6)
        assert told()[0][0].startswith("game finished in ")
        assert told()[1:4] == [(f"[b]warning {i}", "warning") for i in range(3)]
        assert told()[4:] == [("and 2 more warnings", "warning"), (f"{run.id} is failed: disk full", "error")]


async def test_the_profile_shows_what_differs_from_its_parent(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    text = run.profile_file.read_text()
    run.profile_file.write_text(text.replace("seed = 0", "seed = 41"))
    async with app_on(tmp_path).run_test(size=(80, 60)) as pilot:
        screen = await open_run(pilot)
        await pilot.press("4")
        profile = screen.query_one(ProfileView)
        await until(pilot, lambda: "1 key differs from quickstart" in profile.text())
        changed = [line for line in profile.text().splitlines() if line.startswith("●")]
        assert [line.split() for line in changed] == [["●", "seed", "41", "was", "0"]]
        assert "threat.eps" in profile.text()


async def test_a_small_screen_goes_through_the_curves_by_key(tmp_path: Path) -> None:
    record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=(80, 24)) as pilot:
        screen = await open_run(pilot)
        await pilot.press("1")
        texts = lambda: "\n".join(chart.text() for chart in screen.query(Chart) if chart.display)  # noqa: E731
        await until(pilot, lambda: "hypothesis" in texts())
        assert "CE AC" not in texts()
        await pilot.press("v")
        await until(pilot, lambda: "CE AC" in texts() and "hypothesis" not in texts())
        await pilot.press("v")
        await until(pilot, lambda: "hypothesis" in texts())


async def test_copying_takes_what_the_focused_pane_shows(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=WIDE) as pilot:
        await open_run(pilot)
        await pilot.press("2", "Y")
        assert pilot.app.clipboard.startswith("| accuracy % |")
        assert "pgd" in pilot.app.clipboard
        await pilot.press("1", "Y")
        assert pilot.app.clipboard == run.id


async def test_garbage_is_looked_for_again_once_the_ui_is_painted(tmp_path: Path) -> None:
    usual = gc.get_threshold()
    gc.disable()  # as the command does, for a quicker start
    try:
        async with CafeApp(tmp_path).run_test() as pilot:
            await until(pilot, gc.isenabled)
    finally:
        gc.enable()
        gc.unfreeze()
        gc.set_threshold(*usual)


def test_only_messages_of_one_kind_replace_each_other() -> None:
    old, new = RunsChanged((), "old"), RunsChanged((), "new")
    assert old.can_replace(new)
    assert not old.can_replace(LogGrew(()))
    assert not LogGrew(()).can_replace(LogGrew(()))
