"""Makes the pictures of every screen in docs/screens: the real terminal UI on real run directories.

python docs/make_screens.py RUN_DIR
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot
from textual.widgets import OptionList

from cafe_tui.ui.app import CafeApp
from cafe_tui.ui.screens.curves import CurvesScreen
from cafe_tui.ui.screens.run import RunScreen
from cafe_tui.ui.widgets.run_header import RunHeader
from cafe_tui.ui.widgets.run_table import RunTable
from engine.contract.run.rundir import RunDir

SIZE = (120, 40)
SETTLED = 0.8
"""Seconds until charts, which draw four times a second at most, show everything."""


async def until(pilot: Pilot[None], true: Callable[[], object]) -> None:
    """Let the app go on until something holds; TimeoutError after ten seconds."""
    async with asyncio.timeout(10):
        while not true():
            await pilot.pause(0.05)
    await pilot.pause(SETTLED)


class Photographer:
    """Walks through the screens and keeps a picture of each."""

    def __init__(self, app: CafeApp, pilot: Pilot[None], folder: Path) -> None:
        self.app, self.pilot, self.folder = app, pilot, folder

    async def take(self, name: str, *keys: str, true: Callable[[], object] = lambda: True) -> None:
        """Press keys, wait for something, write the picture `name`."""
        for key in keys:
            await self.pilot.press(key)
            await self.pilot.pause(0.2)
        await until(self.pilot, true)
        picture = self.app.export_screenshot(title="cafe")
        (self.folder / f"{name}.svg").write_text(picture, encoding="utf-8")


async def make(run: RunDir, folder: Path) -> None:
    """Photograph every screen, with `run` and its neighbours, a minute after its last sign of life."""
    now = run.state().heartbeat + 60
    app = CafeApp(Path(run.path.parent.name), clock=lambda: now)
    async with app.run_test(size=SIZE) as pilot:
        photographer = Photographer(app, pilot, folder)
        take, table = photographer.take, app.screen.query_one(RunTable)
        await until(pilot, lambda: table.selected is not None)
        while (selected := table.selected) and selected.id != run.id:
            await pilot.press("j")
            if table.selected is selected:
                raise SystemExit(f"{run.path} is not a run that the list shows")
        await take("runs")
        await take("run", "enter", true=lambda: run.id in app.screen.query_one(RunHeader).text())
        await take("profile", "4")
        await take("samples", "p")
        await take("curves", "escape", "z", "s", true=lambda: isinstance(app.screen, CurvesScreen))
        await take("phase", "x")
        await take("help", "escape", "question_mark")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunScreen))
        await take("system", "S")
        await until(pilot, lambda: True)
        await take("compare", "escape", "escape", "g", "space", "space", "space", "c", "2")
        await take("launch", "escape", "N", true=lambda: app.screen.query_one(OptionList).option_count)
        await take("launch", "enter", *["down"] * 12)
        await take("palette", "escape", "escape", "ctrl+p")


def main() -> None:
    """Parse the one argument, make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory; its neighbours are in the list too")
    path = parser.parse_args().run.resolve()
    screens = Path(__file__).resolve().parent / "screens"
    screens.mkdir(exist_ok=True)
    os.chdir(path.parents[1])  # the list shows the folder of runs as it is given, and machines differ in the rest
    asyncio.run(make(RunDir(path), screens))


if __name__ == "__main__":
    main()
