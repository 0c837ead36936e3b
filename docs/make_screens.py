"""Makes docs/screens/runs.svg and run.svg: the real terminal UI on a real run directory.

python docs/make_screens.py RUN_DIR
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from cafe_tui.app import CafeApp
from cafe_tui.screens.run import RunScreen
from cafe_tui.widgets.run_header import RunHeader
from cafe_tui.widgets.run_table import RunTable
from engine.contract.rundir import RunDir

SIZE = (120, 40)
SETTLED = 0.5
"""Seconds until charts, which draw four times a second at most, show everything."""


async def until(pilot: Pilot[None], true: Callable[[], bool]) -> None:
    """Let the app go on until something holds; TimeoutError after ten seconds."""
    async with asyncio.timeout(10):
        while not true():
            await pilot.pause(0.05)
    await pilot.pause(SETTLED)


async def make(run: RunDir, screens: Path) -> None:
    """Photograph the list of runs and `run`, a minute after its last sign of life."""
    now = run.state().heartbeat + 60
    app = CafeApp(Path(run.path.parent.name), clock=lambda: now)
    async with app.run_test(size=SIZE) as pilot:
        table = app.screen.query_one(RunTable)
        await until(pilot, lambda: table.selected is not None)
        while (selected := table.selected) and selected.id != run.id:
            await pilot.press("j")
            if table.selected is selected:
                raise SystemExit(f"{run.path} is not a run that the list shows")
        (screens / "runs.svg").write_text(app.export_screenshot(title="cafe"), encoding="utf-8")
        await pilot.press("enter")
        await until(
            pilot, lambda: isinstance(app.screen, RunScreen) and run.id in app.screen.query_one(RunHeader).text()
        )
        (screens / "run.svg").write_text(app.export_screenshot(title=f"cafe  {run.id}"), encoding="utf-8")


def main() -> None:
    """Parse the one argument, make both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory; its neighbours are in the list too")
    path = parser.parse_args().run.resolve()
    screens = Path(__file__).resolve().parent / "screens"
    screens.mkdir(exist_ok=True)
    os.chdir(path.parents[1])  # the list shows the folder of runs as it is given, and machines differ in the rest
    asyncio.run(make(RunDir(path), screens))


if __name__ == "__main__":
    main()
