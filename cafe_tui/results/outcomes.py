"""Outcomes of two runs on the same examples, and the paired tests on them."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cafe_tui import format as fmt
from engine.contract.run.results import Paired, paired
from engine.contract.run.rundir import RunDir

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
from cafe_tui.results.settings import Settings, differing

MOST_BYTES: Final = 64 << 20
"""Of an array of outcomes; those of a million examples have eight."""


class Unreadable(Exception):
    """A file of outcomes that cannot be used; says why."""


@dataclass(frozen=True)
class Outcomes:
    """Of every example in order: whether it was classified right under an attack, its label, its place in the test set.

    `images` is a checksum of the examples, empty in files of earlier releases.
    """

    right: NDArray[np.bool_]
    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    images: str = ""


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
            index = saved["index"] if "index" in saved else np.arange(right.size)  # earlier releases took the first
            facts = json.loads(str(saved["facts"])) if "facts" in saved else {}
    except Unreadable:
        raise
    except FileNotFoundError:
        raise Unreadable("not there any more") from None
    except Exception as error:  # a foreign file can make zipfile, zlib and numpy raise nearly anything
        raise Unreadable(f"not readable as outcomes ({type(error).__name__})") from None
    vectors = right.ndim == 1 and right.size > 0 and right.shape == labels.shape == index.shape
    numbers = labels.dtype.kind in "iu" and index.dtype.kind in "iu"
    if not vectors or right.dtype != np.bool_ or not numbers or not isinstance(facts, dict):
        raise Unreadable("not the outcomes of an evaluation")
    return Outcomes(right, labels, index, str(facts.get("images", "")))


Signature = tuple[int, int]


class OutcomeFiles:
    """Reads outcome files and keeps them until they change: the first run is compared with every other one."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Signature, Outcomes | Unreadable]] = {}

    def read(self, path: Path) -> Outcomes:
        """The outcomes in a file. Raises Unreadable."""
        try:
            facts = path.stat()
        except OSError as error:
            raise Unreadable(str(error.strerror)) from None
        signature = (facts.st_mtime_ns, facts.st_size)
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
    """Why two files are about different examples; empty if they are about the same.

    Files of earlier releases know no images: there labels have to tell.
    """
    data = [side.settings.values.get("data.name") for side in (a, b)]
    if data[0] != data[1]:
        return f"different data: {data[0]} and {data[1]}"
    if len(one.right) != len(two.right):
        return f"different examples: {len(one.right)} and {len(two.right)} of them"
    if not (one.index == two.index).all():
        return "different examples: other images of the test set, as releases before this one took the first of them"
    if one.images and two.images and one.images != two.images:
        return "different images: the test set was changed between the two"
    if not (one.labels == two.labels).all():
        return "different examples: their labels differ"
    return ""


def different_tests(a: Settings, b: Settings, attacks: Iterable[str]) -> list[str]:
    """Settings that make one of these attacks another one in the two runs, though the examples are the same."""
    from engine.contract.plan import budget_keys

    made = {attack.partition("@")[0] for attack in attacks} - {"clean"}
    stages = {stage for settings in (a, b) for stage, _, _ in settings.tables}
    strength = {f"stage.{stage}.{key}" for stage in stages for attack in made for key in budget_keys(attack)}
    different = differing([a.values, b.values]) if made else []
    return [key for key in different if key.startswith("threat.") or key in strength]


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
