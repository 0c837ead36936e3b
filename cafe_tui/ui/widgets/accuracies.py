"""Adv, CF, CC, AC: the four accuracies that say whether the game found causal features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cafe_tui import format as fmt
from cafe_tui.ui.widgets.lines import Line, Lines, fit, width


@dataclass(frozen=True)
class Reading:
    """One of the four: its name, what it classifies, and how it compares in a good run."""

    name: str
    formula: str
    expected: str


READINGS: Final = (
    Reading("Adv", "head(F_adv)", "the base"),
    Reading("CF", "head(F_nat + g(Z))", "far below Adv"),
    Reading("CC", "head(F_nat + h(g(Z)))", "near AC"),
    Reading("AC", "head(F_nat + h(Z))", "far above Adv"),
)
EXPECTED_CELLS: Final = max(len(reading.expected) for reading in READINGS)


class Accuracies(Lines):
    """One line for each of the four: percent, bar, what a good run shows, and the meaning."""

    _values: Mapping[str, float] = {}

    def show(self, values: Mapping[str, float]) -> None:
        """Show these percentages (0-100) by name; missing ones are still to come."""
        self._values = values
        self.show_changes()

    def compose_lines(self, cells: int) -> list[Line]:
        """Four lines; bars take from 8 to 40 cells, meanings what is left."""
        bar = min(max(cells - 100, 8), 40)
        return [self._line(reading, bar, cells) for reading in READINGS]

    def _line(self, reading: Reading, bar: int, cells: int) -> Line:
        value = self._values.get(reading.name)
        pieces: Line = (
            (f"{reading.name:<4}", "strong"),
            (f"{fmt.percent(value):>5}  ", ""),
            (fmt.bar((value or 0.0) / 100, bar), "accent" if reading.name == "AC" else ""),
            (f"  {reading.expected:<{EXPECTED_CELLS}}  ", ""),
        )
        left = cells - width(pieces)
        meaning = fmt.MEANINGS[reading.name]
        return (*pieces, (meaning if len(meaning) <= left else fit(meaning, left), "dim"))
