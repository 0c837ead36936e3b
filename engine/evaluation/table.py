"""Robust-accuracy tables: every network under every attack on the same test images."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import torch

from engine import distributed
from engine.attacks import ATTACKS
from engine.attacks.clean import answering_clean
from engine.attacks.loop import NoGradient
from engine.attacks.queries import exact_oracle, searching_oracles
from engine.contract.plan import Column, columns, evaluation_cost
from engine.contract.profile.catalogue import CLEAN
from engine.contract.profile.schema import Evaluate
from engine.contract.run.records import Cell, Record, WarningNote
from engine.contract.run.results import Results, headline, table
from engine.data import Images
from engine.evaluation import checks
from engine.evaluation.cell_run import CellRun, Tested, seed_draws
from engine.evaluation.examining import Examined, examine, without_gradient
from engine.evaluation.outcomes import Outcomes, compare, load, outcomes_file, partial_file, save
from engine.evaluation.samples import write_samples
from engine.evaluation.sharing import stoppable
from engine.stage import Context, Event, StageRun, Step


class Evaluation(StageRun):
    """A stage of kind evaluate. A step is an example decided under an attack; a stop loses nothing that is decided.

    Whatever the precision of the search, an example counts as robust only if the fp32 network classifies the clean
    image and every adversarial one right, and as broken only if it is wrong at a point checked to be allowed.
    """

    def __init__(self, context: Context, stage: Evaluate) -> None:
        self.images = tested_images(context, stage)
        self.models = list(stage.models or [])
        self.columns = columns(context.profile, stage)
        super().__init__(context, str(stage.id), len(self.images) * len(self.models) * len(self.columns))
        self.stage = stage
        self.compute = replace(context.compute, dtype=torch.float32)
        self._costs = {c.name: evaluation_cost(context.profile, stage, c.attack) for c in self.columns}
        self._finished_cost = 0.0  # of the cells that are finished
        self._cell_run: CellRun | None = None  # the cell in progress

    def save(self) -> None:
        """The outcomes of the cell in progress; finished cells are on disk already. Raises DiskError."""
        if self._cell_run:
            self._cell_run.save()

    def clear(self) -> None:
        """The outcomes of finished cells stay."""
        partial_file(self.context.run, self.id).unlink(missing_ok=True)

    def run(self) -> Iterator[Event]:
        """Fill the table cell by cell, then write the samples and the results."""
        cells: list[Cell] = []
        for name in self.models:
            tested: Tested | None = None
            for column in self.columns:
                outcomes = distributed.of_first(partial(self._finished, name, column))
                if outcomes is None:
                    tested = tested or (yield from self._tested(name))
                    if not tested.cannot(column.attack):
                        outcomes = yield from self._measured(tested, column)
                self.done += len(self.images)
                self._finished_cost += self._costs[column.name]
                if outcomes is not None:
                    cells.append(outcomes.record())
                    yield cells[-1]
                yield self._step(column, 0.0)
            yield from self._not_made(tested)
            for again in self._doubted(name):  # known only when the row is full
                cells = [again if (cell.model, cell.attack) == (name, again.attack) else cell for cell in cells]
                yield again
        if not cells:
            raise NoGradient
        samples = yield from stoppable(self._samples(), self._step(self.columns[0], 0.0))
        if samples:
            yield samples
            yield self._results(cells)

    def _not_made(self, tested: Tested | None) -> Iterator[WarningNote]:
        """Why columns of a network are empty."""
        if tested is None:
            return
        missing = [column.name for column in self.columns if tested.cannot(column.attack)]
        if missing:
            text = f"{tested.name}: {tested.no_gradient}, so {', '.join(missing)} could not be made"
            yield WarningNote(stage=self.id, text=text)

    def _measured(self, tested: Tested, column: Column) -> Generator[Event, None, Outcomes]:
        """The outcomes of a cell, once they are on disk."""
        self._cell_run = CellRun(self.context, self.stage, tested, column, partial(self._step, column))
        outcomes = yield from self._cell_run.run()
        if distributed.first():
            path = outcomes_file(self.context.run, self.id, tested.name, column.name)
            save(path, outcomes, self.images.labels.cpu().numpy())
        self._cell_run = None
        return outcomes

    def _finished(self, name: str, column: Column) -> Outcomes | None:
        """The outcomes of a cell that was finished, perhaps by an earlier engine."""
        return load(outcomes_file(self.context.run, self.id, name, column.name), name, column.name, len(self.images))

    def _step(self, column: Column, share: float) -> Step:
        """The step of the stage where `share` (0-1) of the work of the cell in progress is done."""
        total = sum(self._costs.values()) * len(self.models)
        cost = self._finished_cost + share * self._costs[column.name]
        return Step(self.done + int(share * len(self.images)), cost / total)

    def _samples(self) -> Generator[None, None, Record | None]:
        """What rank 0 writes while the others wait for it."""
        if not distributed.first():
            return None
        return (yield from write_samples(self.context, self.stage, self.compute))

    def _tested(self, name: str) -> Generator[Event, None, Tested]:
        """The network `name`; raises UsageError if it cannot be evaluated."""
        stage, context, slots = self.stage, self.context, self.stage.batch_size
        plain = replace(self.compute, channels_last=False)
        model = context.trained(name).requires_grad_(False).eval()
        seed_draws(context.profile.seed, name)
        checks.refuse(model, self.images, context.data.facts.classes, self.compute)
        sample = next(self.images.batches(min(slots, 16), plain))
        exact = exact_oracle(model, self.compute, sample=sample.x)
        answering = answering_clean(exact, self.images, plain, slots, stage.targets + 1)
        examples = yield from stoppable(answering, self._step(self.columns[0], 0.0))
        examined = Examined()
        if stage.checks:
            examined = yield from stoppable(examine(model, exact, examples), self._step(self.columns[0], 0.0))
        crafted = model if stage.source is None else context.trained(stage.source).requires_grad_(False).eval()
        fast, precise = searching_oracles(crafted, stage, self.compute, sample)
        blind = without_gradient(precise, sample.x)
        if blind and stage.source is not None:
            blind = f"of {stage.source}, {blind}"
        return Tested(name, exact, fast, precise, examples, examined, blind, transfer=stage.source is not None)

    def _doubted(self, name: str) -> Iterator[Cell]:
        """Cells of a full row that get warnings from the other cells."""
        row = {column: outcomes for column in self.columns if (outcomes := self._finished(name, column))}
        for norm, eps in dict.fromkeys((c.norm, c.eps) for c in self.columns):
            same = {column: outcomes for column, outcomes in row.items() if (column.norm, column.eps) == (norm, eps)}
            by_attack = {column.attack: outcomes.right for column, outcomes in same.items()}
            notes = checks.of_table(by_attack) if self.stage.checks else {}
            for column, outcomes in same.items():
                of_parts = checks.of_parts(outcomes.cell.parts, len(outcomes.right)) if self.stage.checks else []
                beaten = self._beaten(name, column, outcomes.right)
                warnings = [*of_parts, *notes.get(column.attack, []), *beaten]
                if warnings:
                    yield outcomes.record(warnings)

    def _beaten(self, name: str, column: Column, crafted: np.ndarray) -> list[str]:
        """Whether a transfer, which leaves `crafted` (N,) right, breaks more than the attacks on the network itself."""
        stage = self.stage
        if not stage.source or not stage.checks or column.attack == CLEAN:
            return []
        return checks.of_transfer(crafted, self._direct(name, column), stage.source)

    def _direct(self, name: str, column: Column) -> list[np.ndarray]:
        """Which examples (N,) withstand each gradient attack on the network itself at this radius, in other tables."""
        run, radius = self.context.run, (column.norm, column.eps)
        same = [(stage, c.name) for stage, c in self._direct_columns(name) if (c.norm, c.eps) == radius]
        outcomes = [load(outcomes_file(run, stage, name, attack), name, attack) for stage, attack in same]
        index = self.images.index.cpu().numpy()
        return [each.right for each in outcomes if each and np.array_equal(each.examples, index)]

    def _direct_columns(self, name: str) -> Iterator[tuple[str, Column]]:
        """The columns of gradient attacks on the network itself, with the stages that they belong to."""
        for other in self.context.profile.stage:
            if not isinstance(other, Evaluate) or other.source or name not in (other.models or ()):
                continue
            for column in columns(self.context.profile, other):
                if column.attack in ATTACKS and ATTACKS[column.attack].uses_gradients:
                    yield str(other.id), column

    def _results(self, cells: list[Cell]) -> Results:
        """The results of earlier evaluations of the run, with the cells of this one added."""
        run, base = self.context.run, self.models[0]
        made = {(cell.model, cell.attack) for cell in cells}
        differences = [
            compare(c.name, base, other, *(outcomes_file(run, self.id, model, c.name) for model in (base, other)))
            for c in self.columns
            for other in self.models[1:]
            if {(base, c.name), (other, c.name)} <= made
        ]
        earlier = run.results() or Results()
        compared = {(row.attack, row.a, row.b) for row in differences}
        kept = [row for row in earlier.differences if (row.attack, row.a, row.b) not in compared]
        return Results(
            cells=list(table([*earlier.cells, *cells]).cells.values()),
            differences=[*kept, *differences],
            headline=headline(cells, self.context.readings()),
        )


def tested_images(context: Context, stage: Evaluate) -> Images:
    """The test images of a stage; those of a stage that an earlier release began, which took the first ones."""
    test = context.data.test
    if stage.limit is None or not distributed.of_first(partial(_began_with_the_first, context, stage)):
        return test.subset(stage.limit)
    return test.first(stage.limit)


def _began_with_the_first(context: Context, stage: Evaluate) -> bool:
    run, name = context.run, str(stage.id)
    for model, column in product(stage.models or (), columns(context.profile, stage)):
        for path in (outcomes_file(run, name, model, column.name), partial_file(run, name)):
            outcomes = load(path, model, column.name)
            if outcomes and outcomes.index is None:
                return True
    return False
