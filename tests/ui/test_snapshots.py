"""Pictures of every screen on recorded runs. After a change that is meant: pytest tests/ui --snapshot-update."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import OptionList

from cafe_tui.launch import host
from cafe_tui.ui.app import CafeApp
from cafe_tui.ui.screens.compare import CompareScreen
from cafe_tui.ui.screens.curves import CurvesScreen
from cafe_tui.ui.screens.launch import LaunchScreen
from cafe_tui.ui.screens.run import RunScreen
from cafe_tui.ui.screens.runs import RunsScreen
from cafe_tui.ui.screens.samples import SamplesScreen
from cafe_tui.ui.screens.system import SystemScreen
from cafe_tui.ui.widgets.chart import Chart
from cafe_tui.ui.widgets.confirm import Confirm
from cafe_tui.ui.widgets.log_view import LogView
from tests.recorded import START, record_run
from tests.ui.test_app import ready
from tests.ui.test_system import NOW, SAMPLE, GivenSamples
from tests.ui.waiting import quiet, until

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


def text_of(screen: Screen[None]) -> str:
    """All that the widgets of a screen say they show."""
    return "\n".join(str(widget.text()) for widget in screen.query("*") if hasattr(widget, "text"))


async def drawn(pilot: Pilot[None]) -> None:
    """Let the app go on until the screen stays as it is."""
    await quiet(pilot, lambda: text_of(pilot.app.screen), 0.4)


async def listed(pilot: Pilot[None]) -> None:
    await until(pilot, lambda: ready(pilot))
    await drawn(pilot)


def opened(down: int, *keys: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Open the run so many rows down, wait until all of it is there, press keys."""

    async def run(pilot: Pilot[None]) -> None:
        await listed(pilot)
        await pilot.press(*["j"] * down, "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen) and pilot.app.screen.complete)
        await until(pilot, lambda: pilot.app.screen.query_one(LogView).lines)
        charts = pilot.app.screen.query(Chart)
        await until(pilot, lambda: not any("no values" in chart.text() for chart in charts if chart.region))
        await pilot.press(*keys)
        await drawn(pilot)

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


def shown(screen: type[Screen[None]], keys: Sequence[str], ready: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Press keys in the list of runs, then wait for a screen that says `ready`."""

    async def run(pilot: Pilot[None]) -> None:
        await listed(pilot)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(0.1)
            if key == "enter":
                await until(pilot, lambda: getattr(pilot.app.screen, "complete", True))
        await until(pilot, lambda: isinstance(pilot.app.screen, screen) and ready in text_of(pilot.app.screen))
        await drawn(pilot)

    return run


@pytest.mark.parametrize("size", SIZES)
def test_curves(app: CafeApp, snap_compare: Snapshot, size: tuple[int, int]) -> None:
    keys = (*"jjj", "enter", "z", "s", "left")
    assert snap_compare(app, terminal_size=size, run_before=shown(CurvesScreen, keys, "hypothesis_loss"))


@pytest.mark.parametrize("size", SIZES)
def test_phase(app: CafeApp, snap_compare: Snapshot, size: tuple[int, int]) -> None:
    keys = (*"jjj", "enter", "z", "x")
    assert snap_compare(app, terminal_size=size, run_before=shown(CurvesScreen, keys, "across: hypothesis_loss"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("pane", "ready"), [("1", "hypothesis"), ("2", "pgd"), ("3", "profile")])
def test_compare(app: CafeApp, snap_compare: Snapshot, size: tuple[int, int], pane: str, ready: str) -> None:
    keys = (*"jjj", "space", "k", "k", "space", "c", pane)
    assert snap_compare(app, terminal_size=size, run_before=shown(CompareScreen, keys, ready))


@pytest.mark.parametrize("size", SIZES)
def test_profile(app: CafeApp, snap_compare: Snapshot, size: tuple[int, int]) -> None:
    keys = (*"jjj", "enter", "4")
    assert snap_compare(app, terminal_size=size, run_before=shown(RunScreen, keys, "threat.eps"))


@pytest.mark.parametrize("size", SIZES)
def test_launch(app: CafeApp, snap_compare: Snapshot, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "look", lambda _: None)

    async def form(pilot: Pilot[None]) -> None:
        await shown(LaunchScreen, ["N"], "")(pilot)
        await until(pilot, lambda: pilot.app.screen.query_one(OptionList).option_count > 1)
        await pilot.press("enter")
        await until(pilot, lambda: "threat.eps" in text_of(pilot.app.screen) or "seed" in text_of(pilot.app.screen))
        await drawn(pilot)

    assert snap_compare(app, terminal_size=size, run_before=form)


@pytest.mark.parametrize("size", SIZES)
def test_samples(app: CafeApp, snap_compare: Snapshot, size: tuple[int, int]) -> None:
    async def empty(pilot: Pilot[None]) -> None:
        await shown(RunScreen, [*"jjj", "enter"], "pgd")(pilot)
        await pilot.press("p")
        await until(pilot, lambda: isinstance(pilot.app.screen, SamplesScreen))
        await drawn(pilot)

    assert snap_compare(app, terminal_size=size, run_before=empty)


@pytest.mark.parametrize("size", SIZES)
def test_system(app: CafeApp, snap_compare: Snapshot, size: tuple[int, int]) -> None:
    async def system_screen(pilot: Pilot[None]) -> None:
        await listed(pilot)
        samples = [msgspec.structs.replace(SAMPLE, t=NOW + 2 * i, gpus_t=NOW + 2 * i) for i in range(30)]
        given = GivenSamples(*samples)
        pilot.app.push_screen(SystemScreen(Path("runs"), given, clock=lambda: NOW + 60))  # type: ignore[arg-type]
        await until(pilot, lambda: "H100" in text_of(pilot.app.screen))
        await drawn(pilot)

    assert snap_compare(app, terminal_size=size, run_before=system_screen)


@pytest.mark.parametrize("size", SIZES)
def test_groups(app: CafeApp, snap_compare: Snapshot, size: tuple[int, int]) -> None:
    assert snap_compare(app, terminal_size=size, run_before=shown(RunsScreen, ["p"], "best robust"))


def test_confirm(app: CafeApp, snap_compare: Snapshot) -> None:
    assert snap_compare(app, run_before=shown(Confirm, [*"jjj", "d"], ""))


def test_high_contrast(app: CafeApp, snap_compare: Snapshot) -> None:
    app.theme = "high-contrast"
    assert snap_compare(app, run_before=opened(3))


def test_light(app: CafeApp, snap_compare: Snapshot) -> None:
    app.theme = "textual-light"
    assert snap_compare(app, run_before=opened(3))


def test_failed_run(app: CafeApp, snap_compare: Snapshot) -> None:
    assert snap_compare(app, run_before=opened(2))


def test_help(app: CafeApp, snap_compare: Snapshot) -> None:
    assert snap_compare(app, terminal_size=(120, 60), run_before=opened(3, "question_mark"))


def test_sixteen_colours(app: CafeApp, snap_compare: Snapshot) -> None:
    app.theme = "ansi-dark"
    assert snap_compare(app, run_before=opened(3))
