"""cafe rm: delete runs that have ended."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cafe_tui.cli.options import Runs, find_run
from engine.contract.printing import say

RunsNamed = Annotated[list[str], typer.Argument(metavar="RUN...", help="Run ids, unique prefixes, or `last`.")]


def remove(
    runs_named: RunsNamed,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    runs: Runs = None,
) -> None:
    """Delete runs that have ended, with all their files. Of a linked run only the link is deleted."""
    from engine.contract.errors import CafeError, UsageError
    from engine.contract.run import rundir

    directories = list({run.id: run for run in (find_run(runs, name) for name in runs_named)}.values())
    going = [run.id for run in directories if not run.status().final]
    if going:
        raise UsageError(f"still going on: {', '.join(going)}; nothing was deleted", "Stop it first: `cafe stop`.")
    if not yes:
        for run in directories:
            say(f"{run.path} (the link alone)" if run.path.is_symlink() else str(run.path))
        if not sys.stdin.isatty():
            raise UsageError("nothing was deleted", "Say --yes where nobody can be asked.")
        typer.confirm(f"Delete {'these' if len(directories) > 1 else 'this'} for good?", abort=True)
    failed = 0
    for run in directories:
        linked = run.path.is_symlink()
        try:
            rundir.remove(run)
        except CafeError as error:  # it keeps the others from nothing
            say(*f"cafe: {error}".split("\n"), file=sys.stderr)
            failed = max(failed, error.exit_code)
            continue
        say(f"{run.id}: link deleted; what it leads to is kept" if linked else f"{run.id} deleted")
    if failed:
        raise typer.Exit(failed)
