"""The printing end of the UI: no line that Textual draws has a character that a terminal would obey."""

from __future__ import annotations

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from cafe_tui.terminal.protocols import FIRST, LAST


class Clean(LineFilter):
    """Takes out control characters and all else that takes no cell; what takes cells and shows nothing is replaced.

    So no line changes its length. Characters that stand for pictures pass.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The segments of a line, cleaned."""
        if all(segment.text.isprintable() for segment in segments):
            return segments
        return [Segment(_cleaned(text), style, control) for text, style, control in segments]


def _cleaned(text: str) -> str:
    return "".join(c if c.isprintable() or FIRST <= c <= LAST else "�" * cell_len(c) for c in text)
