"""What can be done to the runs of the list: stop, resume, delete, tag, note. Each asks first where it must.

Every dialog lists the runs that it touches with their states, so what is not on screen is never touched unseen.
"""

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


@dataclass(frozen=True)
class Choice:
    """Runs of the folder `runs` that something is to be done to; `hidden` others are marked, but not shown."""

    runs: Path
    rows: Sequence[RunRow]
    hidden: int = 0

    @property
    def left_alone(self) -> list[str]:
        """What a dialog says of the marked runs that it does not touch; nothing where there are none."""
        if not self.hidden:
            return []
        if self.hidden == 1:
            return ["1 marked run is not shown and stays as it is."]
        return [f"{self.hidden} marked runs are not shown and stay as they are."]

    def directories(self) -> list[RunDir]:
        """Those of the runs, in the order of the list."""
        return [RunDir(self.runs / row.id) for row in self.rows]


def _names(rows: Sequence[RunRow]) -> str:
    return fmt.printable(rows[0].id) if len(rows) == 1 else f"{len(rows)} runs"


def _these(rows: Sequence[RunRow]) -> str:
    return "this run" if len(rows) == 1 else f"these {len(rows)} runs"


def _listed(rows: Sequence[RunRow]) -> list[tuple[str, str]]:
    return [(row.id, row.state) for row in rows]


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


def act_on(app: App[None], choice: Choice, verb: Verb) -> None:
    """Ask about those of the runs that the verb suits, all of them listed, and then do it to them."""
    suited = [row for row in choice.rows if verb.suits(row)]
    if not suited:
        app.notify(f"{_names(choice.rows)}: {verb.none_suited}", markup=False)
        return
    others = len(choice.rows) - len(suited)
    unsuited = [f"{others} more marked, left alone: {verb.none_suited}."] if others else []
    touched = Choice(choice.runs, suited)

    def answered(yes: bool | None) -> None:
        if yes:
            _act(app, touched.directories(), verb.act)

    question = f"{verb.name} {_these(suited)}?"
    consequence = "\n".join([verb.consequence, *unsuited, *choice.left_alone])
    app.push_screen(Confirm(question, consequence, verb.name, verb.refusal, _listed(suited)), answered)


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


def tag(app: App[None], choice: Choice) -> None:
    """Ask for tags: words are added, words after a minus are taken away."""

    def act(run: RunDir, *, add: list[str], drop: list[str]) -> str:
        return f"{run.id}: {' '.join(rundir.annotate(run, add=add, drop=drop).tags) or 'no tags'}"

    def answered(text: str | None) -> None:
        words = (text or "").split()
        if words:
            drop = [word[1:] for word in words if word.startswith("-")]
            add = [word for word in words if not word.startswith("-")]
            _act(app, choice.directories(), partial(act, add=add, drop=drop))

    has = sorted({tag for row in choice.rows for tag in row.tags})
    hint = "Words to add; -word takes one away." + (f" There: {fmt.printable(' '.join(has))}" if has else "")
    hint = "\n".join([hint, *choice.left_alone])
    app.push_screen(Prompt(f"Tag {_these(choice.rows)}", hint, runs=_listed(choice.rows)), answered)


def note(app: App[None], choice: Choice) -> None:
    """Ask for a note; it replaces the one there is."""

    def act(run: RunDir, *, text: str) -> str:
        rundir.annotate(run, note=text)
        return f"{run.id} noted"

    def answered(text: str | None) -> None:
        if text is not None:
            _act(app, choice.directories(), partial(act, text=text))

    before = choice.directories()[0].info().note if len(choice.rows) == 1 else ""
    hint = "\n".join(["Enter keeps it, escape leaves it.", *choice.left_alone])
    app.push_screen(Prompt(f"Note on {_these(choice.rows)}", hint, before, _listed(choice.rows)), answered)


VERBS: Final[Mapping[str, Callable[[App[None], Choice], None]]] = {
    "stop": partial(act_on, verb=STOP),
    "resume": partial(act_on, verb=RESUME),
    "delete": partial(act_on, verb=DELETE),
    "tag": tag,
    "note": note,
}
"""By the word in the bindings of the list: each asks, and then does something to the chosen runs."""
