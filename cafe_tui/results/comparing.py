"""What a comparison of runs consists of: their tables and means over seeds, differing settings, paired outcomes.

No Textual in it, and numpy only once there are outcomes to read.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, Final

from cafe_tui import format as fmt
from cafe_tui.results.exporting import CELL_COLUMNS, Entry, Grid, Row, accuracy_entry
from engine.contract.errors import CafeError
from engine.contract.run.results import Paired, Table, paired
from engine.contract.run.rundir import RunDir

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_RUNS: Final = 20
"""Runs that are compared at once."""
MOST_BYTES: Final = 64 << 20
"""Of an array of outcomes; those of a million examples have eight."""
ASIDE: Final = ("name", "description")
"""Keys of a profile that change no result."""
SEED: Final = "seed"
NUMBERS_DEPEND_ON: Final = ("data.", "threat.")
"""Keys of a profile that say what an accuracy is measured on."""

_ID = re.compile(r"\d{8}-\d{6}-(?P<name>.+)-(?P<end>[0-9a-z]{4})")


def short_names(ids: Sequence[str]) -> dict[str, str]:
    """For each run id the shortest of profile name, last four characters, both, and all of it that tells it apart."""
    found = {run_id: _ID.fullmatch(run_id) for run_id in ids}
    choices = [
        {run_id: match["name"] if match else run_id for run_id, match in found.items()},
        {run_id: match["end"] if match else run_id for run_id, match in found.items()},
        {run_id: f"{match['name']}-{match['end']}" if match else run_id for run_id, match in found.items()},
    ]
    one_name = len(set(choices[0].values())) == 1 < len(choices[0])
    for names in choices if one_name else (choices[0], choices[2]):
        if len(set(names.values())) == len(names):
            return names
    return {run_id: run_id for run_id in ids}


# --- settings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """The resolved profile of a run by key path, its stages by their ids; `problem` says why it cannot be read.

    `tables` are stage, models and attacks of its tables, in order.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    tables: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = ()
    problem: str = ""

    @property
    def experiment(self) -> dict[str, Any]:
        """What runs must agree in to be repetitions of each other: everything but the seed, name and description."""
        return {key: value for key, value in self.values.items() if key not in (*ASIDE, SEED)}


def read_settings(run: RunDir) -> Settings:
    """The settings of a run, with the defaults of keys that its profile lacks."""
    from engine.contract.plan import columns
    from engine.contract.profile import files as profiles
    from engine.contract.profile.schema import Evaluate

    try:
        profile = profiles.from_tables(profiles.read_toml(run.profile_file), "profile.toml")
    except CafeError as error:
        return Settings(problem=" ".join(error.message.split()))
    tables = profiles.to_tables(profile)
    stages = {stage["id"]: stage for stage in tables["stage"]}
    values = {"stages": list(stages), **dict(profiles.leaves({**tables, "stage": stages}))}
    values = {key: value for key, value in values.items() if not re.fullmatch(r"stage\.[^.]+\.id", key)}
    evaluations = [stage for stage in profile.stage if isinstance(stage, Evaluate)]
    return Settings(
        values,
        tuple(
            (str(stage.id), tuple(stage.models or ()), tuple(column.name for column in columns(profile, stage)))
            for stage in evaluations
        ),
    )


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that do not have the same value everywhere, in the order of the profiles."""
    keys = dict.fromkeys(key for values in settings for key in values)  # none where there are no settings
    return [key for key in keys if any(values.get(key) != settings[0].get(key) for values in settings)]


def value_text(value: Any) -> str:
    """A value of a profile in short, a dash where there is none."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    return ", ".join(map(value_text, value)) if isinstance(value, list | tuple) else str(value)


@dataclass(frozen=True)
class Compared:
    """One of the compared runs; `name` is its shortest distinguishing one."""

    id: str
    name: str
    settings: Settings
    table: Table


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


# --- tables and means over seeds -------------------------------------------------------------------------------------


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
        found = [cell.accuracy for cell in cells]
        return Mean(mean(found), stdev(found) if len(found) > 1 else None, len(found)) if found else None


def seed_groups(runs: Sequence[Compared]) -> list[Group]:
    """The groups of runs whose resolved profiles differ only in seed, of two seeds at least.

    A run that repeats a seed adds nothing to what is known of the spread, and would make it look smaller.
    """
    alike: list[list[Compared]] = []
    for run in runs:
        if run.settings.problem:
            continue
        members = next((group for group in alike if group[0].settings.experiment == run.settings.experiment), None)
        if members is None:
            alike.append([run])
        else:
            members.append(run)
    keys = _telling([members[0].settings.values for members in alike])
    groups = []
    for members in alike:
        fullest: dict[Any, Compared] = {}
        for run in members:
            known = fullest.setdefault(run.settings.values.get(SEED), run)
            if len(run.table.cells) > len(known.table.cells):
                fullest[run.settings.values.get(SEED)] = run
        kept = tuple(fullest.values())
        if len(kept) > 1:
            groups.append(Group(_group_name(kept, keys), kept, tuple(run for run in members if run not in kept)))
    return groups


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
        found = group.mean(model, attack)
        if found is None:
            entries.append(Entry("·", role="dim"))
            continue
        spread = f" ± {found.deviation:.1f}" if found.deviation is not None else ""
        count = f" (n={found.n})" if found.n != len(group.runs) else ""
        entries.append(Entry(f"{fmt.percent(found.mean):>5}{spread}{count}"))
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
            found.n,
            found.mean,
            found.deviation,
        )
        for group in seed_groups(runs)
        for model in group.models()
        for attack in attacks_of(group.runs)
        if (found := group.mean(model, attack))
    ]


# --- paired outcomes -------------------------------------------------------------------------------------------------


class Unreadable(Exception):
    """A file of outcomes that cannot be used; says why."""


@dataclass(frozen=True)
class Outcomes:
    """Of every example in order: whether it was classified right under an attack, and its label."""

    right: NDArray[np.bool_]
    labels: NDArray[np.int64]


def read_outcomes(path: Path) -> Outcomes:
    """Outcomes as an evaluate stage writes them. Raises Unreadable for a file that is torn, foreign or huge."""
    import zipfile

    import numpy as np

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Unreadable("not a file")
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > MOST_BYTES:
                raise Unreadable(f"more than {fmt.size(MOST_BYTES)}")
        with np.load(path, allow_pickle=False) as saved:
            right, labels = saved["right"], saved["labels"]
    except Unreadable:
        raise
    except FileNotFoundError:
        raise Unreadable("not there any more") from None
    except Exception as error:  # a foreign file can make zipfile, zlib and numpy raise nearly anything
        raise Unreadable(f"not readable as outcomes ({type(error).__name__})") from None
    vectors = right.ndim == 1 and right.size > 0 and right.shape == labels.shape
    if not vectors or right.dtype != np.bool_ or labels.dtype.kind not in "iu":
        raise Unreadable("not the outcomes of an evaluation")
    return Outcomes(right, labels)


Signature = tuple[int, int]


class OutcomeFiles:
    """Reads outcome files and keeps them until they change: the first run is compared with every other one."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Signature, Outcomes | Unreadable]] = {}

    def read(self, path: Path) -> Outcomes:
        """The outcomes in a file. Raises Unreadable."""
        try:
            found = path.stat()
        except OSError as error:
            raise Unreadable(str(error.strerror)) from None
        signature = (found.st_mtime_ns, found.st_size)
        known = self._known.get(path)
        if known is None or known[0] != signature:
            try:
                known = (signature, read_outcomes(path))
            except Unreadable as error:
                known = (signature, error)
            self._known[path] = known
        if isinstance(known[1], Unreadable):
            raise Unreadable(*known[1].args)
        return known[1]


@dataclass(frozen=True)
class Evaluated:
    """A run with its outcome files by model and attack, in the order of its tables."""

    id: str
    settings: Settings
    files: Mapping[tuple[str, str], Path]

    @property
    def models(self) -> tuple[str, ...]:
        """The networks there are outcomes of."""
        return tuple(dict.fromkeys(model for model, _ in self.files))


def evaluated(run: RunDir, settings: Settings) -> Evaluated:
    """The outcomes of a run as far as its evaluations have come; of the same cell, those of the last evaluation."""
    try:
        there = {path.name for path in run.outcomes.iterdir()}
    except OSError:
        there = set()
    planned = {
        (model, attack): f"{stage}-{model}-{attack}.npz"
        for stage, models, attacks in settings.tables
        for model in models
        for attack in attacks
        if f"{stage}-{model}-{attack}.npz" in there
    }
    return Evaluated(run.id, settings, {cell: run.outcomes / name for cell, name in planned.items()})


@dataclass(frozen=True)
class Verdict:
    """Model `a` of one run against model `b` of another under an attack: `result`, or why there can be none."""

    run_a: str
    run_b: str
    a: str
    b: str
    attack: str
    result: Paired | None = None
    problem: str = ""


def shared_models(a: Evaluated, b: Evaluated) -> list[tuple[str, str]]:
    """The networks to compare: those of the same name, or the last of each where no name is the same."""
    same = [(model, model) for model in a.models if model in b.models]
    if same or not (a.models and b.models):
        return same
    return [(a.models[-1], b.models[-1])]


def judge(a: Evaluated, b: Evaluated, models: tuple[str, str], attack: str, files: OutcomeFiles) -> Verdict:
    """Compare two networks under one attack, if they were tested on the very same examples."""
    verdict = Verdict(a.id, b.id, *models, attack)
    read = []
    for side, model in zip((a, b), models, strict=True):
        path = side.files[model, attack]
        try:
            read.append(files.read(path))
        except Unreadable as error:
            return replace(verdict, problem=f"{side.id}: {path.name}: {error}")
    if different := _different_examples(a, b, *read):
        return replace(verdict, problem=different)
    right_a, right_b = read[0].right, read[1].right
    result = paired(
        attack,
        f"{a.id}/{models[0]}",
        f"{b.id}/{models[1]}",
        only_a=int((right_a & ~right_b).sum()),
        only_b=int((right_b & ~right_a).sum()),
        n=len(right_a),
    )
    return replace(verdict, result=result)


def _different_examples(a: Evaluated, b: Evaluated, one: Outcomes, two: Outcomes) -> str:
    """Why two files are about different examples; empty if they are about the same. Test sets are in a fixed order."""
    data = [side.settings.values.get("data.name") for side in (a, b)]
    if data[0] != data[1]:
        return f"different data: {data[0]} and {data[1]}"
    if len(one.right) != len(two.right):
        return f"different examples: {len(one.right)} and {len(two.right)} of them"
    if not (one.labels == two.labels).all():
        return "different examples: their labels differ"
    return ""


def different_tests(a: Settings, b: Settings, attacks: Iterable[str]) -> list[str]:
    """Settings that make one of these attacks another one in the two runs, though the examples are the same."""
    from engine.contract.plan import budget_keys

    made = {attack.partition("@")[0] for attack in attacks} - {"clean"}
    stages = {stage for settings in (a, b) for stage, _, _ in settings.tables}
    strength = {f"stage.{stage}.{key}" for stage in stages for attack in made for key in budget_keys(attack)}
    found = differing([a.values, b.values]) if made else []
    return [key for key in found if key.startswith("threat.") or key in strength]


def verdicts(runs: Sequence[Evaluated], files: OutcomeFiles) -> list[Verdict]:
    """The first run against each other one, for every model and attack that both were tested with."""
    if not runs:
        return []
    first, *others = runs
    return [
        judge(first, other, (a, b), attack, files)
        for other in others
        for a, b in shared_models(first, other)
        for model, attack in first.files
        if model == a and (b, attack) in other.files
    ]


def paired_grid(runs: Sequence[Evaluated], found: Sequence[Verdict], names: Mapping[str, str]) -> Grid:
    """A row for each verdict that could be reached; why the others could not be is among the remarks."""
    rows = tuple(_verdict_row(verdict, verdict.result, names) for verdict in found if verdict.result)
    remarks = list(_paired_remarks(runs, found, names))
    first = names[runs[0].id] if runs else ""
    note = (
        f"accuracy of the run minus that of {first} on the same examples, in points, [95% interval]; "
        "exact McNemar p of each row alone, not corrected for their number"
    )
    head = ("run", "model", "attack", "difference", "p", "n")
    return Grid(head, (rows,) if rows else (), 3, tuple(remarks), (note,) if rows else ())


def _verdict_row(verdict: Verdict, result: Paired, names: Mapping[str, str]) -> Row:
    clear = "good" if result.low > 0 else "bad" if result.high < 0 else ""
    difference = Entry(fmt.signed(result.difference), fmt.interval(result.low, result.high), role=clear)
    p = fmt.p_value(result.p).removeprefix("p ").removeprefix("= ")
    model = verdict.b if verdict.a == verdict.b else f"{verdict.b} - {verdict.a}"
    labels = (Entry(names[verdict.run_b]), Entry(model), Entry(verdict.attack))
    return (*labels, difference, Entry(p), Entry(str(result.n)))


def _paired_remarks(runs: Sequence[Evaluated], found: Sequence[Verdict], names: Mapping[str, str]) -> Iterator[str]:
    """What is missing or not alike, said once for all runs of which it is true."""
    said: dict[str, list[str]] = {}
    for run in runs:
        for text in _run_remarks(run, runs[0], [verdict for verdict in found if verdict.run_b == run.id], names):
            said.setdefault(text, []).append(names[run.id])
    yield from (f"{_listed(named)}: {text}" for text, named in said.items())


def _run_remarks(run: Evaluated, first: Evaluated, found: Sequence[Verdict], names: Mapping[str, str]) -> Iterator[str]:
    if run.settings.problem:
        yield run.settings.problem
    elif not run.files:
        yield "no per-example outcomes; an evaluate stage writes them cell by cell"
    elif run is not first and first.files and not found:
        yield f"no attack in common with {names[first.id]}"
    if not found:
        return
    if keys := different_tests(first.settings, run.settings, (verdict.attack for verdict in found)):
        yield f"different {', '.join(keys)}: not the attack that {names[first.id]} met"
    reasons: dict[str, list[str]] = {}
    for verdict in found:
        if verdict.problem:
            reasons.setdefault(verdict.problem, []).append(verdict.attack)
    for problem, attacks in reasons.items():
        yield f"not compared under {_listed(list(dict.fromkeys(attacks)))}: {problem}"


PAIRED_COLUMNS: Final = ("attack", "a", "b", "difference", "low", "high", "p", "n")


def paired_records(found: Iterable[Verdict]) -> list[tuple[object, ...]]:
    """A row for each verdict that could be reached, its columns those of the `compare` document."""
    results = [verdict.result for verdict in found if verdict.result]
    return [tuple(getattr(result, name) for name in PAIRED_COLUMNS) for result in results]
