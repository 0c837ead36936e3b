"""Robust-accuracy tables: every model under every attack on the same test images."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engine.attacks import ATTACKS, Attack, Setting
from engine.contract.records import Cell, Progress
from engine.contract.results import Paired, Results, headline, make_cell, paired, table
from engine.contract.rundir import RunDir, write_atomically
from engine.contract.schema import Evaluate
from engine.data import Batch
from engine.evaluation.samples import write_samples
from engine.models.base import Classifier
from engine.stage import Context, Event, StageRun, Step


@dataclass
class Outcomes:
    """Which of the first examples are still classified right under one attack, and what it took."""

    right: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    gradient_steps: int = 0
    outside: int = 0
    not_finite: int = 0
    note: str = ""

    def warnings(self) -> list[str]:
        """What a reader of the number must know."""
        notes = [self.note] if self.note else []
        if self.not_finite:
            notes.append(f"{self.not_finite} answers of the network were not finite; they count as wrong")
        if self.outside:
            notes.append(f"{self.outside} points left the ball or the box and were not counted")
        return notes


class Evaluation(StageRun):
    """A stage of kind evaluate. A step is one batch under one attack; finished cells survive a stop.

    Attacks and judgement are in fp32 whatever the precision of the run: an example counts as robust only if the fp32
    network classifies the clean image and every adversarial one right.
    """

    def __init__(self, context: Context, stage: Evaluate) -> None:
        self.images = context.data.test.first(stage.limit)
        self.batches = -(-len(self.images) // stage.batch_size)
        self.models, self.attacks = list(stage.models or []), list(stage.attacks)
        super().__init__(context, str(stage.id), self.batches * len(self.models) * len(self.attacks))
        self.stage = stage
        self.compute = replace(context.compute, dtype=torch.float32)

    def save(self) -> None:
        """Nothing to do: the outcomes of every finished cell are on disk."""

    def run(self) -> Iterator[Event]:
        """Fill the table cell by cell, then write the samples and hand over the results."""
        cells: list[Cell] = []
        for name in self.models:
            model = self.context.trained(name).requires_grad_(False).eval()
            for attack in self.attacks:
                path = outcomes_file(self.context.run, self.id, name, attack)
                if path.exists():
                    self.done += self.batches
                else:
                    note = ATTACKS[attack].note(self.context.data.facts.classes)
                    outcomes, started = Outcomes(note=note), time.perf_counter()
                    yield from self._attack(model, name, attack, outcomes)
                    _save(path, outcomes, time.perf_counter() - started, self.images.labels)
                    yield Step(self.done)
                cells.append(_cell(name, attack, path))
                yield cells[-1]
        yield write_samples(self.context, self.stage, self.compute)
        yield self._results(cells)

    def _attack(self, model: Classifier, name: str, attack: str, outcomes: Outcomes) -> Iterator[Event]:
        total, shown = len(self.images), time.perf_counter()
        setting = Setting(self.context.ball_of(attack), self.stage, self.context.profile.seed, self.compute)
        for batch in self.images.batches(self.stage.batch_size, self.compute):
            self._attack_batch(model, batch, ATTACKS[attack], setting, outcomes)
            self.done += 1
            done = len(outcomes.right)
            if time.perf_counter() - shown > 0.5 or done == total:
                shown = time.perf_counter()
                yield Progress(
                    model=name, attack=attack, done=done, total=total, robust_so_far=int(outcomes.right.sum())
                )
            if done < total:  # after the last batch the outcomes are written first: a stop there must not lose the cell
                yield Step(self.done)

    def _attack_batch(
        self, model: nn.Module, batch: Batch, attack: Attack, setting: Setting, outcomes: Outcomes
    ) -> None:
        right = self._judge(model, batch.x, batch.y, outcomes)
        for restart in range(attack.restarts(self.stage)):
            alive = right.nonzero().flatten()
            if not len(alive) or not attack.steps(self.stage):
                break
            part = Batch(batch.x[alive], batch.y[alive], batch.index[alive])
            x_adv = attack.run(model, part, setting, restart)
            inside = setting.ball.contains(x_adv, part.x)
            outcomes.outside += int((~inside).sum())
            outcomes.gradient_steps += len(alive) * attack.steps(self.stage)
            right[alive] = self._judge(model, x_adv, part.y, outcomes) | ~inside
        outcomes.right = np.concatenate([outcomes.right, right.cpu().numpy()])

    @staticmethod
    def _judge(model: nn.Module, x: Tensor, y: Tensor, outcomes: Outcomes) -> Tensor:
        with torch.no_grad():
            logits = model(x)
        finite = logits.isfinite().all(1)
        outcomes.not_finite += int((~finite).sum())
        return (logits.argmax(1) == y) & finite

    def _results(self, cells: list[Cell]) -> Results:
        """What earlier evaluations of the run found, with this one's cells added."""
        run, base = self.context.run, self.models[0]
        differences = [
            compare(attack, base, other, *(outcomes_file(run, self.id, model, attack) for model in (base, other)))
            for attack in self.attacks
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


def outcomes_file(run: RunDir, stage: str, model: str, attack: str) -> Path:
    """Where the per-example outcomes of one cell are."""
    return run.outcomes / f"{stage}-{model}-{attack}.npz"


def _save(path: Path, outcomes: Outcomes, seconds: float, labels: Tensor) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        right=outcomes.right,
        labels=labels.cpu().numpy(),
        seconds=seconds,
        gradient_steps=outcomes.gradient_steps,
        warnings=np.array(outcomes.warnings(), dtype=np.str_),
    )
    write_atomically(path, buffer.getvalue())


def _cell(model: str, attack: str, path: Path) -> Cell:
    with np.load(path, allow_pickle=False) as saved:
        return make_cell(
            model,
            attack,
            int(saved["right"].sum()),
            len(saved["right"]),
            seconds=float(saved["seconds"]),
            gradient_steps=int(saved["gradient_steps"]),
            warnings=[str(text) for text in saved["warnings"]],
        )


def compare(attack: str, a: str, b: str, file_a: Path, file_b: Path) -> Paired:
    """Models `a` and `b` under one attack on the same examples, from their outcome files."""
    with np.load(file_a, allow_pickle=False) as one, np.load(file_b, allow_pickle=False) as two:
        right_a, right_b = one["right"], two["right"]
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return paired(attack, a, b, only_a=only_a, only_b=only_b, n=len(right_a))
