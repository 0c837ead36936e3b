"""cafe rm, tag, note: keep the runs folder in order."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cafe_tui.cli.options import Run, Runs, find_run

RunsNamed = Annotated[list[str], typer.Argument(metavar="RUN...", help="Run ids, unique prefixes, or `last`.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to `cafe`."""
    app.command("rm", epilog="Example: cafe rm 20261123-0259 --yes")(remove)
    app.command("tag", epilog="Example: cafe tag last baseline")(tag)
    app.command("note", epilog="Example: cafe note last 'eps was too large'")(note)


def remove(
    runs_named: RunsNamed,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    runs: Runs = None,
) -> None:
    """Delete runs that have ended, with all their files."""
    from engine.contract.errors import UsageError
    from engine.contract.run import rundir

    directories = list({run.id: run for run in (find_run(runs, name) for name in runs_named)}.values())
    going = [run.id for run in directories if not run.status().final]
    if going:
        raise UsageError(f"still going on: {', '.join(going)}; nothing was deleted", "Stop it first: `cafe stop`.")
    if not yes:
        for run in directories:
            print(run.path)
        if not sys.stdin.isatty():
            raise UsageError("nothing was deleted", "Say --yes where nobody can be asked.")
        typer.confirm(f"Delete {'these' if len(directories) > 1 else 'this'} for good?", abort=True)
    for run in directories:
        rundir.remove(run)
        print(f"{run.id} deleted")


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
    print(f"{directory.id} {' '.join(info.tags) or '(no tags)'}")


def note(
    run: Run,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The note; it replaces an earlier one.")],
    runs: Runs = None,
) -> None:
    """Write a note on a run; `cafe show` and the UI show it."""
    from engine.contract.run import rundir

    directory = find_run(runs, run)
    rundir.annotate(directory, note=text)
    print(f"{directory.id} noted")
