"""cafe run, watch, stop: start an engine, follow it, end it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cafe_tui.cli.options import Devices, Json, Plain, Runs, RunsNamed, find_runs
from cafe_tui.locations import runs_folder

if TYPE_CHECKING:
    from engine.contract.profile.files import Loaded
    from engine.contract.profile.sweeps import Sweep
    from engine.contract.run.rundir import RunDir

Parallel = Annotated[
    int | None,
    typer.Option(min=1, help="Of a sweep: engines side by side. [default: cores / compute.threads; 1 on a GPU]"),
]
RunOrTag = Annotated[
    str, typer.Argument(metavar="RUN", help="A run id, a unique prefix of one, `last`, or a tag for all that have it.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs to `cafe`."""
    app.command(epilog="Example: cafe run quickstart --set seed=1 --tag first")(run)
    app.command(epilog="Example: cafe watch last")(watch)
    app.command(epilog="Example: cafe stop last")(stop)
    app.command(epilog="Example: cafe resume last")(resume)


def run(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="A profile's name or file; see `cafe profiles`.")],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: threat.eps=8/255, stage.train.epochs=3."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run. [default: that of the profile]")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given several times.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    devices: Devices = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the run id, or the tag of a sweep, and return.")
    ] = False,
    plain: Plain = False,
    json: Annotated[
        bool, typer.Option("--json", help="Each record as a line, then the results document as the last line.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved profile, or the runs of a sweep; start nothing.")
    ] = False,
    parallel: Parallel = None,
    runs: Runs = None,
) -> None:
    """Run a profile and follow it until it ends.

    ctrl-C asks the engine to stop after its current step with a checkpoint; a second ctrl-C kills it. The engine is a
    process of its own: closing the terminal does not touch it.

    A profile with a table [sweep] stands for several runs. What they will cost is said first; then they are done one
    after another, as many side by side as the cores allow. The same command, and `cafe resume TAG`, go on with those
    that are not finished.
    """
    from functools import partial
    from json import dumps as quoted

    from cafe_tui.launch import local
    from engine.contract.profile import files as profiles

    overrides = [*(sets or [])]
    if name is not None:
        overrides.append(f"name={quoted(name)}")
    if device is not None:
        overrides.append(f"compute.device={quoted(device)}")
    if devices is not None:
        overrides.append(f"compute.devices={quoted(devices)}")
    if sweep := profiles.load_sweep(profile, overrides):
        _run_sweep(sweep, runs, tag or [], parallel, detach=detach, plain=plain, json=json, dry_run=dry_run)
        return
    loaded = profiles.load(profile, overrides)
    if dry_run:
        print(profiles.dumps(loaded.profile), end="")
        return
    start = partial(local.start, runs_folder(runs), loaded, tags=tag or [], command=["cafe", *sys.argv[1:]])
    if detach:
        print(start()[0].id)
        return
    from cafe_tui.console.follow import follow

    raise typer.Exit(follow(start, plain=plain, json=json))


def _run_sweep(
    sweep: Sweep[Loaded],
    runs: Path | None,
    tags: list[str],
    parallel: int | None,
    *,
    detach: bool,
    plain: bool,
    json: bool,
    dry_run: bool,
) -> None:
    from functools import partial

    from cafe_tui.launch import costs, queue

    offer = costs.offer(runs_folder(runs), sweep, parallel)
    out = sys.stderr if json or (detach and not dry_run) else sys.stdout
    if dry_run:
        for row in offer.rows():
            print("  ".join(filter(None, row)))
    for line in costs.announcement(offer):
        print(line, file=out, flush=True)
    if dry_run or not (offer.to_do or json or detach):
        return
    begin = partial(
        queue.start, runs_folder(runs), sweep, tags=tags, command=["cafe", *sys.argv[1:]], parallel=offer.parallel
    )
    if detach:
        begin()
        print(sweep.tag)
        return
    from cafe_tui.console.follow_sweep import follow

    raise typer.Exit(follow(sweep.tag, begin, plain=plain, json=json))


def watch(run: RunOrTag, plain: Plain = False, runs: Runs = None) -> None:
    """The live view of a run that is going on, or the final one; of a tag, all its runs.

    ctrl-C leaves the view; what runs goes on.
    """
    found = find_runs(runs, run)
    if len(found) == 1:
        from cafe_tui.console.follow import watch as look_on

        look_on(found[0], plain=plain)
        return
    from cafe_tui.console.follow_sweep import follow

    follow(run, lambda: found, plain=plain, stops=False)


def stop(runs_named: RunsNamed, json: Json = False, runs: Runs = None) -> None:
    """Ask running engines to stop after their current step, with a checkpoint, and queues to start nothing more."""
    from cafe_tui.cli.options import print_json
    from cafe_tui.launch import local, queue

    answers = []
    for name in runs_named:
        found = find_runs(runs, name)
        going = [(run, run.status()) for run in found]
        if len(found) > 1:  # a tag: its queue as well
            queue.stop([run for run, status in going if not status.final])
        for run, status in going:
            if len(found) == 1 and not status.final:
                local.stop(run)
            answers.append({"id": run.id, "asked": not status.final, "state": status.state})
            if not json:
                word = f"is {status.state} already" if status.final else "is asked to stop after its current step"
                print(f"{run.id} {word}")
    if json:
        print_json({"runs": answers})


def resume(
    run: RunOrTag,
    devices: Devices = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the run id, or the tag of a sweep, and return.")
    ] = False,
    plain: Plain = False,
    parallel: Parallel = None,
    runs: Runs = None,
) -> None:
    """Go on with a run that was stopped, killed or failed, from its last checkpoint, and follow it.

    With a tag, such as that of a sweep: with all its runs that are not finished, one after another.
    """
    from cafe_tui.launch import local
    from engine.contract.errors import UsageError

    found = find_runs(runs, run)
    if len(found) > 1:
        if devices is not None:
            raise UsageError(f"--devices is for one run, and {len(found)} are tagged {run}", "Resume them one by one.")
        _resume_all(run, found, parallel, detach=detach, plain=plain)
        return
    directory = found[0]
    if detach:
        local.resume(directory, devices)
        print(directory.id)
        return
    from cafe_tui.console.follow import follow

    raise typer.Exit(follow(lambda: (directory, local.resume(directory, devices)), plain=plain))


def _resume_all(tag: str, found: list[RunDir], parallel: int | None, *, detach: bool, plain: bool) -> None:
    from cafe_tui.launch import queue
    from engine.contract.errors import UsageError
    from engine.contract.profile import files as profiles

    unfinished = [run for run in found if run.status().state != "finished"]
    if not unfinished:
        raise UsageError(f"all {len(found)} runs tagged {tag} are finished", f"`cafe table {tag}` shows their tables.")
    side_by_side = parallel or queue.side_by_side([profiles.load(str(r.profile_file)).profile for r in unfinished])
    if detach:
        queue.resume(found, side_by_side)
        print(tag)
        return
    from cafe_tui.console.follow_sweep import follow

    def begin() -> list[RunDir]:
        queue.resume(found, side_by_side)
        return found

    raise typer.Exit(follow(tag, begin, plain=plain))
