"""The verbs. Each is a few lines; what costs time to import is imported inside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Final, NamedTuple

import typer

from cafe_tui.cli import (
    attack,
    compare,
    data,
    doctor,
    importing,
    logs,
    ls,
    note,
    plot,
    profiles,
    resume,
    rm,
    run,
    serve,
    show,
    stop,
    table,
    tag,
    watch,
)
from cafe_tui.cli.options import Runs


class Verb(NamedTuple):
    """A word after `cafe`: what it does, whose docstring and arguments are its help, and the example under that.

    What has verbs of its own is a `typer.Typer`; the help lists it after the others.
    """

    name: str
    action: Callable[..., None] | typer.Typer
    example: str


VERBS: Final = (
    Verb("run", run.run, "cafe run quickstart --set seed=1 --tag first"),
    Verb("watch", watch.watch, "cafe watch last"),
    Verb("stop", stop.stop, "cafe stop last"),
    Verb("resume", resume.resume, "cafe resume last"),
    Verb(
        "attack",
        attack.attack,
        "cafe attack runs/20261123-0736.../checkpoints/train.safetensors --attacks clean,aa",
    ),
    Verb(
        "import",
        importing.import_checkpoint,
        "cafe import cifar10_adv_vgg16_best.t7 --model vgg16 --data cifar10",
    ),
    Verb("profiles", profiles.list_profiles, "cafe profiles"),
    Verb("profile", profiles.show_profile, "cafe profile quickstart --set seed=1"),
    Verb("ls", ls.list_runs, "cafe ls --state running --sort robust"),
    Verb("show", show.show, "cafe show last"),
    Verb("logs", logs.logs, "cafe logs last -f"),
    Verb("plot", plot.plot, "cafe plot last --series psi,hypothesis_loss --svg game.svg"),
    Verb("table", table.table, "cafe table last --format markdown"),
    Verb("compare", compare.compare, "cafe compare 20261123-0736 last --attack pgd"),
    Verb("rm", rm.remove, "cafe rm 20261123-0259 --yes"),
    Verb("tag", tag.tag, "cafe tag last baseline"),
    Verb("note", note.note, "cafe note last 'eps was too large'"),
    Verb("data", data.verbs, "cafe data prepare cifar10"),
    Verb("serve", serve.serve, "cafe serve --port 8000, then ssh -L 8000:localhost:8000 from your own machine"),
    Verb("doctor", doctor.doctor, "cafe doctor --runs /data/runs"),
)
"""All verbs, in the order of `cafe --help`."""

app = typer.Typer(
    help="Train, attack, examine and inoculate image classifiers with CAFE, in the terminal.",
    epilog="`cafe` alone opens the terminal UI. Start with: cafe run quickstart",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,  # Rich would double the time of --help
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"cafe {version('cafe-tui')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def home(
    context: typer.Context,
    runs: Runs = None,
    slow: Annotated[
        bool, typer.Option("--slow", help="For a slow line: the UI draws once a second, in sixteen colours.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Train, attack, examine and inoculate image classifiers with CAFE, in the terminal."""
    if context.invoked_subcommand is not None:
        if runs:  # before the verb: its own option, which comes after it, goes first
            os.environ["CAFE_RUNS"] = str(runs)
        if slow:
            os.environ["CAFE_SLOW"] = "1"
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print(context.get_help())
        raise typer.Exit(2)
    from cafe_tui.locations import runs_folder, slow_line

    slow = slow_line(slow)
    from cafe_tui.ui.app import open_ui

    raise typer.Exit(open_ui(runs_folder(runs), slow=slow))


for verb in VERBS:
    epilog = f"Example: {verb.example}"
    if isinstance(verb.action, typer.Typer):
        app.add_typer(verb.action, name=verb.name, epilog=epilog)
    else:
        app.command(verb.name, epilog=epilog)(verb.action)
