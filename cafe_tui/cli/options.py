"""Options that many verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cafe_tui.locations import runs_folder

if TYPE_CHECKING:
    from engine.contract.rundir import RunDir

Runs = Annotated[
    Path | None,
    typer.Option("--runs", metavar="DIR", help="Where runs live. [default: $CAFE_RUNS or ./runs]", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run id, a unique prefix of one, or `last`.")]
RunsNamed = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Run ids, unique prefixes, `last`, or a tag for all that have it.")
]
Plain = Annotated[bool, typer.Option("--plain", help="Plain lines instead of the live view.")]


def find_run(runs: Path | None, reference: str) -> RunDir:
    """The run that a user names. Raises RunNotFound."""
    from engine.contract import rundir

    return rundir.find(runs_folder(runs), reference)


def find_runs(runs: Path | None, reference: str) -> list[RunDir]:
    """The run that a user names, or all runs with that tag, oldest first. Raises RunNotFound."""
    from engine.contract import rundir
    from engine.contract.errors import RunNotFound

    try:
        return [find_run(runs, reference)]
    except RunNotFound as error:
        if tagged := rundir.tagged(runs_folder(runs), reference):
            return tagged
        raise error


def print_json(document: object) -> None:
    """One JSON document on stdout; a question mark stands for what UTF-8 cannot hold, as in some file names."""
    import msgspec

    from engine.contract.records import to_json

    print(msgspec.json.format(to_json(document), indent=2).decode())
