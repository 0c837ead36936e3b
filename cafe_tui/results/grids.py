"""Runs side by side as grids of text: profiles, robust-accuracy tables, paired tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from cafe_tui import format as fmt
from cafe_tui.results.exporting import CELL_COLUMNS, Entry, Grid, Row, accuracy_entry
from cafe_tui.results.groups import Compared, Group, attacks_of, seed_groups
from cafe_tui.results.outcomes import Evaluated, Verdict, different_tests
from cafe_tui.results.settings import ASIDE, NUMBERS_DEPEND_ON, SEED, differing, value_text
from engine.contract.run.results import Paired


def profile_grid(runs: Sequence[Compared]) -> Grid:
    """The keys whose values differ, one column a run."""
    readable = [run for run in runs if not run.settings.problem]
    keys = [key for key in differing([run.settings.values for run in readable]) if key not in ASIDE]
    rows = [(Entry(key), *(_setting(run, key) for run in runs)) for key in keys]
    problems = [f"{run.name}: {run.settings.problem}" for run in runs if run.settings.problem]
    same = "All settings are the same; names and descriptions aside."
    notes = () if rows or len(readable) < 2 else (same,)
    return Grid(("key", *(run.name for run in runs)), (tuple(rows),) if rows else (), 1, tuple(problems), notes)


def _setting(run: Compared, key: str) -> Entry:
    return Entry("?" if run.settings.problem else value_text(run.settings.values.get(key)))


def table_grid(runs: Sequence[Compared]) -> Grid:
    """A row for every network of every run, then the means over seeds."""
    attacks, groups, rank = attacks_of(runs), seed_groups(runs), not _different_tasks(runs)
    rows = [
        (Entry(run.name), Entry(model), *(_cell(runs, run, model, attack, rank) for attack in attacks))
        for run in runs
        for model in run.table.models
    ]
    means = [
        (Entry(_group_label(group, runs)), Entry(model), *mean_entries(group, model, attacks))
        for group in groups
        for model in group.models()
    ]
    sections = tuple(tuple(section) for section in (rows, means) if section)
    return Grid(
        ("run", "model", *attacks), sections, 2, tuple(_table_remarks(runs, groups)), (_table_note(groups, rank),)
    )


def _different_tasks(runs: Sequence[Compared]) -> list[str]:
    """The keys that give the accuracies of these runs different meanings."""
    readable = [run.settings.values for run in runs if not run.settings.problem]
    return [key for key in differing(readable) if key.startswith(NUMBERS_DEPEND_ON)]


def _group_label(group: Group, runs: Sequence[Compared]) -> str:
    """What the mean is of: nothing need be said where it is of all runs."""
    label = f"mean of {len(group.runs)}"
    return label if len(group.runs) + len(group.left_out) == len(runs) else f"{label}: {group.name}"


def _cell(runs: Sequence[Compared], run: Compared, model: str, attack: str, rank: bool) -> Entry:
    cell = run.table.cell(model, attack)
    if cell is None:
        return Entry("·", role="dim")
    column = [cell for other in runs for (_, name), cell in other.table.cells.items() if name == attack]
    best = rank and len(column) > 1 and cell.accuracy == max(other.accuracy for other in column)
    return accuracy_entry(cell, best)


def mean_entries(group: Group, model: str, attacks: Sequence[str]) -> list[Entry]:
    """The mean under each attack, with its spread, and of how many runs where it is not of all."""
    entries = []
    for attack in attacks:
        mean = group.mean(model, attack)
        if mean is None:
            entries.append(Entry("·", role="dim"))
            continue
        spread = f" ± {mean.deviation:.1f}" if mean.deviation is not None else ""
        count = f" (n={mean.n})" if mean.n != len(group.runs) else ""
        entries.append(Entry(f"{fmt.percent(mean.mean):>5}{spread}{count}"))
    return entries


def _table_remarks(runs: Sequence[Compared], groups: Sequence[Group]) -> Iterator[str]:
    if keys := _different_tasks(runs):
        yield f"not the same task: different {', '.join(keys)}; the rows cannot be ranked as they stand"
    for attack in attacks_of(runs):
        totals = sorted({cell.total for run in runs for (_, name), cell in run.table.cells.items() if name == attack})
        if len(totals) > 1:
            yield f"{attack}: measured on {_listed(totals)} examples"
    for group in groups:
        for run in group.left_out:
            yield f"{run.name} repeats seed {run.settings.values.get(SEED)} and is not in the mean"
    yield from dict.fromkeys(text for run in runs for cell in run.table.cells.values() for text in cell.warnings)


def _table_note(groups: Sequence[Group], rank: bool) -> str:
    spread = "; mean ± sample standard deviation over seeds, of runs that differ in nothing else" if groups else ""
    return f"accuracy %, [95% Wilson interval]{', * best of the column' if rank else ''}{spread}"


def _listed(items: Sequence[object]) -> str:
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last


def cell_records(runs: Sequence[Compared]) -> list[tuple[object, ...]]:
    """A row for each cell: run, seed, then those of `CELL_COLUMNS`."""
    return [
        (run.id, run.settings.values.get(SEED), *(getattr(cell, name) for name in CELL_COLUMNS))
        for run in runs
        for cell in run.table.cells.values()
    ]


MEAN_COLUMNS: Final = ("group", "seeds", "model", "attack", "n", "mean", "deviation")


def mean_records(runs: Sequence[Compared]) -> list[tuple[object, ...]]:
    """A row for each mean, its columns those of `MEAN_COLUMNS`."""
    return [
        (
            group.name,
            " ".join(str(run.settings.values.get(SEED)) for run in group.runs),
            model,
            attack,
            mean.n,
            mean.mean,
            mean.deviation,
        )
        for group in seed_groups(runs)
        for model in group.models()
        for attack in attacks_of(group.runs)
        if (mean := group.mean(model, attack))
    ]


def paired_grid(runs: Sequence[Evaluated], verdicts: Sequence[Verdict], names: Mapping[str, str]) -> Grid:
    """A row for each verdict that could be reached; why the others could not be is among the remarks."""
    rows = tuple(_verdict_row(verdict, verdict.result, names) for verdict in verdicts if verdict.result)
    remarks = list(_paired_remarks(runs, verdicts, names))
    first = names[runs[0].id] if runs else ""
    note = (
        f"accuracy of the run minus that of {first} on the same examples, in points, [95% interval]; "
        "exact McNemar p of each row alone, not corrected for their number"
    )
    head = ("run", "model", "attack", "difference", "p", "n")
    return Grid(head, (rows,) if rows else (), 3, tuple(remarks), (note,) if rows else ())


def _verdict_row(verdict: Verdict, result: Paired, names: Mapping[str, str]) -> Row:
    clear = fmt.interval_role(result.low, result.high)
    difference = Entry(fmt.signed(result.difference), fmt.interval(result.low, result.high), role=clear)
    p = fmt.p_value(result.p).removeprefix("p ").removeprefix("= ")
    model = verdict.b if verdict.a == verdict.b else f"{verdict.b} - {verdict.a}"
    labels = (Entry(names[verdict.run_b]), Entry(model), Entry(verdict.attack))
    return (*labels, difference, Entry(p), Entry(str(result.n)))


def _paired_remarks(runs: Sequence[Evaluated], verdicts: Sequence[Verdict], names: Mapping[str, str]) -> Iterator[str]:
    """What is missing or not alike, said once for all runs of which it is true."""
    named: dict[str, list[str]] = {}
    for run in runs:
        for text in _run_remarks(run, runs[0], [verdict for verdict in verdicts if verdict.run_b == run.id], names):
            named.setdefault(text, []).append(names[run.id])
    yield from (f"{_listed(sharing)}: {text}" for text, sharing in named.items())


def _run_remarks(
    run: Evaluated, first: Evaluated, verdicts: Sequence[Verdict], names: Mapping[str, str]
) -> Iterator[str]:
    if run.settings.problem:
        yield run.settings.problem
    elif not run.files:
        yield "no per-example outcomes; an evaluate stage writes them cell by cell"
    elif run is not first and first.files and not verdicts:
        yield f"no attack in common with {names[first.id]}"
    if not verdicts:
        return
    if keys := different_tests(first.settings, run.settings, (verdict.attack for verdict in verdicts)):
        yield f"different {', '.join(keys)}: not the attack that {names[first.id]} met"
    reasons: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.problem:
            reasons.setdefault(verdict.problem, []).append(verdict.attack)
    for problem, attacks in reasons.items():
        yield f"not compared under {_listed(list(dict.fromkeys(attacks)))}: {problem}"


PAIRED_COLUMNS: Final = ("attack", "a", "b", "difference", "low", "high", "p", "n")


def paired_records(verdicts: Iterable[Verdict]) -> list[tuple[object, ...]]:
    """A row for each verdict that could be reached, its columns those of the `compare` document."""
    results = [verdict.result for verdict in verdicts if verdict.result]
    return [tuple(getattr(result, name) for name in PAIRED_COLUMNS) for result in results]
