"""cafe logs: what the engine of a run has printed."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from cafe_tui.cli.options import Run, Runs, find_run
from engine.contract.printing import say


def logs(
    run: Run,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the run ends or ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Lines from the end to begin with.")] = 1000,
    runs: Runs = None,
) -> None:
    """Print the engine's log: warnings, and tracebacks of failures."""
    from cafe_tui.reading.log import LogFollower

    directory = find_run(runs, run)
    tail = LogFollower(directory, lines=lines)
    try:
        while True:
            ended = directory.status().final
            new = tail.poll()
            for line in new:
                say(line, flush=True)
            if not follow or (ended and not new):
                return
            time.sleep(0 if new else 0.25)
    except KeyboardInterrupt:
        return
