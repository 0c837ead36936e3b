"""How the user left the screens, kept from one start of the UI to the next."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from engine.contract.errors import DiskError
from engine.contract.run.rundir import write_atomically


class Preferences(msgspec.Struct, kw_only=True):
    """Theme, order and grouping of the list, pane of a run, axes and smoothing of the curves."""

    theme: str = ""
    order: str = "age"
    backwards: bool = False
    grouped: bool = False
    folded: list[str] = []
    pane: str = "curves"
    log_axis: bool = False
    smoothing: int = 0
    time_axis: bool = False


def default_file() -> Path:
    """The file of the preferences: $XDG_STATE_HOME/cafe/ui.json, by default under ~/.local/state."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "cafe" / "ui.json"


def load(path: Path) -> Preferences:
    """What was saved; a missing, foreign or damaged file leaves the defaults."""
    with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(path.read_bytes(), type=Preferences)
    return Preferences()


def save(path: Path, preferences: Preferences) -> None:
    """Write it for the next time; where that is not possible, it is not remembered."""
    with suppress(OSError, DiskError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.encode(preferences))
