"""cafe note: a sentence kept with a run."""

from __future__ import annotations

from typing import Annotated

import typer

from cafe_tui.cli.options import Run, Runs, find_run
from engine.contract.printing import say


def note(
    run: Run,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The note; it replaces an earlier one.")],
    runs: Runs = None,
) -> None:
    """Write a note on a run; `cafe show` and the UI show it."""
    from engine.contract.run import rundir

    directory = find_run(runs, run)
    rundir.annotate(directory, note=text)
    say(f"{directory.id} noted")
