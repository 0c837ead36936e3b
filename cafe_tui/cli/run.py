"""cafe run: start an engine, or a queue of them, and follow it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from cafe_tui.cli.options import Detach, Devices, Parallel, Plain, Runs
from cafe_tui.locations import runs_folder
from engine.contract.printing import say

if TYPE_CHECKING:
    from engine.contract.profile.files import Loaded
    from engine.contract.profile.sweeps import Sweep


class View(NamedTuple):
    """How what was started is shown: not at all (`detach`), as plain lines, as JSON lines, or live."""

    detach: bool
    plain: bool
    json: bool


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
    detach: Detach = False,
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
        view = View(detach=detach, plain=plain, json=json)
        _run_sweep(sweep, runs_folder(runs), tag or [], parallel, view, dry_run=dry_run)
        return
    loaded = profiles.load(profile, overrides)
    if dry_run:
        print(profiles.dumps(loaded.profile), end="")
        return
    start = partial(local.start, runs_folder(runs), loaded, tags=tag or [], command=["cafe", *sys.argv[1:]])
    if detach:
        say(start()[0].id)
        return
    from cafe_tui.console.follow import follow

    raise typer.Exit(follow(start, plain=plain, json=json))


def _run_sweep(
    sweep: Sweep[Loaded], runs: Path, tags: list[str], parallel: int | None, view: View, *, dry_run: bool
) -> None:
    """Print what a sweep will cost, then start its queue and follow it; with `dry_run` only the former."""
    from functools import partial

    from cafe_tui.launch import costs, queue

    offer = costs.offer(runs, sweep, parallel)
    if dry_run:
        for row in offer.rows():
            say("  ".join(filter(None, row)))
    out = sys.stderr if view.json or (view.detach and not dry_run) else sys.stdout
    for line in costs.announcement(offer):
        say(line, file=out, flush=True)
    if dry_run or not (offer.to_do or view.json or view.detach):
        return
    begin = partial(queue.start, runs, sweep, tags=tags, command=["cafe", *sys.argv[1:]], parallel=offer.parallel)
    if view.detach:
        begin()
        say(sweep.tag)
        return
    from cafe_tui.console.follow_sweep import follow

    raise typer.Exit(follow(sweep.tag, begin, plain=view.plain, json=view.json))
