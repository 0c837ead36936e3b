"""Robust-accuracy numbers as every view shows them: intervals, tables, paired differences. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import atan, cos, pi, sin, sqrt
from typing import Any

import msgspec

from engine.contract.run.records import Cell

Z95 = 1.959963984540054
"""The 97.5% point of the standard normal distribution."""


def wilson(correct: int, total: int) -> tuple[float, float]:
    """95% Wilson score interval of a proportion, in percent (0-100).

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    Raises ValueError unless 0 <= correct <= total and total > 0.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"need 0 <= correct <= total and total > 0, got {correct} of {total}")
    p, z2 = correct / total, Z95 * Z95
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * sqrt(p * (1 - p) / total + z2 / (4 * total * total))
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == total else centre + half
    return 100 * low, 100 * high


def make_cell(model: str, attack: str, correct: int, total: int, **facts: Any) -> Cell:
    """A finished cell of the table, with accuracy and interval in percent; `facts` are its further fields."""
    low, high = wilson(correct, total)
    accuracy = 100 * correct / total
    return Cell(
        model=model, attack=attack, correct=correct, total=total, accuracy=accuracy, low=low, high=high, **facts
    )


class Paired(msgspec.Struct, frozen=True):
    """Two models on the same examples: difference of accuracies b - a in points, 95% interval, exact McNemar p."""

    attack: str
    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    n: int


def paired(attack: str, a: str, b: str, *, only_a: int, only_b: int, n: int) -> Paired:
    """Compare `a` and `b` on the same `n` examples, of which `only_a` (`only_b`) only `a` (`b`) classifies right.

    The interval is that of Agresti and Min (2005), the Wald interval after adding one half to each of the four
    cells; the p-value is the exact two-sided binomial McNemar test.
    """
    if only_a < 0 or only_b < 0 or only_a + only_b > n or n == 0:
        raise ValueError(f"discordant counts {only_a} and {only_b} do not fit {n} examples")
    only_a_smoothed, only_b_smoothed, n_smoothed = only_a + 0.5, only_b + 0.5, n + 2
    shift = (only_b_smoothed - only_a_smoothed) / n_smoothed
    spread = (only_a_smoothed + only_b_smoothed) / n_smoothed - shift * shift
    half = Z95 * sqrt(spread / n_smoothed)
    return Paired(
        attack=attack,
        a=a,
        b=b,
        difference=100 * (only_b - only_a) / n,
        low=100 * max(shift - half, -1.0),
        high=100 * min(shift + half, 1.0),
        p=mcnemar_exact(only_a, only_b),
        n=n,
    )


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact McNemar p-value: the discordant pairs are fair coin flips under the null hypothesis."""
    flips, fewer = only_a + only_b, min(only_a, only_b)
    term = tail = 1  # the binomial coefficients in turn: `comb` anew for each would take minutes for ImageNet
    for k in range(fewer):
        term = term * (flips - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << flips))


class OverSeeds(msgspec.Struct, frozen=True):
    """Differences b - a of two networks, one for each seed, in points: mean, sample standard deviation, 95% interval
    and p-value of the paired t test with n - 1 degrees of freedom.

    The seeds are taken as a sample of all seeds and the differences as normal, which a handful cannot show. None
    stands for what they do not tell: the deviation of a single one, a test of differences that are all the same.
    """

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int


def over_seeds(differences: Sequence[float]) -> OverSeeds:
    """Student's paired t test of differences between runs with different seeds. Raises ValueError for none."""
    from statistics import mean, stdev  # a millisecond that a list of runs need not pay

    n = len(differences)
    if n == 0:
        raise ValueError("no differences")
    centre, deviation = mean(differences), stdev(differences) if n > 1 else None
    if not deviation:
        return OverSeeds(centre, deviation, None, None, None, n)
    error = deviation / sqrt(n)
    half = t_quantile(n - 1) * error
    return OverSeeds(centre, deviation, centre - half, centre + half, t_two_sided(centre / error, n - 1), n)


def t_two_sided(t: float, freedom: int) -> float:
    """Probability that Student's t with so many degrees of freedom (>= 1) is at least as far from 0 as `t`.

    The finite sums for whole degrees of freedom: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3-4.
    """
    angle = atan(abs(t) / sqrt(freedom))
    odd = freedom % 2
    total, term = 0.0, cos(angle) if odd else 1.0
    for k in range(odd + 2, freedom + 1, 2):
        total += term
        term *= cos(angle) ** 2 * (k - 1) / k
    within = 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
    return min(max(1.0 - within, 0.0), 1.0)


def t_quantile(freedom: int) -> float:
    """The 97.5% point of Student's t, found by bisection: 12.7 for one degree of freedom, towards 1.96 for many."""
    low, high = 0.0, 13.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, freedom) > 0.05 else (low, middle)
    return high


@dataclass(frozen=True)
class Table:
    """Models as rows, attacks as columns, in the order in which they first appeared."""

    models: tuple[str, ...]
    attacks: tuple[str, ...]
    cells: dict[tuple[str, str], Cell]

    def cell(self, model: str, attack: str) -> Cell | None:
        """The finished cell, or None while it is still to come."""
        return self.cells.get((model, attack))

    def difference(self, model: str, attack: str) -> float | None:
        """Accuracy of `model` minus that of the first row, in points; None until both are there."""
        mine, base = self.cell(model, attack), self.cell(self.models[0], attack) if self.models else None
        return mine.accuracy - base.accuracy if mine and base and mine is not base else None


def table(cells: Iterable[Cell], models: Sequence[str] = (), attacks: Sequence[str] = ()) -> Table:
    """Arrange cells; `models` and `attacks` give the rows and columns that are still to be filled.

    A cell measured again (after a resume) replaces the earlier one.
    """
    found = {(cell.model, cell.attack): cell for cell in cells}
    rows = dict.fromkeys([*models, *(model for model, _ in found)])
    columns = dict.fromkeys([*attacks, *(attack for _, attack in found)])
    return Table(tuple(rows), tuple(columns), found)


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """results.json: every cell, the paired differences to the first model, and the headline numbers."""

    v: int = 1
    cells: list[Cell] = []
    differences: list[Paired] = []
    headline: dict[str, float | str | None] = {}


def headline(cells: Sequence[Cell], scalars: dict[str, float] | None = None) -> dict[str, float | str | None]:
    """The few numbers that a list of runs shows.

    `clean` and `robust` (the strongest attack) of the last model in the table, `base_robust` of the first one
    under the same attack, their `difference`, and the final accuracies of the game from `scalars`.
    """
    head: dict[str, float | str | None] = {}
    shown = table(cells)
    if shown.models:
        base, model = shown.models[0], shown.models[-1]
        head["model"] = model
        clean = shown.cell(model, "clean")
        head["clean"] = clean.accuracy if clean else None
        attacked = [c for (m, a), c in shown.cells.items() if m == model and a != "clean"]
        if attacked:
            worst = min(attacked, key=lambda cell: cell.accuracy)
            head["attack"], head["robust"] = worst.attack, worst.accuracy
            head["robust_low"], head["robust_high"] = worst.low, worst.high
            reference = shown.cell(base, worst.attack)
            if reference and model != base:
                head["base"], head["base_robust"] = base, reference.accuracy
                head["difference"] = worst.accuracy - reference.accuracy
    for name in ("accuracy_adv", "accuracy_cf", "accuracy_cc", "accuracy_ac"):
        if scalars and name in scalars:
            head[name] = scalars[name]
    return head


def document(cells: Sequence[Cell]) -> dict[str, Any]:
    """The JSON document of `cafe table` and of the end of `cafe run --json`."""
    return {"cells": [msgspec.to_builtins(cell) for cell in cells]}
