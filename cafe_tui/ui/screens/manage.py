"""What can be done to the runs of the list: stop, resume, delete, tag, note. Each asks first where it must."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from textual.app import App

from cafe_tui import format as fmt
from cafe_tui.ui.widgets.confirm import Confirm
from cafe_tui.ui.widgets.prompt import Prompt
from engine.contract.errors import CafeError
from engine.contract.run import rundir
from engine.contract.run.rundir import FINAL, RunDir

if TYPE_CHECKING:
    from cafe_tui.reading.runs import RunRow


def _names(rows: Sequence[RunRow]) -> str:
    return fmt.printable(rows[0].id) if len(rows) == 1 else f"{len(rows)} runs"


def _act(app: App[None], runs: Sequence[RunDir], act: Callable[[RunDir], str]) -> None:
    """Do something to each run off the UI thread, and say how it went; a failure does not keep the others from it."""

    def work() -> None:
        for run in runs:
            try:
                said, severity = act(run), "information"
            except CafeError as error:
                said, severity = str(error), "error"
            app.call_from_thread(app.notify, fmt.printable(said), severity=severity, markup=False)

    app.run_worker(work, thread=True, group="manage")


def _ask(app: App[None], runs: Sequence[RunDir], confirm: Confirm, act: Callable[[RunDir], str]) -> None:
    def answered(yes: bool | None) -> None:
        if yes:
            _act(app, runs, act)

    app.push_screen(confirm, answered)


def stop(app: App[None], rows: Sequence[RunRow], directory: Callable[[RunRow], RunDir]) -> None:
    """Ask, then ask the engines."""
    going = [row for row in rows if row.state not in FINAL]
    if not going:
        app.notify(f"{_names(rows)}: not running", markup=False)
        return
    confirm = Confirm(
        f"Stop {_names(going)}?", "The current step is finished and a checkpoint written.", "Stop", "Keep running"
    )

    def act(run: RunDir) -> str:
        run.request_stop()
        return f"asked {run.id} to stop"

    _ask(app, [directory(row) for row in going], confirm, act)


def resume(app: App[None], rows: Sequence[RunRow], directory: Callable[[RunRow], RunDir]) -> None:
    """Ask, then start engines for the runs that can go on."""
    able = [row for row in rows if row.state in FINAL and row.state != "finished"]
    if not able:
        app.notify(f"{_names(rows)}: nothing to resume", markup=False)
        return
    confirm = Confirm(f"Resume {_names(able)}?", "It goes on from its last checkpoint.", "Resume", "Leave it")

    def act(run: RunDir) -> str:
        from cafe_tui.launch import local

        local.resume(run)
        return f"{run.id} goes on"

    _ask(app, [directory(row) for row in able], confirm, act)


def delete(app: App[None], rows: Sequence[RunRow], directory: Callable[[RunRow], RunDir]) -> None:
    """Ask, then delete the runs that have ended."""
    ended = [row for row in rows if row.state in FINAL]
    if not ended:
        app.notify(f"{_names(rows)}: still running; stop it first", markup=False)
        return
    confirm = Confirm(
        f"Delete {_names(ended)}?", "All its files are deleted for good, checkpoints too.", "Delete", "Keep"
    )

    def act(run: RunDir) -> str:
        rundir.remove(run)
        return f"{run.id} deleted"

    _ask(app, [directory(row) for row in ended], confirm, act)


def tag(app: App[None], rows: Sequence[RunRow], directory: Callable[[RunRow], RunDir]) -> None:
    """Ask for tags: words are added, words after a minus are taken away."""

    def act(run: RunDir, *, add: list[str], drop: list[str]) -> str:
        return f"{run.id}: {' '.join(rundir.annotate(run, add=add, drop=drop).tags) or 'no tags'}"

    def answered(text: str | None) -> None:
        words = (text or "").split()
        if words:
            drop = [word[1:] for word in words if word.startswith("-")]
            add = [word for word in words if not word.startswith("-")]
            _act(app, [directory(row) for row in rows], partial(act, add=add, drop=drop))

    has = sorted({tag for row in rows for tag in row.tags})
    hint = "Words to add; -word takes one away." + (f" There: {fmt.printable(' '.join(has))}" if has else "")
    app.push_screen(Prompt(f"Tag {_names(rows)}", hint), answered)


def note(app: App[None], rows: Sequence[RunRow], directory: Callable[[RunRow], RunDir]) -> None:
    """Ask for a note; it replaces the one there is."""

    def act(run: RunDir, *, text: str) -> str:
        rundir.annotate(run, note=text)
        return f"{run.id} noted"

    def answered(text: str | None) -> None:
        if text is not None:
            _act(app, [directory(row) for row in rows], partial(act, text=text))

    before = directory(rows[0]).info().note if len(rows) == 1 else ""
    app.push_screen(Prompt(f"Note on {_names(rows)}", "Enter keeps it, escape leaves it.", before), answered)
