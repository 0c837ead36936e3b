"""cafe stop: end running engines after their current step."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from cafe_tui.cli.options import Json, Runs, RunsNamed, find_runs, print_json
from engine.contract.printing import say

if TYPE_CHECKING:
    from engine.contract.errors import CafeError
    from engine.contract.run.rundir import RunDir, Status


def stop(runs_named: RunsNamed, json: Json = False, runs: Runs = None) -> None:
    """Ask running engines to stop after their current step, with a checkpoint, and queues to start nothing more.

    All are asked. Those that refuse, as runs of another user do, are named at the end; the exit code is then 1.
    """
    answers, refused = [], []
    for run in {run.path: run for name in runs_named for run in find_runs(runs, name)}.values():
        before = run.status()
        asked, error = _ask(run, before)
        answers.append(
            {"id": run.id, "asked": asked, "state": before.state, "error": "" if error is None else error.message}
        )
        if error is not None:
            refused.append(error)
        elif not json:
            say(f"{run.id} {_told(before, asked)}")
    if json:
        print_json({"runs": answers})
    for error in refused:
        say(f"cafe: {error.message}", file=sys.stderr)
    if refused:
        raise typer.Exit(1)


def _ask(run: RunDir, before: Status) -> tuple[bool, CafeError | None]:
    """Whether a run was asked, and the reason if it refused. One that is lost is asked too: it may yet live."""
    from cafe_tui.launch import queue

    if before.final and before.state != "lost" and not run.occupied:
        return False, None
    refused = queue.stop([run])
    return not refused, next(iter(refused), None)


def _told(before: Status, asked: bool) -> str:
    if before.state == "lost":
        return "is lost; a request to stop is left there in case it lives"
    if before.final and asked:
        return f"is {before.state}, but an engine still holds it; that is asked to stop"
    return f"is {before.state} already" if before.final else "is asked to stop after its current step"
