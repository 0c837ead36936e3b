"""cafe resume: continue runs that ended early."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cafe_tui.cli.options import Detach, Devices, Parallel, Plain, RunOrTag, Runs, find_runs

if TYPE_CHECKING:
    from engine.contract.run.rundir import RunDir


def resume(
    run: RunOrTag,
    devices: Devices = None,
    detach: Detach = False,
    plain: Plain = False,
    parallel: Parallel = None,
    runs: Runs = None,
) -> None:
    """Go on with a run that was stopped, killed or failed, from its last checkpoint, and follow it.

    With a tag, such as that of a sweep: with all its runs that are not finished, one after another.
    """
    from cafe_tui.launch import local
    from engine.contract.errors import UsageError

    directories = find_runs(runs, run)
    if len(directories) > 1:
        if devices is not None:
            raise UsageError(
                f"--devices is for one run, and {len(directories)} are tagged {run}", "Resume them one by one."
            )
        _resume_all(run, directories, parallel, detach=detach, plain=plain)
        return
    directory = directories[0]
    if detach:
        local.resume(directory, devices)
        print(directory.id)
        return
    from cafe_tui.console.follow import follow

    raise typer.Exit(follow(lambda: (directory, local.resume(directory, devices)), plain=plain))


def _resume_all(tag: str, directories: list[RunDir], parallel: int | None, *, detach: bool, plain: bool) -> None:
    from cafe_tui.launch import queue
    from engine.contract.errors import UsageError
    from engine.contract.profile import files as profiles

    unfinished = [run for run in directories if run.status().state != "finished"]
    if not unfinished:
        raise UsageError(
            f"all {len(directories)} runs tagged {tag} are finished", f"`cafe table {tag}` shows their tables."
        )
    side_by_side = parallel or queue.side_by_side([profiles.load(str(r.profile_file)).profile for r in unfinished])
    if detach:
        queue.resume(directories, side_by_side)
        print(tag)
        return
    from cafe_tui.console.follow_sweep import follow

    def begin() -> list[RunDir]:
        queue.resume(directories, side_by_side)
        return directories

    raise typer.Exit(follow(tag, begin, plain=plain))
