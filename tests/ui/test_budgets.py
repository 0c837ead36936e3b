"""What a screen may cost, counted and never timed: bytes to the terminal, widgets and cells repainted."""

from __future__ import annotations

import gc
import json
import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from textual.geometry import Region
from textual.widget import Widget

from cafe_tui.ui.screens.run import RunScreen
from cafe_tui.ui.screens.runs import RunsScreen
from cafe_tui.ui.widgets.chart import Chart
from cafe_tui.ui.widgets.log_view import KEPT, LogView
from cafe_tui.ui.widgets.run_header import RunHeader
from cafe_tui.ui.widgets.stage_bar import StageBar
from engine.contract.run import liveness, rundir
from engine.contract.run.records import Message, Scalars, StageChange, WarningNote, encode
from engine.contract.run.results import make_cell
from engine.contract.run.rundir import RunDir, State
from tests.recorded import START
from tests.ui.test_app import app_on, open_run
from tests.ui.test_terminal import Terminal
from tests.ui.waiting import quiet, until

PROFILE = Path(__file__).resolve().parents[2] / "profiles" / "quickstart.toml"
TOTAL = 200_000
LIVE_BYTES = 1500
"""Of an update with 25 new points on each of two curves at 120 x 30: 6 kB a second at four updates."""
MOVE_BYTES = 1000


def losses(step: int, t: float = 0.0) -> bytes:
    noise = 0.05 * math.sin(1.7 * step)
    values: dict[str, float | str | None] = {
        "hypothesis_loss": 0.3 + 2 * math.exp(-step / 3000) + noise,
        "test_function_loss": 1.0 + math.exp(-step / 5000) - noise,
    }
    return encode(Scalars(stage="game", step=step, t=t, values=values))


def live_run(folder: Path) -> RunDir:
    """A run of which this process is the engine."""
    run = rundir.create(folder, "live", PROFILE.read_text())
    with run.records_file.open("wb") as file:
        file.write(encode(StageChange(stage="game", stage_kind="game", total_steps=TOTAL, t=START)))
    beat(run, 0)
    return run


def beat(run: RunDir, step: int) -> None:
    run.write_state(
        State(
            state="running",
            stage="game",
            step=step,
            total_steps=TOTAL,
            progress=step / TOTAL,
            pid=os.getpid(),
            pid_started=liveness.process_started(os.getpid()),
            host=socket.gethostname(),
            heartbeat=START,
        )
    )


# --- bytes to the terminal -------------------------------------------------------------------------------------------


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.process.close(force=True)


@pytest.mark.slow
@pytest.mark.parametrize(("environment", "budget"), [({}, LIVE_BYTES), ({"CAFE_SLOW": "1"}, 1000)])
def test_bytes_of_a_live_run(
    tmp_path: Path, terminals: list[Terminal], environment: dict[str, str], budget: int
) -> None:
    run = live_run(tmp_path / "runs")
    with run.records_file.open("ab", buffering=0) as file:
        for step in range(1, 1000):
            file.write(losses(step))
        terminals.append(terminal := Terminal(tmp_path / "runs", 120, 30, COLORTERM="truecolor", **environment))
        terminal.until(lambda shown: "running" in shown and "Quit" in shown)
        terminal.process.send("\r")
        terminal.until(lambda shown: "hypothesis" in shown)
        while len(terminal.read(1.0)) > budget:
            pass  # until all is drawn; a clock goes on
        before, updates = len(terminal.raw), 12
        for begin in range(1000, 1000 + 25 * updates, 25):
            file.write(b"".join(map(losses, range(begin, begin + 25))))
            newest = json.loads(losses(begin + 24))["values"]["test_function_loss"]
            terminal.until(lambda shown, text=f"test function {newest:.2f}": text in shown)
        terminal.read(1.0)
    assert 0 < (len(terminal.raw) - before) / updates < budget


@pytest.mark.slow
def test_bytes_of_a_move_among_a_thousand_runs(tmp_path: Path, terminals: list[Terminal]) -> None:
    for number in range(1000):
        run = RunDir(tmp_path / f"20260101-{number:06}-run{number:04}-{number:04}")
        run.path.mkdir()
        run.state_file.write_text('{"state": "finished", "progress": 1.0, "stage": "evaluate"}')
    terminals.append(terminal := Terminal(tmp_path, 120, 40, COLORTERM="truecolor"))
    terminal.until(lambda shown: "1000 runs" in shown and "Quit" in shown)
    terminal.until_silent(1.0)
    before = len(terminal.raw)
    for _ in range(60):  # over the edge of the screen, too
        terminal.process.send("j")
        terminal.read(0.1)
    terminal.until_silent(0.5)
    assert 0 < (len(terminal.raw) - before) / 60 < MOVE_BYTES


# --- what is repainted -----------------------------------------------------------------------------------------------


async def test_an_update_repaints_some_cells_and_a_heartbeat_header_and_stages_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunScreen, "PERIOD", 0.05)
    monkeypatch.setattr(RunsScreen, "PERIOD", 0.05)
    run = live_run(tmp_path)
    with run.records_file.open("ab", buffering=0) as file:
        for step in range(1, 1000):
            file.write(losses(step))
        async with app_on(tmp_path).run_test(size=(120, 30)) as pilot:
            screen = await open_run(pilot)
            await until(pilot, lambda: "hypothesis" in screen.query(Chart).first().text())
            painted: list[tuple[Widget, int]] = []
            refresh = Widget.refresh

            def count(self: Widget, *regions: Region, **options: bool) -> Widget:
                painted.append((self, sum(region.area for region in regions) or self.size.area))
                return refresh(self, *regions, **options)

            monkeypatch.setattr(Widget, "refresh", count)
            await quiet(pilot, lambda: len(painted), 0.6)
            painted.clear()
            for step in range(1000, 1025):
                file.write(losses(step))
            await until(pilot, lambda: painted)
            await pilot.pause(0.6)
            assert {type(widget) for widget, _ in painted} == {Chart}
            assert sum(cells for _, cells in painted) < 400, "of 3,600"
            painted.clear()
            beat(run, 1024)
            await until(pilot, lambda: painted)
            await pilot.pause(0.4)
            assert {type(widget) for widget, _ in painted} <= {RunHeader, StageBar}


# --- eight hours -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_eight_hours_of_a_live_run_leave_the_memory_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """115,200 records, four a simulated second, with warnings, messages, cells and log lines among them."""
    monkeypatch.setattr(RunScreen, "PERIOD", 1e6)
    run = live_run(tmp_path)
    batches, batch = 120, 960
    process, sizes = psutil.Process(), []
    with run.records_file.open("ab", buffering=0) as file, run.log_file.open("a") as log:
        file.write(losses(1))
        async with app_on(tmp_path).run_test(size=(120, 40)) as pilot:
            screen = await open_run(pilot)
            for number in range(batches):
                steps = range(number * batch, (number + 1) * batch)
                file.write(b"".join(losses(step + 2, START + step / 4) for step in steps))
                file.write(encode(WarningNote(text=f"warning {number}")) + encode(Message(text=f"at {number}")))
                file.write(encode(make_cell("train", f"attack{number % 5}", 300, 450)))
                log.write("".join(f"2026-11-23 07:38:19 info    line {number} {i}\n" for i in range(120)))
                log.flush()
                screen.read()
                await pilot.pause()
                if number in (batches // 2, batches - 1):
                    gc.collect()
                    sizes.append(process.memory_info().rss)
            assert len(screen.query_one(LogView).lines) == KEPT
            (series,) = (s for (_, name), s in screen._follower.view.series.items() if name == "hypothesis_loss")
            assert len(series) == batches * batch + 1
            assert (sizes[1] - sizes[0]) / 1e6 < 4, "megabytes in the second half; records alone take ten there"
