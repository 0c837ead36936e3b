"""Robust-accuracy tables: every network under every attack on the same test images."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from engine import distributed, keyed_random
from engine.attacks import ATTACKS
from engine.attacks.balls import Ball
from engine.attacks.queries import Oracle, exact_oracle, searching_oracles
from engine.attacks.scheduler import Clean, Found, LiveExamples, answering_clean
from engine.attacks.search import Search
from engine.attacks.setting import Setting
from engine.contract.plan import Column, columns, evaluation_cost
from engine.contract.profile.catalogue import CLEAN, ENSEMBLES, is_averaged, parts, plain
from engine.contract.profile.schema import Evaluate
from engine.contract.run.fingerprint import cell_settings
from engine.contract.run.records import Cell, Part, Progress, Record
from engine.contract.run.results import Results, headline, table
from engine.evaluation import checks
from engine.evaluation.outcomes import Outcomes, cell_of, compare, load, outcomes_file, partial_file, save
from engine.evaluation.samples import write_samples
from engine.evaluation.sharing import Reached, in_step, share_of, united
from engine.stage import Context, Event, StageRun, Step

SHOWN_EVERY = 0.5
SAVED_EVERY = 30.0
"""Seconds between two records of progress, and between two savings of what a long attack has found."""

T = TypeVar("T")


@dataclass(frozen=True)
class Tested:
    """A network ready to be attacked: as it is, as it is searched in haste and precisely, and what it says to the clean
    images."""

    exact: Oracle
    searching: tuple[Oracle, Oracle]
    clean: Clean
    examined: checks.Examined

    def asked_by(self, search: Search) -> Oracle:
        """The network that an attack asks."""
        return self.searching[search.precise]


class Evaluation(StageRun):
    """A stage of kind evaluate. A step is an example decided under an attack; a stop loses nothing that is decided.

    Whatever the precision of the search, an example counts as robust only if the fp32 network classifies the clean
    image and every adversarial one right, and as broken only if it is wrong at a point checked to be allowed.
    """

    def __init__(self, context: Context, stage: Evaluate) -> None:
        self.images = context.data.test.first(stage.limit)
        self.models = list(stage.models or [])
        self.columns = columns(context.profile, stage)
        super().__init__(context, str(stage.id), len(self.images) * len(self.models) * len(self.columns))
        self.stage = stage
        self.compute = replace(context.compute, dtype=torch.float32)
        self._plain = replace(self.compute, channels_last=False)
        self._costs = {c.name: evaluation_cost(context.profile, stage, c.attack) for c in self.columns}
        self._open: tuple[str, Outcomes] | None = None  # the cell at work, as "network-column"
        self._own: Found | None = None  # of the attack at work, what this rank has found in its share of the examples
        self._behind = 0.0  # cost of the finished cells

    def save(self) -> None:
        """What the cell at work has found; finished cells are on disk already. Raises DiskError."""
        if self._open:
            cell, outcomes = self._open
            if self._own is not None and outcomes.found is not None:
                outcomes = replace(outcomes, found=united(self._own))
            if distributed.first():
                save(partial_file(self.context.run, self.id), outcomes, self._labels, cell)

    def clear(self) -> None:
        """The outcomes of finished cells stay."""
        partial_file(self.context.run, self.id).unlink(missing_ok=True)

    def run(self) -> Iterator[Event]:
        """Fill the table cell by cell, then write the samples and hand over the results."""
        cells: list[Cell] = []
        for name in self.models:
            tested: Tested | None = None
            for column in self.columns:
                path = outcomes_file(self.context.run, self.id, name, column.name)
                outcomes = distributed.of_first(partial(load, path))
                if outcomes is None:
                    tested = tested or (yield from self._tested(name))
                    outcomes = yield from self._attack(tested, name, column)
                    if distributed.first():
                        save(path, outcomes, self._labels)
                    self._open = None
                self.done = (len(cells) + 1) * len(self.images)
                self._behind += self._costs[column.name]
                cells.append(cell_of(name, column.name, outcomes, []))
                yield cells[-1]
                yield Step(self.done, self._share(column, 0.0))
            for again in self._noted(name):  # known only when the row is full
                cells = [again if (cell.model, cell.attack) == (name, again.attack) else cell for cell in cells]
                yield again
        samples = yield from self._obeying(self._samples())
        if samples:
            yield samples
            yield self._results(cells)

    def _samples(self) -> Generator[None, None, Record | None]:
        """What rank 0 writes while the others wait for it."""
        if not distributed.first():
            return None
        return (yield from write_samples(self.context, self.stage, self.compute))

    @property
    def _labels(self) -> np.ndarray:
        labels: np.ndarray = self.images.labels.cpu().numpy()
        return labels

    def _obeying(self, work: Generator[None, None, T]) -> Generator[Event, None, T]:
        """The result of `work` that no progress is told of, with a chance to stop wherever it hands over."""
        result: T
        busy = True
        while True:
            try:
                if busy:
                    next(work)
            except StopIteration as end:
                result, busy = end.value, False
            if not distributed.anywhere(busy):  # ranks hand over equally often, so that they can agree on a stop
                return result
            yield Step(self.done, self._share(self.columns[0], 0.0))

    def _tested(self, name: str) -> Generator[Event, None, Tested]:
        """The network `name`; raises UsageError if no number can be had of it."""
        stage, slots, classes = self.stage, self.stage.batch_size, self.context.data.facts.classes
        model = self.context.trained(name).requires_grad_(False).eval()
        self._seed(name)
        checks.refuse(model, self.images, classes, self.compute)
        exact = exact_oracle(model, self.compute)
        clean = yield from self._obeying(answering_clean(exact, self.images, self._plain, slots, stage.targets + 1))
        examined = checks.examine(model, exact, self.images, self._plain, slots) if stage.checks else checks.Examined()
        crafted = model if stage.source is None else self.context.trained(stage.source).requires_grad_(False).eval()
        sample = next(self.images.batches(min(slots, 16), self._plain))
        return Tested(exact, searching_oracles(crafted, stage, self.compute, sample), clean, examined)

    def _seed(self, purpose: str) -> None:
        """Begin the draws that a network with random answers makes: those of a repeated run are the same.

        Such a network draws for a batch as a whole, from torch's own generator, so its draws cannot belong to examples.
        """
        own = keyed_random.keys(self.context.profile.seed, torch.tensor([distributed.rank()]), purpose)
        torch.manual_seed(int(own))

    def _setting(self, column: Column) -> Setting:
        ball, classes = Ball(column.norm, column.eps), self.context.data.facts.classes
        return Setting(ball, self.stage, self.context.profile.seed, classes)

    def _attack(self, tested: Tested, name: str, column: Column) -> Generator[Event, None, Outcomes]:
        """The outcomes of one cell, going on from where an earlier engine was stopped within it."""
        cell = f"{name}-{column.name}"
        outcomes = distributed.of_first(partial(load, partial_file(self.context.run, self.id), cell))
        if outcomes is None:
            settings = cell_settings(self.context.profile, self.id, name, column)
            outcomes = Outcomes(tested.clean.right.copy(), settings=settings)
            outcomes.facts.norm, outcomes.facts.eps = column.norm, column.eps
            outcomes.facts.source = self.stage.source or ""
            outcomes.facts.how = "fp32"
            if column.attack != CLEAN:
                first = ATTACKS[parts(column.attack)[0]].search(self._setting(column))
                outcomes.facts.how = tested.asked_by(first).how
            outcomes.facts.warnings = yield from self._first_warnings(tested, column)
            if column.attack == CLEAN:
                outcomes.facts.forwards = len(self.images)
        self._open = (cell, outcomes)
        turn = parts(column.attack)
        for i, part in enumerate(turn):
            if i < len(outcomes.facts.parts):
                continue
            known = self._known(name, part, column) if len(turn) > 1 and not is_averaged(column.attack) else None
            if known is not None:
                outcomes.right &= known
                outcomes.facts.parts.append(Part(attack=part, correct=int(outcomes.right.sum())))
            else:
                yield from self._search(tested, name, column, part, outcomes, (i, len(turn)))
        facts = outcomes.facts
        facts.seconds = sum(part.seconds for part in facts.parts)
        facts.forwards += sum(part.forwards for part in facts.parts)
        facts.gradient_steps = sum(part.gradient_steps for part in facts.parts)
        if len(turn) < 2:
            facts.parts = []
        return outcomes

    def _known(self, name: str, part: str, column: Column) -> np.ndarray | None:
        """What the part found where it is a column of its own: the same attack, so it need not be made again."""
        same = [c for c in self.columns if c.attack == part and (c.norm, c.eps) == (column.norm, column.eps)]
        if not same:
            return None
        found = distributed.of_first(partial(load, outcomes_file(self.context.run, self.id, name, same[0].name)))
        return found.right if found else None

    def _search(
        self, tested: Tested, name: str, column: Column, part: str, outcomes: Outcomes, place: tuple[int, int]
    ) -> Iterator[Event]:
        """One attack on the examples that are still right."""
        stage, facts = self.stage, outcomes.facts
        search = ATTACKS[part].search(self._setting(column))
        self._seed(f"{name}-{column.name}-{part}")
        exact, oracle = tested.exact, tested.asked_by(search)
        if is_averaged(column.attack):
            exact, oracle = exact.repeated(stage.eot), oracle.repeated(stage.eot)
        if outcomes.found is None:
            outcomes.found = Found.nothing(outcomes.right, search.attempts)
        self._own = found = share_of(outcomes.found)
        live = LiveExamples(
            search,
            oracle,
            exact,
            self.images,
            tested.clean,
            found,
            self._plain,
            stage.batch_size,
            lossy=oracle.dtype != torch.float32,
            continuation=stage.continuation,
            transfer=stage.source is not None,
        )
        started = shown = time.perf_counter()
        saved = 0.0
        before = found.seconds
        for reached in in_step(live.run(), found):
            now = time.perf_counter()
            found.seconds = before + now - started
            share = (place[0] + reached.share) / place[1]
            if now - shown > SHOWN_EVERY:
                shown = now
                yield self._progress(name, column, part, outcomes, reached, share)
            if reached.seconds - saved > SAVED_EVERY:
                saved = reached.seconds
                self.save()
            yield Step(self.done + int(share * len(self.images)), self._share(column, share))
        found = united(found)
        outcomes.right, outcomes.found, self._own = found.robust, None, None
        effort, left = found.effort, int(found.robust.sum())
        facts.parts.append(
            Part(
                attack=part,
                correct=left,
                gradient_steps=effort.gradient_steps,
                forwards=effort.forwards,
                seconds=found.seconds,
            )
        )
        facts.warnings = list(dict.fromkeys([*facts.warnings, *checks.of_search(found)]))
        if place[1] > 1:
            reached = Reached(len(self.images), left, 1.0)
            yield self._progress(name, column, part, outcomes, reached, (place[0] + 1) / place[1])

    def _progress(
        self, name: str, column: Column, part: str, outcomes: Outcomes, reached: Reached, share: float
    ) -> Progress:
        total = len(self.images)
        return Progress(
            model=name,
            attack=column.name,
            done=reached.decided,
            total=total,
            robust_so_far=reached.robust - (total - reached.decided),
            part=part,
            parts=outcomes.facts.parts,
            share=share,
        )

    def _share(self, column: Column, share: float) -> float:
        """Of the work of the whole stage."""
        total = sum(self._costs.values()) * len(self.models)
        return (self._behind + share * self._costs[column.name]) / total

    def _first_warnings(self, tested: Tested, column: Column) -> Generator[Event, None, list[str]]:
        """What is known before the attack begins."""
        stage, setting = self.stage, self._setting(column)
        notes = [ATTACKS[part].note(setting) for part in parts(column.attack)]
        notes += tested.examined.warnings(column.attack)
        notes += checks.of_images(stage.limit, len(self.images))
        if column.attack == CLEAN and tested.clean.not_finite:
            notes.append(f"{tested.clean.not_finite} answers of the network were not finite; they count as wrong")
        if ensemble := ENSEMBLES.get(plain(column.attack)):
            notes.append(checks.of_budgets(stage, ensemble.standard, setting.classes))
        first = next((c for c in self.columns if c.norm == column.norm and c.attack != CLEAN), None)
        if stage.checks and stage.source is None and column == first:
            check = checks.hopeless(setting, tested.exact, self.images, tested.clean, self._plain, stage.batch_size)
            notes.append((yield from self._obeying(check)))
        return list(dict.fromkeys(note for note in notes if note))

    def _noted(self, name: str) -> Iterator[Cell]:
        """Cells of a full row that the other cells throw a doubt on."""
        found = {c: load(outcomes_file(self.context.run, self.id, name, c.name)) for c in self.columns}
        for radius in dict.fromkeys((c.norm, c.eps) for c in self.columns):
            row = {c.attack: o.right for c, o in found.items() if o and (c.norm, c.eps) == radius}
            notes = checks.of_table(row) if self.stage.checks else {}
            for column, outcomes in found.items():
                if outcomes is None or (column.norm, column.eps) != radius:
                    continue
                said = notes.get(column.attack, [])
                if self.stage.source and self.stage.checks and column.attack != CLEAN:
                    said = [*said, *checks.of_transfer(outcomes.right, self._direct(name, column), self.stage.source)]
                if said:
                    yield cell_of(name, column.name, outcomes, said)

    def _direct(self, name: str, column: Column) -> list[np.ndarray]:
        """What gradient attacks on the network itself left at this radius, in other tables of the run."""
        found = []
        for other in self.context.profile.stage:
            if not isinstance(other, Evaluate) or other.source or name not in (other.models or ()):
                continue
            for c in columns(self.context.profile, other):
                if (c.norm, c.eps) == (column.norm, column.eps) and c.attack in ATTACKS:
                    outcomes = load(outcomes_file(self.context.run, str(other.id), name, c.name))
                    if outcomes and len(outcomes.right) == len(self.images) and ATTACKS[c.attack].uses_gradients:
                        found.append(outcomes.right)
        return found

    def _results(self, cells: list[Cell]) -> Results:
        """What earlier evaluations of the run found, with this one's cells added."""
        run, base = self.context.run, self.models[0]
        differences = [
            compare(c.name, base, other, *(outcomes_file(run, self.id, model, c.name) for model in (base, other)))
            for c in self.columns
            for other in self.models[1:]
        ]
        earlier = run.results() or Results()
        compared = {(row.attack, row.a, row.b) for row in differences}
        kept = [row for row in earlier.differences if (row.attack, row.a, row.b) not in compared]
        return Results(
            cells=list(table([*earlier.cells, *cells]).cells.values()),
            differences=[*kept, *differences],
            headline=headline(cells, self.context.readings()),
        )
