"""The scheduler of live examples: batches that stay full, because a decided example leaves its slot to the next.

Every batch has the same shape, filled up with copies where examples run out. The convolution library then treats an
example alike whatever its neighbours are, so the outcome of an example does not depend on them.

Shapes in the comments: S slots (the compute shape), N examples, A attempts at each of them, K attempts taken together,
6 counts, images (C,H,W). Arrays of numpy are on the host, tensors on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

import numpy as np
import torch
from torch import Tensor

from engine.attacks.clean import Examples
from engine.attacks.queries import Effort, Oracles, filled
from engine.attacks.search import Search, State, rows, wrong
from engine.attacks.tally import ASKED, COUNTS, MUTE, NOT_FINITE, OUTSIDE, UNCONFIRMED, Attempts, Queue, Tally

PATIENCE = 10
"""Steps after which a point that the search calls broken is judged, even if few others wait."""


class _Meter:
    """Splits what both networks were asked among the examples that they were asked about."""

    def __init__(self, oracles: Oracles) -> None:
        self._effort = oracles.searching.effort = oracles.exact.effort = Effort()
        self._split = np.zeros(2, dtype=np.int64)  # gradient steps and forwards that examples have been charged for

    def per_example(self, examples: int) -> np.ndarray:
        """Gradient steps and forwards (2,) since the last call for each of so many examples, all asked alike."""
        total = np.array([self._effort.gradient_steps, self._effort.forwards])
        each: np.ndarray = (total - self._split) // examples
        self._split = total
        return each


class LiveExamples:
    """One attack on the examples that `tally` calls robust.

    `search` asks the searching network; a point counts only if the exact one, the fp32 network that is tested, is wrong
    there and the point lies in ball and box. What a search in a smaller number format did not break, and what the exact
    network did not confirm, is searched further on the exact network for the share `continuation` of the steps. An
    attack that is defined by its steps gets no additional ones: the exact network makes all that remain, and a search
    in a smaller format leaves it that share at least. In a transfer nothing is searched further.
    """

    def __init__(
        self,
        search: Search,
        oracles: Oracles,
        examples: Examples,
        tally: Tally,
        *,
        continuation: float = 0.0,
        keep_points: bool = False,
    ) -> None:
        self._exact_steps = 0 if oracles.transfer else ceil(continuation * search.steps)
        self._full_search = search
        if oracles.lossy and search.defined_by_steps:
            search = replace(search, steps=max(search.steps - self._exact_steps, 1))
        self.search, self.oracles, self.examples, self.tally = search, oracles, examples, tally
        self._meter = _Meter(oracles)
        self.points: Tensor | None = None
        """With `keep_points`, the point handed over for each example (N,C,H,W): a misclassified one if there is any."""
        if keep_points:
            images = examples.images
            self.points = images.take(torch.arange(len(images), device=images.labels.device), examples.compute).x
        # What each slot works on, (S,) and (S,6). The state holds the same slots as tensors, with S rows.
        slots = examples.slots
        self._example = np.full(slots, -1)  # -1: the slot is free
        self._attempt = np.zeros(slots, dtype=np.int64)
        self._age = np.zeros(slots, dtype=np.int64)  # steps made
        self._counts = np.zeros((slots, len(COUNTS)), dtype=np.int32)
        self._state: State = {}
        # What the exact network is to search further. Both kinds wait for a full batch of their own: what it did not
        # confirm may have more steps to go than what no network calls broken.
        self._unconfirmed, self._unbroken = Queue(), Queue()

    def run(self) -> Iterator[int]:
        """Work until nothing remains. Yields between any two steps how many examples are decided."""
        slots = self.examples.slots
        jobs = self._jobs()  # pairs (example, attempt) in the order in which slots take them
        finished = Queue()  # attempts whose search has ended, to be judged by the exact network
        round_ = waiting_since = 0
        while True:
            # 1. Every free slot takes the next job, so that all S rows of the batch are live while jobs remain.
            self._admit(jobs)
            busy = self._example >= 0  # (S,) bool
            # 2. One step of the search for all S rows: one question to the searching network. Rows that end with it
            #    go to `finished` and free their slots.
            if busy.any():
                if not finished:
                    waiting_since = round_
                self._advance(busy, finished)
            idle = not (self._example >= 0).any()  # no attempt is in flight: nothing to wait for
            # 3. One question to the exact network, about S attempts too. It may be about fewer if one of them seems to
            #    have broken its example and waits for PATIENCE rounds: once confirmed, that frees slots.
            late = finished.any_claimed and round_ - waiting_since >= PATIENCE
            if len(finished) >= slots or (finished and (late or idle)):
                self._decide(finished.take(slots))
            # 4. Else a full batch of attempts is searched further, on the exact network and to their ends.
            elif (queue := self._full_queue(idle)) is not None:
                for _ in self._continue_exactly(queue.take(slots)):
                    yield self.tally.decided
            elif idle:
                return
            round_ += 1
            yield self.tally.decided

    def _full_queue(self, idle: bool) -> Queue | None:
        """A queue that fills a batch, or that is all there is; None if the others can wait."""
        for queue in (self._unconfirmed, self._unbroken):
            if len(queue) >= self.examples.slots or (queue and idle):
                return queue
        return None

    def _jobs(self) -> Iterator[tuple[int, int]]:
        """First attempts first, so that examples that break early cost no later ones.

        An attempt that was in flight when a later one broke the example is made all the same: it counts.
        """
        tally = self.tally
        attacked = tally.robust | tally.broken.any(1)  # (N,) bool: what this attack was begun on
        for attempt in range(self.search.attempts):
            for example in np.flatnonzero(attacked & ~tally.attempted[:, attempt]):
                if not tally.broken[example, :attempt].any():
                    yield int(example), attempt

    def _admit(self, jobs: Iterator[tuple[int, int]]) -> None:
        """Put the next jobs into the free slots."""
        free = np.flatnonzero(self._example < 0)
        taken = [job for _, job in zip(free, jobs, strict=False)] if len(free) else []
        if not taken:
            return
        slots = free[: len(taken)]  # (K,) slots that get one of K jobs
        self._example[slots], self._attempt[slots] = zip(*taken, strict=True)
        self._age[slots] = 0
        self._counts[slots] = 0
        begun = self.search.begin(self._given(self._example[slots], self._attempt[slots]))  # tensors of K rows
        self._counts[slots, ASKED] += self._meter.per_example(len(slots))
        if not self._state:  # the first jobs: K rows become S, which later jobs write over
            self._state = {name: filled(value, self.examples.slots).clone() for name, value in begun.items()}
            return
        at = torch.from_numpy(slots).to(self.examples.compute.device)  # (K,)
        for name, value in begun.items():
            self._state[name][at] = value

    def _given(self, example: np.ndarray, attempt: np.ndarray) -> State:
        """What is known of attempts (K,) at examples (K,) before their search begins, K rows each."""
        compute, clean = self.examples.compute, self.examples.clean
        at = torch.from_numpy(example).to(compute.device)  # (K,)
        batch = self.examples.images.take(at, compute)
        state = {
            "x": batch.x,  # (K,C,H,W)
            "y": batch.y,  # (K,)
            "index": batch.index,  # (K,), in the data set: what random draws are keyed by
            "attempt": torch.from_numpy(attempt).to(compute.device),  # (K,)
            "ranking": clean.ranking[at],  # (K,T)
        }
        if self.search.needs_clean:
            state["clean"] = self.oracles.exact.padded_logits(batch.x, self.examples.slots)  # (K, classes)
        return state

    def _advance(self, busy: np.ndarray, finished: Queue) -> None:
        """One step of the rows that are busy (S,) bool; those that end with it free their slots."""
        oracle = self.oracles.searching
        oracle.live = int(busy.sum())  # the question has S rows, of which so many are examples
        self._state = self.search.advance(self._state, oracle)
        self._counts[busy, ASKED] += self._meter.per_example(oracle.live)
        self._age += 1
        first = busy & (self._age == 1)  # (S,) bool
        if first.any():
            self._counts[first, MUTE] += self._state["mute"].cpu().numpy()[first]
        done = self._state["done"].cpu().numpy() & busy  # (S,) bool
        if not done.any():
            return
        slots = np.flatnonzero(done)  # (K,)
        at = torch.from_numpy(slots).to(self.examples.compute.device)
        finished.add(
            Attempts(
                self._example[slots],
                self._attempt[slots],
                self._age[slots],
                self._state["broken"][at].cpu().numpy(),  # (K,): what the searching network claims
                self._counts[slots],
                self._state["best"][at],  # (K,C,H,W): the points to be judged
            )
        )
        self._example[slots] = -1

    def _decide(self, finished: Attempts) -> None:
        """Judge K attempts that have ended; those to be searched further wait for others, to fill a batch too."""
        right, counts = self._judge(finished.example, finished.points)  # (K,) bool and (K,6)
        finished.counts += counts
        further = np.zeros_like(right)  # (K,) bool: what is not decided yet
        if not self.oracles.transfer:
            unconfirmed = right & finished.claimed  # (K,) bool: only the searching network is wrong there
            finished.counts[:, UNCONFIRMED] += unconfirmed
            if self._exact_steps:
                # A search in fp32 that broke nothing has made all its steps; in a smaller format it may have missed.
                missed = right & self.oracles.lossy & ~finished.claimed
                wanted = ~self.tally.superseded(finished.example, finished.attempt)
                self._unconfirmed.add(finished.rows(unconfirmed & wanted))
                self._unbroken.add(finished.rows(missed & wanted))
                further = (unconfirmed | missed) & wanted
        self._settle(finished.rows(~further), right[~further])

    def _settle(self, decided: Attempts, right: np.ndarray) -> None:
        """Write K attempts into the tally, where the exact network is `right` (K,) bool or the example is broken."""
        tally, example = self.tally, decided.example
        if self.points is not None:
            standing = tally.robust[example]  # (K,) bool; of the others the point that broke them is kept
            for chosen in (standing & right, standing & ~right):  # a point that breaks an example is written last
                some = decided.rows(chosen)
                self.points[torch.from_numpy(some.example).to(some.points.device)] = some.points
        tally.attempted[example, decided.attempt] = True
        tally.counts[example, decided.attempt] = decided.counts
        tally.broken[example, decided.attempt] = ~right
        tally.robust[example[~right]] = False
        # Slots whose attempt comes after one that broke the example are free for the next jobs.
        self._example[(self._example >= 0) & tally.superseded(self._example, self._attempt)] = -1

    def _judge(self, example: np.ndarray, points: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Whether K examples withstand the points (K,C,H,W) on the exact network, (K,) bool, and the counts (K,6).

        They do where it is right, and where the point is not allowed.
        """
        at = torch.from_numpy(example).to(points.device)
        batch = self.examples.images.take(at, self.examples.compute)
        z = self.oracles.exact.padded_logits(points, self.examples.slots)  # (K, classes)
        inside = self.search.ball.contains(points, batch.x)  # (K,) bool
        counts = np.zeros((len(example), len(COUNTS)), dtype=np.int32)
        counts[:, ASKED] = self._meter.per_example(len(example))
        counts[:, OUTSIDE] = (~inside).cpu().numpy()
        counts[:, NOT_FINITE] = (~z.isfinite().all(1)).cpu().numpy()
        return (~wrong(z, batch.y) | ~inside).cpu().numpy(), counts

    def _continue_exactly(self, attempts: Attempts) -> Iterator[None]:
        """Search K <= S attempts further on the exact network, from their points, until all have ended; settle them."""
        attempts = attempts.rows(~self.tally.superseded(attempts.example, attempts.attempt))
        live, slots, exact = len(attempts), self.examples.slots, self.oracles.exact
        if not live:
            return
        # An attack that is defined by its steps makes all that remain of them; another one gets additional steps.
        full = self._full_search
        search = full if full.defined_by_steps else full.continued(self._exact_steps)
        state = search.begin(self._given(attempts.example, attempts.attempt) | {"start": attempts.points})  # K rows
        if search.defined_by_steps:
            state["step"] = torch.from_numpy(attempts.steps).to(attempts.points.device)  # (K,): how many are made
        attempts.counts[:, ASKED] += self._meter.per_example(live)
        state = {name: filled(value, slots) for name, value in state.items()}  # S rows: the one compute shape
        points = state["best"]  # (S,C,H,W): what each row handed over when it ended
        ended = torch.zeros_like(state["done"])  # (S,) bool
        while not bool(ended[:live].all()):
            going = (~ended[:live]).cpu().numpy()  # (K,) bool: rows that this step is for, and charged to
            exact.live = int(going.sum())
            state = search.advance(state, exact)
            attempts.counts[going, ASKED] += self._meter.per_example(exact.live)
            # Rows that have ended are advanced with the others, so the point is kept from the step that ended them.
            points = rows(state["done"] & ~ended, state["best"], points)
            ended = ended | state["done"]
            yield
        attempts.points = points[:live]  # (K,C,H,W)
        right, counts = self._judge(attempts.example, attempts.points)
        attempts.counts += counts
        self._settle(attempts, right)
