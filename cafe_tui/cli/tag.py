"""cafe tag: words by which runs are found again."""

from __future__ import annotations

from typing import Annotated

import typer

from cafe_tui.cli.options import Run, Runs, find_run
from engine.contract.printing import say


def tag(
    run: Run,
    tags: Annotated[list[str], typer.Argument(metavar="TAG...", help="Tags to add.")],
    drop: Annotated[bool, typer.Option("--drop", help="Take these tags away instead.")] = False,
    runs: Runs = None,
) -> None:
    """Add tags to a run, or take them away."""
    from engine.contract.run import rundir

    directory = find_run(runs, run)
    info = rundir.annotate(directory, drop=tags) if drop else rundir.annotate(directory, add=tags)
    say(f"{directory.id} {' '.join(info.tags) or '(no tags)'}")
