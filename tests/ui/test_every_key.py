"""Every key of every screen, pressed on recorded, torn, empty and vanishing runs: nothing crashes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from textual.pilot import Pilot

from cafe_tui.launch import host
from cafe_tui.ui.app import CafeApp
from cafe_tui.ui.screens import manage
from cafe_tui.ui.screens.compare import CompareScreen
from cafe_tui.ui.screens.launch import LaunchScreen
from cafe_tui.ui.screens.polling import PollingScreen
from cafe_tui.ui.screens.run import RunScreen
from cafe_tui.ui.screens.runs import RunsScreen
from cafe_tui.ui.screens.system import SystemScreen
from tests.recorded import START, record_run
from tests.ui.test_app import ready
from tests.ui.test_opening import opening_keys
from tests.ui.waiting import until

SCREENS: dict[type[object], Sequence[str]] = {
    RunsScreen: (),
    RunScreen: ("enter",),
    **{screen: ("enter", key) for key, screen in opening_keys(RunScreen)},
    **{screen: (key,) for key, screen in opening_keys(RunsScreen)},
    CompareScreen: ("space", "space", "c"),
}
LEAVE = {"q", "escape", "ctrl+c", "ctrl+q", "?", "question_mark", "ctrl+p", "enter", "S"} | {
    key for screen in (RunScreen, RunsScreen) for key, _ in opening_keys(screen)
}
"""Keys that lead to another screen, which are pressed by themselves."""


@pytest.fixture(autouse=True)
def _still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(host, "look", lambda _: None)
    monkeypatch.setattr(manage, "_act", lambda *_: None)  # keys are pressed, runs are left alone


def torn(folder: Path) -> None:
    run = folder / "20270101-000000-torn-aaaa"
    run.mkdir(parents=True)
    for name in ("run.json", "state.json", "records.jsonl", "results.json", "profile.toml", "engine.log"):
        (run / name).write_bytes(b'\x00\xff\n{"kind":"scalars","stage":[]}\n[]\n= not toml')


async def enter(pilot: Pilot[None], screen: type[object], keys: Sequence[str]) -> None:
    await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and ready(pilot))
    for key in keys:
        await pilot.press(key)
        await pilot.pause(0.05)
    await until(pilot, lambda: isinstance(pilot.app.screen, screen))
    await pilot.pause(0.3)


async def press_all(pilot: Pilot[None], times: int = 1) -> int:
    """Press every key that the screen declares and that stays on it, so many times; how many there were."""
    screen = pilot.app.screen
    keys = [key for key in screen.active_bindings if key not in LEAVE]
    for key in keys * times:
        await pilot.press(key)
        while pilot.app.screen is not screen:  # a question or a line to fill in
            await pilot.press("escape")
            await pilot.pause(0.02)
    await pilot.pause(0.1)
    assert pilot.app.is_running
    return len(keys)


@pytest.mark.parametrize("size", [(80, 24), (160, 50), (20, 5)])
@pytest.mark.parametrize(("screen", "keys"), SCREENS.items())
async def test_every_key_of_a_screen(
    tmp_path: Path, screen: type[object], keys: Sequence[str], size: tuple[int, int]
) -> None:
    for number in (1, 2):
        record_run(tmp_path / "runs", run_id=f"20260921-14400{number}-quickstart-k3f{number}")
    async with CafeApp(tmp_path / "runs", clock=lambda: START + 60).run_test(size=size) as pilot:
        await enter(pilot, screen, keys)
        assert await press_all(pilot, times=2 if size == (80, 24) else 1) >= 3
        if screen is not RunsScreen:
            await pilot.press("escape", "escape", "escape")
            await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


@pytest.mark.parametrize(("screen", "keys"), [item for item in SCREENS.items() if item[0] is not CompareScreen])
async def test_every_key_on_a_torn_run(tmp_path: Path, screen: type[object], keys: Sequence[str]) -> None:
    torn(tmp_path / "runs")
    async with CafeApp(tmp_path / "runs", clock=lambda: START + 60).run_test(size=(100, 30)) as pilot:
        await enter(pilot, screen, keys)
        await press_all(pilot)


async def test_every_key_on_an_empty_folder(tmp_path: Path) -> None:
    async with CafeApp(tmp_path / "runs").run_test() as pilot:
        await until(pilot, lambda: "cafe run quickstart" in str(pilot.app.screen.query_one("#empty").content))  # type: ignore[attr-defined]
        await press_all(pilot)
        for key in ("enter", "c"):
            await pilot.press(key)
        assert isinstance(pilot.app.screen, RunsScreen)


@pytest.mark.parametrize(
    ("screen", "keys"), [item for item in SCREENS.items() if item[0] not in (RunsScreen, LaunchScreen, SystemScreen)]
)
async def test_every_key_on_runs_that_vanish(
    tmp_path: Path, screen: type[object], keys: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if issubclass(screen, PollingScreen):
        monkeypatch.setattr(screen, "PERIOD", 0.05)
    for number in (1, 2):
        record_run(tmp_path / "runs", run_id=f"20260921-14400{number}-quickstart-k3f{number}")
    async with CafeApp(tmp_path / "runs", clock=lambda: START + 60).run_test(size=(100, 30)) as pilot:
        await enter(pilot, screen, keys)
        shutil.rmtree(tmp_path / "runs")
        await pilot.pause(0.3)
        await press_all(pilot)
