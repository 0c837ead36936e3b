"""Orders of a list of runs, for the commands and the UI alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cafe_tui.watch import RunRow

Key = Callable[["RunRow"], float | str | None]

ORDERS: Final[dict[str, Key]] = {
    "age": lambda row: row.created,
    "name": lambda row: row.name,
    "state": lambda row: row.state,
    "progress": lambda row: row.progress,
    "clean": lambda row: _number(row, "clean"),
    "robust": lambda row: _number(row, "robust"),
    "difference": lambda row: _number(row, "difference"),
}
"""What can be sorted by: words from A to Z, numbers from high to low (so the newest first), unknown ones last."""


def ordered(rows: Sequence[RunRow], by: str) -> list[RunRow]:
    """The rows in one of the ORDERS; those that are equal stay as they were."""
    key = ORDERS[by]

    def place(row: RunRow) -> tuple[bool, float, str]:
        value = key(row)
        if isinstance(value, str):
            return False, 0.0, value
        return (True, 0.0, "") if value is None else (False, -value, "")

    return sorted(rows, key=place)


def _number(row: RunRow, name: str) -> float | None:
    value = row.headline.get(name)
    return value if isinstance(value, int | float) else None
