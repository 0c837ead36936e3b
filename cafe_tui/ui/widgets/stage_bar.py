"""The stages of a run in one line, with the running one's progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from cafe_tui import format as fmt
from cafe_tui.ui.widgets.lines import Line, Lines, Piece, width
from cafe_tui.ui.widgets.pieces import ROLE_OF_STATE
from engine.contract.run.rundir import FINAL

if TYPE_CHECKING:
    from cafe_tui.reading.run import StageView

SYMBOLS: Final = {"finished": ("✓", "good"), "running": ("▶", "accent"), "waiting": ("·", "dim")}
ARROW: Final[Piece] = (" › ", "dim")


class StageBar(Lines):
    """`✓ train 24s › ▶ game 34/100 ━━──── 34% 48s to go › · evaluate`; the stage whose curves are shown in brackets."""

    _stages: Sequence[StageView] = ()
    _shown = ""
    _run_state = "running"

    def show(self, stages: Sequence[StageView], shown: str, run_state: str) -> None:
        """Show these stages of a run in this state; `shown` is the id of the stage whose curves are on screen."""
        self._stages, self._shown, self._run_state = stages, shown, run_state
        self.show_changes()

    def compose_lines(self, cells: int) -> list[Line]:
        """One line with all that fits; details of finished stages go first, then the time to go.

        Where even the names are too many, those around the stage at work stay.
        """
        everything = range(len(self._stages))
        for detail in (3, 2, 1, 0):
            line = self._line(detail, everything)
            if width(line) <= cells:
                return [line]
        at_work = max((i for i, stage in enumerate(self._stages) if stage.state != "waiting"), default=0)
        part = range(at_work, at_work + 1)
        line = self._line(1, part)
        for wider in _growing(part, len(self._stages)):
            if width(candidate := self._line(1, wider)) > cells:
                break
            line = candidate
        return [line]

    def _line(self, detail: int, part: range) -> Line:
        pieces: list[Piece] = [ARROW, (f"{part.start} before", "dim")] if part.start else []
        for stage in self._stages[part.start : part.stop]:
            symbol, role = SYMBOLS.get(stage.state, SYMBOLS["waiting"])
            if stage.state == "running" and self._run_state in FINAL:  # where the run ended
                symbol, role = fmt.SYMBOLS[self._run_state], ROLE_OF_STATE.get(self._run_state, "")
            name = fmt.printable(stage.id)
            shown = f"[{name}]" if stage.id == self._shown else name
            pieces += [ARROW, (f"{symbol} ", role), (shown, role if stage.state == "waiting" else "strong")]
            pieces += _detail(stage, detail)
        remaining = len(self._stages) - part.stop
        pieces += [ARROW, (f"{remaining} more", "dim")] if remaining else []
        return tuple(pieces[1:])


def _growing(part: range, count: int) -> Iterator[range]:
    """Ever wider parts of so many stages, by one before and one after in turn."""
    start, stop = part.start, part.stop
    while start > 0 or stop < count:
        if start > 0:
            start -= 1
            yield range(start, stop)
        if stop < count:
            stop += 1
            yield range(start, stop)


def _detail(stage: StageView, detail: int) -> list[Piece]:
    if stage.state == "running" and stage.total_steps:
        count = f" {stage.step}/{stage.total_steps}" if detail else ""
        bar = f" {fmt.bar(stage.progress, 12 if detail > 1 else 6)}"
        to_go = f" {fmt.duration(stage.eta)} to go" if stage.eta is not None and detail > 1 else ""
        return [(count, ""), (bar, "accent"), (f" {stage.progress:.0%}", ""), (to_go, "dim")]
    if stage.state == "finished" and detail == 3 and stage.started is not None and stage.finished is not None:
        return [(f" {fmt.duration(stage.finished - stage.started)}", "dim")]
    return []
