"""The verbs. Each is a few lines; what costs time to import is imported inside it."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cafe_tui.cli.options import Runs

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


from cafe_tui.cli import attack, compare, data, doctor, importing, look, manage, profiles, run, serve  # noqa: E402  (they register their verbs on `app`)

for module in (run, attack, importing, profiles, look, compare, manage, data, serve, doctor):
    module.register(app)
