"""What can be done to the runs of the list: stop, resume, delete, tag, note. Each asks first where it must."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from textual.app import App

from cafe_tui import format as fmt
from cafe_tui.ui.widgets.confirm import Confirm
from cafe_tui.ui.widgets.prompt import Prompt
from engine.contract.errors import CafeError
from engine.contract.run import rundir
from engine.contract.run.rundir import FINAL, RunDir

if TYPE_CHECKING:
    from cafe_tui.reading.runs import RunRow


@dataclass(frozen=True)
class Verb:
    """Something to do to runs: to which of them, what to ask and to warn of before, and how to do it.

    `act` returns what was done, in a few words, and raises CafeError where it failed.
    """

    name: str
    suits: Callable[[RunRow], bool]
    none_suited: str
    consequence: str
    refusal: str
    act: Callable[[RunDir], str]


def _names(rows: Sequence[RunRow]) -> str:
    return fmt.printable(rows[0].id) if len(rows) == 1 else f"{len(rows)} runs"


def _act(app: App[None], runs: Sequence[RunDir], act: Callable[[RunDir], str]) -> None:
    """Do something to each run off the UI thread, and report it; a failure does not keep the others from it."""

    def work() -> None:
        for run in runs:
            try:
                text, severity = act(run), "information"
            except CafeError as error:
                text, severity = str(error), "error"
            app.call_from_thread(app.notify, fmt.printable(text), severity=severity, markup=False)

    app.run_worker(work, thread=True, group="manage")


def act_on(app: App[None], runs: Path, rows: Sequence[RunRow], verb: Verb) -> None:
    """Ask about those of the rows that the verb suits, and then do it to their runs in the folder `runs`."""
    suited = [row for row in rows if verb.suits(row)]
    if not suited:
        app.notify(f"{_names(rows)}: {verb.none_suited}", markup=False)
        return

    def answered(yes: bool | None) -> None:
        if yes:
            _act(app, [RunDir(runs / row.id) for row in suited], verb.act)

    app.push_screen(Confirm(f"{verb.name} {_names(suited)}?", verb.consequence, verb.name, verb.refusal), answered)


def _stop(run: RunDir) -> str:
    run.request_stop()
    return f"asked {run.id} to stop"


def _resume(run: RunDir) -> str:
    from cafe_tui.launch import local

    local.resume(run)
    return f"{run.id} goes on"


def _delete(run: RunDir) -> str:
    rundir.remove(run)
    return f"{run.id} deleted"


STOP: Final = Verb(
    name="Stop",
    suits=lambda row: row.state not in FINAL,
    none_suited="not running",
    consequence="The current step is finished and a checkpoint written.",
    refusal="Keep running",
    act=_stop,
)
RESUME: Final = Verb(
    name="Resume",
    suits=lambda row: row.state in FINAL and row.state != "finished",
    none_suited="nothing to resume",
    consequence="It goes on from its last checkpoint.",
    refusal="Leave it",
    act=_resume,
)
DELETE: Final = Verb(
    name="Delete",
    suits=lambda row: row.state in FINAL,
    none_suited="still running; stop it first",
    consequence="All its files are deleted for good, checkpoints too.",
    refusal="Keep",
    act=_delete,
)


def tag(app: App[None], runs: Path, rows: Sequence[RunRow]) -> None:
    """Ask for tags: words are added, words after a minus are taken away."""

    def act(run: RunDir, *, add: list[str], drop: list[str]) -> str:
        return f"{run.id}: {' '.join(rundir.annotate(run, add=add, drop=drop).tags) or 'no tags'}"

    def answered(text: str | None) -> None:
        words = (text or "").split()
        if words:
            drop = [word[1:] for word in words if word.startswith("-")]
            add = [word for word in words if not word.startswith("-")]
            _act(app, [RunDir(runs / row.id) for row in rows], partial(act, add=add, drop=drop))

    has = sorted({tag for row in rows for tag in row.tags})
    hint = "Words to add; -word takes one away." + (f" There: {fmt.printable(' '.join(has))}" if has else "")
    app.push_screen(Prompt(f"Tag {_names(rows)}", hint), answered)


def note(app: App[None], runs: Path, rows: Sequence[RunRow]) -> None:
    """Ask for a note; it replaces the one there is."""

    def act(run: RunDir, *, text: str) -> str:
        rundir.annotate(run, note=text)
        return f"{run.id} noted"

    def answered(text: str | None) -> None:
        if text is not None:
            _act(app, [RunDir(runs / row.id) for row in rows], partial(act, text=text))

    before = RunDir(runs / rows[0].id).info().note if len(rows) == 1 else ""
    app.push_screen(Prompt(f"Note on {_names(rows)}", "Enter keeps it, escape leaves it.", before), answered)


VERBS: Final[Mapping[str, Callable[[App[None], Path, Sequence[RunRow]], None]]] = {
    "stop": partial(act_on, verb=STOP),
    "resume": partial(act_on, verb=RESUME),
    "delete": partial(act_on, verb=DELETE),
    "tag": tag,
    "note": note,
}
"""By the word in the bindings of the list: each asks, and then does something to some runs of a folder."""
