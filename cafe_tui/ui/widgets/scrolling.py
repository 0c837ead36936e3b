"""The keys that scroll a pane: arrows and those of vi. Sideways keys are left to the screen."""

from __future__ import annotations

from typing import ClassVar, Final

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll

SCROLL_KEYS: Final[list[BindingType]] = [
    Binding("up,k", "scroll_up", "Scroll up", show=False),
    Binding("down,j", "scroll_down", "Scroll down", show=False),
    Binding("pageup,ctrl+b", "page_up", "Page up", show=False),
    Binding("pagedown,ctrl+f", "page_down", "Page down", show=False),
    Binding("home,g", "scroll_home", "To the top", show=False),
    Binding("end,G", "scroll_end", "To the end", show=False),
]


class ScrollPane(VerticalScroll, can_focus=True, inherit_bindings=False):
    """A pane that scrolls what is in it."""

    BINDINGS: ClassVar[list[BindingType]] = SCROLL_KEYS
