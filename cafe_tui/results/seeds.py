"""What inoculation changes, over runs that differ in the seed alone: means, spread, and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cafe_tui import format as fmt
from cafe_tui.reading.run import whole_view
from cafe_tui.results.exporting import Entry, Grid, Row
from cafe_tui.results.grids import mean_entries
from cafe_tui.results.groups import Compared, Group, attacks_of, seed_groups
from cafe_tui.results.names import short_names
from cafe_tui.results.outcomes import Evaluated, OutcomeFiles, evaluated, judge
from cafe_tui.results.settings import SEED, Settings, read_settings
from engine.contract.run.results import OverSeeds, Paired, Table, over_seeds
from engine.contract.run.rundir import RunDir


@dataclass(frozen=True)
class Pair:
    """An inoculated network and what it is measured against: `alike` if that was trained on for as long without."""

    plain: str
    inoculated: str
    alike: bool


@dataclass(frozen=True)
class Effect:
    """Inoculation under one attack: on the same examples in every run, by seed, and over the seeds.

    `plain` and `inoculated` are the mean accuracies in percent over the runs that were compared.
    """

    pair: Pair
    attack: str
    plain: float
    inoculated: float
    by_seed: Mapping[int, Paired]
    over_seeds: OverSeeds


@dataclass(frozen=True)
class Repeated:
    """Runs that repeat an experiment, and what inoculation did in them. `problems` are outcomes that cannot be read."""

    group: Group
    seeds: tuple[int, ...]
    effects: tuple[Effect, ...]
    problems: tuple[str, ...] = ()


def repeated(runs: Sequence[RunDir]) -> list[Repeated]:
    """The groups of runs that differ in the seed alone, of two seeds at least."""
    names, by_id = short_names([run.id for run in runs]), {run.id: run for run in runs}
    compared = [Compared(run.id, names[run.id], read_settings(run), whole_view(run).table) for run in runs]
    return [_measured(group, by_id) for group in seed_groups(compared)]


def _measured(group: Group, runs: Mapping[str, RunDir]) -> Repeated:
    """The effect of inoculation in a group, for each pair of networks and attack that was measured in any run."""
    by_seed = {int(run.settings.values[SEED]): run for run in group.runs}
    by_seed = {seed: by_seed[seed] for seed in sorted(by_seed)}
    ordered = list(by_seed.values())
    sides = {seed: evaluated(runs[run.id], run.settings) for seed, run in by_seed.items()}
    files, effects, problems = OutcomeFiles(), [], list[str]()
    for pair in pairs(ordered[0].settings, group.models()):
        for attack in attacks_of(ordered):
            results: dict[int, Paired] = {}
            for seed, run in by_seed.items():
                if not _both_tested(run, sides[seed], pair, attack):
                    continue
                verdict = judge(sides[seed], sides[seed], (pair.plain, pair.inoculated), attack, files)
                if verdict.result:
                    results[seed] = verdict.result
                else:
                    problems.append(f"{run.name}, {attack}: {verdict.problem}")
            if results:
                effects.append(_effect(pair, attack, results, [by_seed[seed].table for seed in results]))
    return Repeated(group, tuple(by_seed), tuple(effects), tuple(dict.fromkeys(problems)))


def _both_tested(run: Compared, side: Evaluated, pair: Pair, attack: str) -> bool:
    """Whether the table of a run has both networks under an attack, and its folder the outcomes of both."""
    cells = {(pair.plain, attack), (pair.inoculated, attack)}
    return cells <= run.table.cells.keys() and cells <= side.files.keys()


def _effect(pair: Pair, attack: str, results: Mapping[int, Paired], tables: Sequence[Table]) -> Effect:
    """What the seeds say together: `results` by seed, and the tables of the same runs in the same order."""

    def mean(model: str) -> float:
        return sum(table.cells[model, attack].accuracy for table in tables) / len(tables)

    total = over_seeds([result.difference for result in results.values()])
    return Effect(pair, attack, mean(pair.plain), mean(pair.inoculated), results, total)


def pairs(settings: Settings, models: Sequence[str]) -> list[Pair]:
    """Every inoculated network of a table, with the one that was trained alike without, or else its start."""
    result = []
    for model in models:
        stage = _stage(settings, model)
        if stage.get("kind") != "inoculate":
            continue
        twins = [other for other in models if _alike(_stage(settings, other), stage)]
        if twins or stage.get("start") in models:
            result.append(Pair(twins[0] if twins else stage["start"], model, bool(twins)))
    return result


def _stage(settings: Settings, name: str) -> dict[str, Any]:
    prefix = f"stage.{name}."
    return {key.removeprefix(prefix): value for key, value in settings.values.items() if key.startswith(prefix)}


def _alike(plain: Mapping[str, Any], inoculated: Mapping[str, Any]) -> bool:
    """Whether `plain` is training that differs from this inoculation in the inoculation alone."""
    shared = {key: value for key, value in plain.items() if key != "kind"}
    return plain.get("kind") == "train" and shared == {key: inoculated.get(key) for key in shared} and "start" in plain


# --- tables ----------------------------------------------------------------------------------------------------------


def mean_grid(experiment: Repeated) -> Grid:
    """A row for each network, a column for each attack: mean and standard deviation over the seeds."""
    group, attacks = experiment.group, attacks_of(experiment.group.runs)
    rows = tuple((Entry(model), *mean_entries(group, model, attacks)) for model in group.models())
    note = f"accuracy %, mean ± sample standard deviation over seeds {_seeds(experiment)}"
    return Grid(("network", *attacks), (rows,), 1, (), (note,))


def effect_grid(experiment: Repeated) -> Grid:
    """A row for each pair and attack: both means, their difference over the seeds, and what every seed says."""
    sections: dict[Pair, list[Row]] = {}
    for effect in experiment.effects:
        sections.setdefault(effect.pair, []).append(_effect_row(effect, experiment.seeds))
    by_seed = (f"seed {seed}" for seed in experiment.seeds)
    head = ("network", "against", "attack", "without", "with", "difference", "p", *by_seed)
    note = (
        f"accuracy % without and with inoculation, means over seeds {_seeds(experiment)}; difference in points with "
        "the 95% interval and p of the paired t test over the seeds; for each seed the difference on the same examples "
        "and its exact McNemar p; no p is corrected for the number of rows"
    )
    return Grid(head, tuple(tuple(rows) for rows in sections.values()), 3, experiment.problems, (note,))


def _effect_row(effect: Effect, seeds: Sequence[int]) -> Row:
    over = effect.over_seeds
    interval = fmt.interval(over.low, over.high) if over.low is not None and over.high is not None else ""
    each = [_seed_entry(effect.by_seed.get(seed)) for seed in seeds]
    return (
        Entry(effect.pair.inoculated),
        Entry(effect.pair.plain),
        Entry(effect.attack),
        Entry(fmt.percent(effect.plain)),
        Entry(fmt.percent(effect.inoculated)),
        Entry(fmt.signed(over.mean), interval),
        Entry("-" if over.p is None else _p(over.p)),
        *each,
    )


def _seed_entry(result: Paired | None) -> Entry:
    return Entry(fmt.signed(result.difference), f"({_p(result.p)})") if result else Entry("·", role="dim")


def _p(p: float) -> str:
    return fmt.p_value(p).removeprefix("p ").removeprefix("= ")


def _seeds(experiment: Repeated) -> str:
    return ", ".join(map(str, experiment.seeds))


def document(experiments: Sequence[Repeated]) -> dict[str, object]:
    """The JSON document of `cafe table --seeds`."""
    import msgspec

    return {
        "groups": [
            {
                "group": one.group.name,
                "runs": {str(run.settings.values[SEED]): run.id for run in one.group.runs},
                "means": [
                    {"model": model, "attack": attack, "mean": mean.mean, "deviation": mean.deviation, "n": mean.n}
                    for model in one.group.models()
                    for attack in attacks_of(one.group.runs)
                    if (mean := one.group.mean(model, attack))
                ],
                "effects": [
                    {
                        "network": effect.pair.inoculated,
                        "against": effect.pair.plain,
                        "same_training": effect.pair.alike,
                        "attack": effect.attack,
                        **msgspec.to_builtins(effect.over_seeds),
                        "by_seed": {str(seed): msgspec.to_builtins(row) for seed, row in effect.by_seed.items()},
                    }
                    for effect in one.effects
                ],
            }
            for one in experiments
        ]
    }
