"""Options that many verbs share."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cafe_tui.locations import runs_folder

if TYPE_CHECKING:
    from engine.contract.run.rundir import RunDir

Runs = Annotated[
    Path | None,
    typer.Option("--runs", metavar="DIR", help="Where runs live. [default: $CAFE_RUNS or ./runs]", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run id, a unique prefix of one, or `last`.")]
RunsNamed = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Run ids, unique prefixes, `last`, or a tag for all that have it.")
]
RunOrTag = Annotated[
    str, typer.Argument(metavar="RUN", help="A run id, a unique prefix of one, `last`, or a tag for all that have it.")
]
Detach = Annotated[bool, typer.Option("--detach", help="Print the run id, or the tag of a sweep, and return.")]
Devices = Annotated[
    str | None, typer.Option(metavar="LIST", help="Several processes: GPUs such as 0,1, or cpu:2 for two on the CPU.")
]
Parallel = Annotated[
    int | None,
    typer.Option(min=1, help="Of a sweep: engines side by side. [default: cores / compute.threads; 1 on a GPU]"),
]
Plain = Annotated[bool, typer.Option("--plain", help="Plain lines instead of the live view.")]


def find_run(runs: Path | None, reference: str) -> RunDir:
    """The run that a user names. Raises RunNotFound."""
    from engine.contract.run import listing

    return listing.find(runs_folder(runs), reference)


def find_runs(runs: Path | None, reference: str) -> list[RunDir]:
    """The run that a user names, or all runs with that tag, oldest first. Raises RunNotFound."""
    from engine.contract.errors import RunNotFound
    from engine.contract.run import listing

    try:
        return [find_run(runs, reference)]
    except RunNotFound as error:
        if tagged := listing.tagged(runs_folder(runs), reference):
            return tagged
        raise error


def print_json(document: object) -> None:
    """One JSON document on stdout; a question mark stands for what UTF-8 cannot hold, as in some file names."""
    import msgspec

    from engine.contract.run.records import to_json

    print(msgspec.json.format(to_json(document), indent=2).decode())


def check_known(what: str, name: str, known: Collection[str]) -> None:
    """Raises UsageError, with a guess, where `name` is none of the known ones."""
    from difflib import get_close_matches

    from engine.contract.errors import UsageError

    if name not in known:
        near = get_close_matches(name, known, 1, 0.5)
        guess = f"Did you mean `{near[0]}`? " if near else ""
        raise UsageError(f"unknown {what}: {name}", f"{guess}Known: {', '.join(known)}.")


def run_engine(*arguments: str) -> int:
    """Let an engine process do something at once, in this terminal; returns its exit code.

    It gets the signals that would end this process. One that a signal ends gives the code of a shell, 130 for these.
    """
    import signal
    from types import FrameType

    from cafe_tui.launch.spawn import attached, python

    process = attached(python("-m", "engine", *arguments))

    def hand_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    endings = (signal.SIGTERM, signal.SIGHUP)
    for number in endings:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, hand_on)
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:  # the engine, in the same terminal, has got it too and says what it means
            continue
        return code if code >= 0 else 130 if -code in (signal.SIGINT, *endings) else 128 - code
