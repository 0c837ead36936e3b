"""Values that more than one pane shows, as pieces of a line."""

from __future__ import annotations

from typing import Final

from cafe_tui import format as fmt
from cafe_tui.ui.widgets.lines import Piece

ROLE_OF_STATE: Final = {
    "running": "accent",
    "finished": "good",
    "failed": "bad",
    "lost": "bad",
    "stopping": "warn",
    "stopped": "warn",
}


def state_piece(state: str) -> Piece:
    """Symbol and word of a state, so that colour is never needed to tell."""
    return f"{fmt.SYMBOLS.get(state, '?')} {state}", ROLE_OF_STATE.get(state, "dim")


def difference_piece(points: float | None, interval: tuple[float, float] | None) -> Piece:
    """A difference of accuracies in points, signed; dim where no interval is known."""
    if points is None:
        return "", ""
    return fmt.signed(points), "dim" if interval is None else fmt.interval_role(*interval)
