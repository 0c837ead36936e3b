"""cafe run, watch, stop: start an engine, follow it, end it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cafe_tui.cli.options import Json, Plain, Run, Runs, find_run
from cafe_tui.locations import runs_folder


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
    detach: Annotated[bool, typer.Option("--detach", help="Print the run id and return at once.")] = False,
    plain: Plain = False,
    json: Annotated[
        bool, typer.Option("--json", help="Each record as a line, then the results document as the last line.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved profile; start nothing.")] = False,
    runs: Runs = None,
) -> None:
    """Run a profile and follow it until it ends.

    ctrl-C asks the engine to stop after its current step with a checkpoint; a second ctrl-C kills it. The engine is a
    process of its own: closing the terminal does not touch it.
    """
    from functools import partial
    from json import dumps as quoted

    from cafe_tui.launch import local
    from engine.contract import profile as profiles

    overrides = [*(sets or [])]
    if name is not None:
        overrides.append(f"name={quoted(name)}")
    if device is not None:
        overrides.append(f"compute.device={quoted(device)}")
    loaded = profiles.load(profile, overrides)
    if dry_run:
        print(profiles.dumps(loaded.profile), end="")
        return
    start = partial(local.start, runs_folder(runs), loaded, tags=tag or [], command=["cafe", *sys.argv[1:]])
    if detach:
        print(start()[0].id)
        return
    from cafe_tui.follow import follow

    raise typer.Exit(follow(start, plain=plain, json=json))


def watch(run: Run, plain: Plain = False, runs: Runs = None) -> None:
    """The live view of a run that is going on, or the final one. ctrl-C leaves the view; the run goes on."""
    from cafe_tui.follow import watch as look_on

    look_on(find_run(runs, run), plain=plain)


def stop(
    runs_named: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run ids, unique prefixes, or `last`.")],
    json: Json = False,
    runs: Runs = None,
) -> None:
    """Ask running engines to stop after their current step, with a checkpoint."""
    from cafe_tui.cli.options import print_json
    from cafe_tui.launch import local

    directories = [find_run(runs, name) for name in runs_named]
    answers = []
    for directory in directories:
        status = directory.status()
        if not status.final:
            local.stop(directory)
        answers.append({"id": directory.id, "asked": not status.final, "state": status.state})
        if not json:
            word = f"is {status.state} already" if status.final else "is asked to stop after its current step"
            print(f"{directory.id} {word}")
    if json:
        print_json({"runs": answers})


def resume(
    run: Run,
    detach: Annotated[bool, typer.Option("--detach", help="Print the run id and return at once.")] = False,
    plain: Plain = False,
    runs: Runs = None,
) -> None:
    """Go on with a run that was stopped, killed or failed, from its last checkpoint, and follow it."""
    from cafe_tui.launch import local

    directory = find_run(runs, run)
    if detach:
        local.resume(directory)
        print(directory.id)
        return
    from cafe_tui.follow import follow

    raise typer.Exit(follow(lambda: (directory, local.resume(directory)), plain=plain))
