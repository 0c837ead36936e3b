"""Runs that differ in the seed alone as one group, with means and deviations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Final

from cafe_tui import format as fmt
from cafe_tui.results.settings import ASIDE, SEED, Settings, differing, value_text
from engine.contract.run.results import Table

MOST_RUNS: Final = 20
"""Runs that are compared at once."""


@dataclass(frozen=True)
class Compared:
    """One of the compared runs; `name` is its shortest distinguishing one."""

    id: str
    name: str
    settings: Settings
    table: Table


@dataclass(frozen=True)
class Mean:
    """Mean accuracy of one network under one attack over `n` seeds, percent; `deviation` is the sample standard
    deviation in points, None for a single seed."""

    mean: float
    deviation: float | None
    n: int


@dataclass(frozen=True)
class Group:
    """Runs that repeat one experiment with different seeds; of a seed, one run with the most finished cells."""

    name: str
    runs: tuple[Compared, ...]
    left_out: tuple[Compared, ...] = ()

    def models(self) -> tuple[str, ...]:
        """The rows of their tables."""
        return tuple(dict.fromkeys(model for run in self.runs for model in run.table.models))

    def mean(self, model: str, attack: str) -> Mean | None:
        """Over the runs that have this cell; None while none has."""
        cells = [cell for run in self.runs if (cell := run.table.cell(model, attack))]
        accuracies = [cell.accuracy for cell in cells]
        if not accuracies:
            return None
        return Mean(mean(accuracies), stdev(accuracies) if len(accuracies) > 1 else None, len(accuracies))


def seed_groups(runs: Sequence[Compared]) -> list[Group]:
    """The groups of runs whose resolved profiles differ only in seed, of two seeds at least, on the same test images.

    A run that repeats a seed adds nothing to what is known of the spread, and would make it look smaller.
    """
    alike: list[list[Compared]] = []
    for run in runs:
        if run.settings.problem:
            continue
        members = next((group for group in alike if _repeats(run, group)), None)
        if members is None:
            alike.append([run])
        else:
            members.append(run)
    keys = _telling([members[0].settings.values for members in alike])
    groups: list[Group] = []
    for members in alike:
        kept = _one_a_seed(members)
        if len(kept) > 1:
            name = _group_name(kept, keys)
            if any(name == group.name for group in groups):
                name = f"{name} (other test images)"
            groups.append(Group(name, kept, tuple(run for run in members if run not in kept)))
    return groups


def _repeats(run: Compared, group: Sequence[Compared]) -> bool:
    """Whether a run repeats those of a group. Cells of earlier releases know no images and are taken as the same."""
    if group[0].settings.experiment != run.settings.experiment:
        return False
    cells = run.table.cells.items()
    pairs = [
        (cell.images, other.table.cells[key].images)
        for other in group
        for key, cell in cells
        if key in other.table.cells
    ]
    return not any(a and b and a != b for a, b in pairs)


def _one_a_seed(runs: Sequence[Compared]) -> tuple[Compared, ...]:
    """Of each seed the run with the most finished cells, the first of several."""
    fullest: dict[Any, Compared] = {}
    for run in runs:
        seed = run.settings.values.get(SEED)
        known = fullest.setdefault(seed, run)
        if len(run.table.cells) > len(known.table.cells):
            fullest[seed] = run
    return tuple(fullest.values())


def _telling(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Enough of the keys, in their order, to tell these settings apart; those that follow from others are left out."""
    telling: list[str] = []
    apart = 1
    for key in differing(settings):
        if key in (*ASIDE, SEED):
            continue
        kinds = {tuple(value_text(values.get(name)) for name in (*telling, key)) for values in settings}
        if len(kinds) > apart:
            telling.append(key)
            apart = len(kinds)
    return telling


def _group_name(runs: Sequence[Compared], keys: Sequence[str]) -> str:
    """What the names of the runs have in common, whole words of them, and the keys that tell the groups apart."""
    names = [str(run.settings.values.get("name", "")) for run in runs]
    name = names[0] if len(set(names)) == 1 else fmt.shared_beginning(names).rstrip("-") or names[0]
    values = runs[0].settings.values
    return " ".join([name, *(f"{key}={value_text(values.get(key))}" for key in keys)]).strip()


def attacks_of(runs: Iterable[Compared]) -> tuple[str, ...]:
    """The columns of all their tables."""
    return tuple(dict.fromkeys(attack for run in runs for attack in run.table.attacks))
