"""What happened, as messages from the reader threads and the panes to the screens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from cafe_tui.profiles.parent import Resolved
    from cafe_tui.reading.run import RunView
    from cafe_tui.reading.runs import RunRow


class Newest(Message, bubble=False):
    """A message of which only the newest is worth drawing: an older one gives way to the next of its kind."""

    def can_replace(self, message: Message) -> bool:
        """Whether `message`, another one that waits, makes this one superfluous."""
        return isinstance(message, type(self))


@dataclass
class RunsChanged(Newest, bubble=False):
    """The runs folder was read and differs from last time; `problem` says why it cannot be read.

    `remark` is about entries of it that cannot be read.

    Not `complete` are the newest runs of a folder of which the rest is still being read.
    """

    rows: Sequence[RunRow]
    problem: str = ""
    complete: bool = True
    remark: str = ""


@dataclass
class RunChanged(Newest, bubble=False):
    """The run directory was read and there is news; not `complete` while older records are still being read."""

    view: RunView
    complete: bool = True


@dataclass
class LogGrew(Message, bubble=False):
    """The engine's log has new complete lines. Never replaced: each brings other lines."""

    lines: Sequence[str]


@dataclass
class ProfileResolved(Message, bubble=False):
    """The run's profile was read, with what differs from its parent."""

    profile: Resolved


@dataclass
class RunOpened(Message):
    """A run of the list was chosen, by key or click."""

    run_id: str
