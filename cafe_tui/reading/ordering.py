"""Orders of a list of runs, for the commands and the UI alike."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from engine.contract.run.rundir import FINAL

if TYPE_CHECKING:
    from cafe_tui.reading.runs import RunRow

Key = Callable[["RunRow"], float | str | None]

ORDERS: Final[dict[str, Key]] = {
    "age": lambda row: row.created,
    "name": lambda row: row.name,
    "profile": lambda row: row.profile,
    "state": lambda row: row.state,
    "stage": lambda row: row.stage,
    "eta": lambda row: row.eta,
    "progress": lambda row: row.progress,
    "clean": lambda row: _number(row, "clean"),
    "robust": lambda row: _number(row, "robust"),
    "difference": lambda row: _number(row, "difference"),
}
"""What can be sorted by: words from A to Z, numbers from high to low (so the newest first), unknown ones last."""


def ordered(rows: Sequence[RunRow], by: str, *, backwards: bool = False) -> list[RunRow]:
    """The rows in one of the ORDERS, or `backwards`; those that are equal stay as they were, unknown ones last."""
    key = ORDERS[by]
    valued = [(key(row), row) for row in rows]
    known = [(value, row) for value, row in valued if value is not None]
    # A value is a word in all rows or a number in all rows; numbers go from high to low. Equal ones stay as they were.
    known.sort(key=itemgetter(0), reverse=bool(known) and not isinstance(known[0][0], str))
    placed = [row for _, row in known]
    return [*(reversed(placed) if backwards else placed), *(row for value, row in valued if value is None)]


@dataclass(frozen=True)
class Group:
    """The heading of the runs of one profile: how many there are, how many go on, the best robust accuracy in percent.

    `folded` leaves its runs out of the list.
    """

    profile: str
    runs: int
    going: int
    best: float | None
    folded: bool = False

    @property
    def id(self) -> str:
        """Tells it from every run: no run id has a colon in front."""
        return f":{self.profile}"


def grouped(rows: Sequence[RunRow], folded: Container[str]) -> list[RunRow | Group]:
    """The rows under headings by profile, in the order in which these first appear; those of `folded` ones hidden."""
    by_profile: dict[str, list[RunRow]] = {}
    for row in rows:
        by_profile.setdefault(row.profile, []).append(row)
    listed: list[RunRow | Group] = []
    for profile, runs in by_profile.items():
        going = sum(row.state not in FINAL for row in runs)
        best = max((value for row in runs if (value := _number(row, "robust")) is not None), default=None)
        listed.append(Group(profile, len(runs), going, best, profile in folded))
        listed += [] if profile in folded else runs
    return listed


def _number(row: RunRow, name: str) -> float | None:
    value = row.headline.get(name)
    return value if isinstance(value, int | float) else None
