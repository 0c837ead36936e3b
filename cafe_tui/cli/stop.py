"""cafe stop: end running engines after their current step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cafe_tui.cli.options import Json, Runs, RunsNamed, find_runs, print_json
from engine.contract.printing import say

if TYPE_CHECKING:
    from engine.contract.run.rundir import RunDir, Status


def stop(runs_named: RunsNamed, json: Json = False, runs: Runs = None) -> None:
    """Ask running engines to stop after their current step, with a checkpoint, and queues to start nothing more."""
    answers = []
    for name in runs_named:
        for run, before in _ask(find_runs(runs, name)):
            answers.append({"id": run.id, "asked": not before.final, "state": before.state})
            if not json:
                word = f"is {before.state} already" if before.final else "is asked to stop after its current step"
                say(f"{run.id} {word}")
    if json:
        print_json({"runs": answers})


def _ask(directories: list[RunDir]) -> list[tuple[RunDir, Status]]:
    """Ask one run to stop, or all of a tag and their queue; the runs with what they were before."""
    from cafe_tui.launch import local, queue

    known = [(run, run.status()) for run in directories]
    running = [run for run, status in known if not status.final]
    if len(directories) > 1:
        queue.stop(running)
    else:
        for run in running:
            local.stop(run)
    return known
