"""Pictures of both screens on recorded runs. After a change that is meant: pytest tests/ui --snapshot-update."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

from cafe_tui.app import CafeApp
from cafe_tui.screens.run import RunScreen
from cafe_tui.widgets.chart import Chart
from cafe_tui.widgets.log_view import LogView
from cafe_tui.widgets.run_table import RunTable
from tests.recorded import START, record_run

Snapshot = Callable[..., bool]
SIZES = [(80, 24), (160, 50)]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CafeApp:
    """The app on four recorded runs, at one moment; the folder has the same name on every machine."""
    monkeypatch.chdir(tmp_path)
    for variable in ("NO_COLOR", "TEXTUAL_THEME"):
        monkeypatch.delenv(variable, raising=False)
    runs = Path("runs")
    record_run(runs, tags=("demo",))
    record_run(runs, run_id="20260921-144600-quickstart-t5w2", upto="train", start=START + 360)
    record_run(runs, run_id="20260921-144500-quickstart-g8n1", upto="evaluate", start=START + 300)
    record_run(
        runs,
        run_id="20260921-144300-ablation-f2c7",
        upto="game",
        start=START + 180,
        state="failed",
        error="cannot write checkpoints/game.safetensors: No space left on device",
    )
    return CafeApp(runs, clock=lambda: START + 400)


async def listed(pilot: Pilot[None]) -> None:
    while not pilot.app.screen.query_one(RunTable).selected:
        await pilot.pause(0.02)
    await pilot.pause(0.1)


def opened(down: int, *keys: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Open the run so many rows down, wait until all of it is there, press keys."""

    async def run(pilot: Pilot[None]) -> None:
        await listed(pilot)
        await pilot.press(*["j"] * down, "enter")
        while not isinstance(pilot.app.screen, RunScreen) or not pilot.app.screen.query_one(LogView).lines:
            await pilot.pause(0.02)
        while any("no values" in chart.text() for chart in pilot.app.screen.query(Chart)):
            await pilot.pause(0.02)
        await pilot.press(*keys)
        await pilot.pause(0.4)

    return run


@pytest.mark.parametrize("size", SIZES)
def test_runs(app: CafeApp, snap_compare: Snapshot, size: tuple[int, int]) -> None:
    assert snap_compare(app, terminal_size=size, run_before=listed)


@pytest.mark.parametrize("size", SIZES)
def test_finished_run(app: CafeApp, snap_compare: Snapshot, size: tuple[int, int]) -> None:
    assert snap_compare(app, terminal_size=size, run_before=opened(3))


@pytest.mark.parametrize("size", SIZES)
def test_running_evaluation(app: CafeApp, snap_compare: Snapshot, size: tuple[int, int]) -> None:
    assert snap_compare(app, terminal_size=size, run_before=opened(1))


def test_failed_run(app: CafeApp, snap_compare: Snapshot) -> None:
    assert snap_compare(app, run_before=opened(2))


def test_help(app: CafeApp, snap_compare: Snapshot) -> None:
    assert snap_compare(app, terminal_size=(120, 60), run_before=opened(3, "question_mark"))


def test_sixteen_colours(app: CafeApp, snap_compare: Snapshot) -> None:
    app.theme = "ansi-dark"
    assert snap_compare(app, run_before=opened(3))
