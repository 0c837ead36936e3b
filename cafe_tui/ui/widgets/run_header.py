"""Who the run is and how it is doing; a run that went wrong says why first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cafe_tui import format as fmt
from cafe_tui.ui.widgets.lines import Line, Lines, fit_name, width, wrap
from cafe_tui.ui.widgets.pieces import state_piece

if TYPE_CHECKING:
    from cafe_tui.reading.run import RunView


class RunHeader(Lines):
    """State, id, elapsed and remaining time, then what the engine last said or else the description."""

    _view: RunView | None = None

    def show(self, view: RunView) -> None:
        """Show this run."""
        self._view = view
        self.show_changes()

    def compose_lines(self, cells: int) -> list[Line]:
        """Reason and hint of a run that failed or was lost, then one line about the run."""
        view = self._view
        if view is None:
            return [()]
        lines: list[Line] = []
        if view.status.state in ("failed", "lost"):
            reason = view.error or "no reason was recorded; see the log"
            lines += [((text, "bad"),) for text in wrap(fmt.printable(reason), cells)[:4]]
            lines += [((text, "warn"),) for text in wrap(fmt.printable(view.hint), cells)[:2] if text]
        return [*lines, _line(view, cells)]


def _line(view: RunView, cells: int) -> Line:
    """State, id and times; the id comes last where not all of it fits, for a number that is cut reads as another."""
    elapsed = fmt.duration(view.elapsed)
    to_go = "" if view.eta is None else f", about {fmt.duration(view.eta)} to go"
    times = f"took {elapsed}" if view.status.final else f"{elapsed} so far{to_go}"
    state, run, gap = state_piece(view.status.state), fmt.printable(view.id), ("  ", "")
    head: Line = (state, gap, (run, "strong"), gap, (times, ""))
    if width(head) > cells:
        return (state, gap, (times, ""), gap, (fit_name(run, cells - width((state, gap, (times, ""), gap))), "strong"))
    tags = " ".join(f"#{tag}" for tag in view.info.tags)
    doing = view.messages[-1] if view.messages and not view.status.final else view.info.description
    extra = fmt.printable("  ".join(text for text in (tags, doing) if text))
    return (*head, (f"  {extra}", "dim")) if extra and width(head) < cells else head
