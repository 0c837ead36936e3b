"""One cell of a table: one network under the attacks of one column, resumed where an earlier engine was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from engine import distributed, keyed_random
from engine.attacks import ATTACKS
from engine.attacks.balls import Ball
from engine.attacks.clean import Examples
from engine.attacks.queries import Oracle, Oracles
from engine.attacks.scheduler import LiveExamples
from engine.attacks.search import Search
from engine.attacks.setting import Setting
from engine.attacks.tally import Tally
from engine.contract.plan import Column, columns
from engine.contract.profile.catalogue import CLEAN, ENSEMBLES, is_averaged, parts, plain
from engine.contract.profile.schema import Evaluate
from engine.contract.run.records import Part, Progress
from engine.evaluation import checks
from engine.evaluation.examining import Examined, asks_gradients
from engine.evaluation.outcomes import Outcomes, checksum, load, outcomes_file, partial_file, save
from engine.evaluation.sharing import Reached, in_step, own_share, stoppable, united
from engine.stage import Context, Event, Step

SHOWN_EVERY = 0.5
SAVED_EVERY = 30.0
"""Seconds between two records of progress, and between two savings of the state of a long attack."""


@dataclass(frozen=True)
class Tested:
    """A network ready to be attacked: the exact oracle, a fast and a precise one to search with, and the examples.

    In a `transfer` the oracles to search with are those of another network.
    """

    name: str
    exact: Oracle
    fast: Oracle
    precise: Oracle
    examples: Examples
    examined: Examined
    no_gradient: str
    """Why no attack that asks for gradients can be made; empty if all can."""
    transfer: bool

    def cannot(self, attack: str) -> bool:
        """Whether an attack cannot be made on this network."""
        return bool(self.no_gradient) and asks_gradients(attack)

    def oracles(self, search: Search) -> Oracles:
        """The networks that an attack asks."""
        return Oracles(self.precise if search.precise else self.fast, self.exact, self.transfer)


class CellRun:
    """The attacks of `column` on the network `tested`, and what has come of them so far.

    `step` makes the step of the stage for a share (0-1) of the work of this cell.
    """

    def __init__(
        self, context: Context, stage: Evaluate, tested: Tested, column: Column, step: Callable[[float], Step]
    ) -> None:
        self.context, self.stage, self.tested, self.column, self.step = context, stage, tested, column, step
        self.attacks = parts(column.attack)
        ball, classes = Ball(column.norm, column.eps), context.data.facts.classes
        self.setting = Setting(ball, stage, context.profile.seed, classes)
        self._total = len(tested.examples.images)
        self._outcomes: Outcomes | None = None
        self._own: Tally | None = None  # of the attack in progress, for this rank's share of the examples

    def save(self) -> None:
        """Write what has come of it so far, for an engine that resumes the cell. Raises DiskError."""
        outcomes = self._outcomes
        if outcomes is None:
            return
        if self._own is not None and outcomes.tally is not None:
            outcomes = replace(outcomes, tally=united(self._own))
        if distributed.first():
            labels = self.tested.examples.images.labels.cpu().numpy()
            save(partial_file(self.context.run, str(self.stage.id)), outcomes, labels, finished=False)

    def run(self) -> Generator[Event, None, Outcomes]:
        """Make the attacks in turn, each on the examples that are still right."""
        path = partial_file(self.context.run, str(self.stage.id))
        outcomes = distributed.of_first(partial(load, path, self.tested.name, self.column.name, self._total))
        if outcomes is None:
            outcomes = yield from self._begun()
        self._outcomes = outcomes
        cell = outcomes.cell
        for place in range(len(cell.parts), len(self.attacks)):
            attack = self.attacks[place]
            right = self._known(attack)
            if right is None:
                yield from self._attack(outcomes, place)
            else:
                outcomes.right &= right
                cell.parts.append(Part(attack=attack, correct=int(outcomes.right.sum())))
        cell.seconds = sum(part.seconds for part in cell.parts)
        cell.forwards += sum(part.forwards for part in cell.parts)
        cell.gradient_steps = sum(part.gradient_steps for part in cell.parts)
        if len(self.attacks) < 2:
            cell.parts = []
        return outcomes

    def _begun(self) -> Generator[Event, None, Outcomes]:
        """Before the first attack: the examples that are right when clean."""
        column, clean = self.column, self.column.attack == CLEAN
        warnings = yield from self._warnings()
        facts = {
            "norm": column.norm,
            "eps": column.eps,
            "source": self.stage.source or "",
            "how": self.tested.exact.how if clean else self.tested.oracles(self._search(self.attacks[0])).searching.how,
            "images": checksum(self.tested.examples.images, self.context.data),
            "warnings": warnings,
            "forwards": self._total if clean else 0,
        }
        settings = self.context.cell_settings(str(self.stage.id), self.tested.name, column)
        right = self.tested.examples.clean.right.copy()
        outcomes = Outcomes.begin(self.tested.name, column.name, right, settings, facts)
        outcomes.index = self.tested.examples.images.index.cpu().numpy()
        return outcomes

    def _warnings(self) -> Generator[Event, None, list[str]]:
        """What a reader must know of this cell, whatever the attack comes to."""
        stage, tested, attack = self.stage, self.tested, self.column.attack
        notes = [ATTACKS[part].note(self.setting) for part in self.attacks]
        notes += tested.examined.warnings(attack)
        notes += checks.of_images(stage.limit, self._total)
        notes += checks.of_classes(tested.examples.images.labels, self.setting.classes)
        notes += self.context.doubts(tested.name)
        notes += checks.of_small_images(attack, int(tested.examples.images.images.shape[-1]))
        if tested.no_gradient:
            notes.append(f"{tested.no_gradient}: no attack that needs one was made")
        if attack == CLEAN:
            notes += checks.of_answers(tested.examples.clean.not_finite)
        if ensemble := ENSEMBLES.get(plain(attack)):
            notes += checks.of_budgets(self.setting, ensemble.standard)
        if stage.checks and not tested.transfer and not tested.no_gradient and self._first_of_its_norm():
            check = checks.hopeless(self.setting, tested.exact, tested.examples)
            notes.append((yield from stoppable(check, self.step(0.0))))
        return list(dict.fromkeys(note for note in notes if note))

    def _first_of_its_norm(self) -> bool:
        """Whether no earlier column of the table attacks in this norm."""
        attacked = [c for c in columns(self.context.profile, self.stage) if c.attack != CLEAN]
        return self.column == next((c for c in attacked if c.norm == self.column.norm), None)

    def _known(self, attack: str) -> np.ndarray | None:
        """Which examples (N,) withstand a part of an ensemble that is a column of its own: it is not made again."""
        if len(self.attacks) < 2 or is_averaged(self.column.attack):
            return None
        radius = (self.column.norm, self.column.eps)
        for c in columns(self.context.profile, self.stage):
            if c.attack == attack and (c.norm, c.eps) == radius:
                path = outcomes_file(self.context.run, str(self.stage.id), self.tested.name, c.name)
                outcomes = distributed.of_first(partial(load, path, self.tested.name, c.name, self._total))
                return outcomes.right if outcomes else None
        return None

    def _search(self, attack: str) -> Search:
        return ATTACKS[attack].search(self.setting)

    def _attack(self, outcomes: Outcomes, place: int) -> Iterator[Event]:
        """One attack on the examples that are still right; it stands at this `place`, from 0, among the attacks."""
        cell, tested, attack = outcomes.cell, self.tested, self.attacks[place]
        search = self._search(attack)
        seed_draws(self.context.profile.seed, f"{tested.name}-{self.column.name}-{attack}")
        oracles = tested.oracles(search)
        if is_averaged(self.column.attack):
            oracles = oracles.repeated(self.stage.eot)
        if outcomes.tally is None:
            outcomes.tally = Tally.before(outcomes.right, search.attempts)
        self._own = tally = own_share(outcomes.tally)
        live = LiveExamples(search, oracles, tested.examples, tally, continuation=self.stage.continuation)
        yield from self._driven(live, outcomes, place)
        tally = united(tally)
        outcomes.right, outcomes.tally, self._own = tally.robust, None, None
        effort, robust = tally.effort, int(tally.robust.sum())
        cell.parts.append(
            Part(
                attack=attack,
                correct=robust,
                gradient_steps=effort.gradient_steps,
                forwards=effort.forwards,
                seconds=tally.seconds,
            )
        )
        cell.warnings = list(dict.fromkeys([*cell.warnings, *checks.of_search(tally, self.column.attack)]))
        if len(self.attacks) > 1:
            yield self._progress(outcomes, place, Reached(self._total, robust, 1.0))

    def _driven(self, live: LiveExamples, outcomes: Outcomes, place: int) -> Iterator[Event]:
        """Drive an attack to its end; steps, now and then progress, and the state on disk."""
        tally, started = live.tally, time.perf_counter()
        before, shown, saved = tally.seconds, started, 0.0
        for reached in in_step(live.run(), tally):
            now = time.perf_counter()
            tally.seconds = before + now - started
            if now - shown > SHOWN_EVERY:
                shown = now
                yield self._progress(outcomes, place, reached)
            if reached.seconds - saved > SAVED_EVERY:
                saved = reached.seconds
                self.save()
            yield self.step(self._share(place, reached))

    def _share(self, place: int, reached: Reached) -> float:
        """Of the work of this cell that is done, 0-1."""
        return (place + reached.share) / len(self.attacks)

    def _progress(self, outcomes: Outcomes, place: int, reached: Reached) -> Progress:
        return Progress(
            model=self.tested.name,
            attack=self.column.name,
            done=reached.decided,
            total=self._total,
            robust_so_far=reached.robust - (self._total - reached.decided),
            part=self.attacks[place],
            parts=outcomes.cell.parts,
            share=self._share(place, reached),
        )


def seed_draws(seed: int, purpose: str) -> None:
    """Begin the draws that a network with random answers makes: those of a repeated run are the same.

    Such a network draws for a batch as a whole, from torch's own generator, so its draws cannot belong to examples.
    """
    torch.manual_seed(int(keyed_random.keys(seed, torch.tensor([distributed.rank()]), purpose)))
