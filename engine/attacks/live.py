"""The scheduler of live examples: batches that stay full, because what is decided leaves and the next takes its place.

Every batch has the same shape, filled up with copies where examples run out: then the convolution library treats an
example alike whatever its neighbours are, and what is found for it does not depend on them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from engine.attacks.oracle import Effort, Oracle, exact_oracle
from engine.attacks.search import Search, State, wrong
from engine.data import Images
from engine.device import Compute

T = TypeVar("T")

PATIENCE = 10
"""Steps after which a point that the search calls broken is judged, even if few others wait."""

CONTINUATION = 0.1
"""Share of the steps that `strike` adds on the exact network where that does not confirm what a search found."""


@dataclass
class Clean:
    """The exact network's answers to the clean images: which are right (N,) bool, and the likeliest classes (N,T)."""

    right: np.ndarray
    ranking: Tensor
    not_finite: int = 0


def answering_clean(
    exact: Oracle, images: Images, compute: Compute, slots: int, ranked: int
) -> Generator[None, None, Clean]:
    """Ask about every clean image once, `slots` at a time, and keep the `ranked` likeliest classes of each answer.

    Hands over after each batch, so that a stop need not wait for all of them.
    """
    right, ranking, not_finite = [], [], 0
    for batch in images.batches(slots, compute):
        z = padded(exact, batch.x, slots)
        right.append(~wrong(z, batch.y))
        not_finite += int((~z.isfinite().all(1)).sum())
        ranking.append(z.nan_to_num().topk(min(ranked, z.shape[1]), dim=1).indices)
        yield
    return Clean(torch.cat(right).cpu().numpy(), torch.cat(ranking), not_finite)


def answer_clean(exact: Oracle, images: Images, compute: Compute, slots: int, ranked: int) -> Clean:
    """`answering_clean`, in one go."""
    return _outcome(answering_clean(exact, images, compute, slots, ranked))


def _outcome(course: Generator[None, None, T]) -> T:
    """What a course comes to, in one go."""
    while True:
        try:
            next(course)
        except StopIteration as end:
            outcome: T = end.value
            return outcome


def padded(oracle: Oracle, x: Tensor, slots: int) -> Tensor:
    """The logits (N,K) of N <= slots images, asked for in the one compute shape."""
    oracle.live = len(x)
    return oracle.logits(_fill(x, slots))[: len(x)]


def _fill(value: Tensor, slots: int) -> Tensor:
    """With copies of the first row up to `slots` rows."""
    missing = slots - len(value)
    return torch.cat([value, value[:1].expand(missing, *value.shape[1:])]) if missing else value


@dataclass
class Found:
    """What an attack has found so far: who withstands it (N,) bool, which attempts (N,A) bool are behind, and counts.

    `outside` points left the ball or the box and were not counted; of `not_finite` points the answer was no number;
    `mute` first gradients were zero or not finite, out of `begun` attempts; `unconfirmed` points fooled the network
    that searched, but not the exact one. `effort` and `seconds` are what it took.
    """

    robust: np.ndarray
    tried: np.ndarray
    outside: int = 0
    not_finite: int = 0
    mute: int = 0
    begun: int = 0
    unconfirmed: int = 0
    seconds: float = 0.0
    effort: Effort = field(default_factory=Effort)

    @property
    def share(self) -> float:
        """Of the work that is behind, 0-1: broken examples need no more attempts."""
        left = (self.robust[:, None] & ~self.tried).sum()
        return 1.0 - float(left) / max(self.tried.size, 1)

    @property
    def decided(self) -> int:
        """Examples that are broken or have withstood every attempt."""
        return int((~self.robust | self.tried.all(1)).sum())


@dataclass
class _Ended:
    """Attempts that have ended and wait to be judged."""

    example: list[int] = field(default_factory=list)
    attempt: list[int] = field(default_factory=list)
    claimed: list[bool] = field(default_factory=list)
    points: list[Tensor] = field(default_factory=list)
    since: int = 0

    def __len__(self) -> int:
        return len(self.example)


class LiveExamples:
    """One attack on the examples that `found` calls robust.

    `search` asks `oracle`; a point counts only if `exact`, the fp32 network that is tested, is wrong there and the
    point lies in ball and box. What a search in a smaller format (`lossy`) did not break, and what `exact` did not
    confirm, is searched further on `exact` for the share `continuation` of the steps. With `transfer` the oracle is
    another network, and only its points count.
    """

    def __init__(
        self,
        search: Search,
        oracle: Oracle,
        exact: Oracle,
        images: Images,
        clean: Clean,
        found: Found,
        compute: Compute,
        slots: int,
        *,
        lossy: bool = False,
        continuation: float = 0.0,
        transfer: bool = False,
        keep: bool = False,
    ) -> None:
        self.search, self.oracle, self.exact = search, oracle, exact
        oracle.effort = exact.effort = found.effort
        self.images, self.clean, self.found = images, clean, found
        self._compute, self._slots = compute, slots
        self._lossy, self._continuation, self._transfer = lossy, continuation, transfer
        self.points: Tensor | None = None
        """With `keep`, the point handed over for each example (N,C,H,W): a misclassified one where there is any."""
        if keep:
            self.points = images.take(torch.arange(len(images), device=images.labels.device), compute).x
        self._example = np.full(slots, -1)  # -1: the slot is free
        self._attempt = np.zeros(slots, dtype=np.int64)
        self._age = np.zeros(slots, dtype=np.int64)
        self._state: State = {}

    def run(self) -> Iterator[int]:
        """Work until nothing is left, and hand over between any two steps; yields how many examples are decided."""
        jobs, ended, round_ = self._jobs(), _Ended(), 0
        while True:
            self._admit(jobs)
            busy = self._example >= 0
            if busy.any():
                self._advance(busy, ended, round_)
            idle = not (self._example >= 0).any()
            late = any(ended.claimed) and round_ - ended.since >= PATIENCE
            if len(ended) >= self._slots or (ended and (late or idle)):
                self._decide(ended)
                ended = _Ended()
            elif idle:
                return
            round_ += 1
            yield self.found.decided

    def _jobs(self) -> Iterator[tuple[int, int]]:
        """First attempts first, so that examples that fall early cost no later ones."""
        for attempt in range(self.search.attempts):
            for example in np.flatnonzero(self.found.robust & ~self.found.tried[:, attempt]):
                if self.found.robust[example]:
                    yield int(example), attempt

    def _admit(self, jobs: Iterator[tuple[int, int]]) -> None:
        """Put the next jobs into the free slots."""
        free = np.flatnonzero(self._example < 0)
        taken = [job for _, job in zip(free, jobs, strict=False)] if len(free) else []
        if not taken:
            return
        slots = free[: len(taken)]
        self._example[slots], self._attempt[slots] = zip(*taken, strict=True)
        self._age[slots] = 0
        self.found.begun += len(taken)
        begun = self.search.begin(self._given(self._example[slots], self._attempt[slots]))
        if not self._state:
            self._state = {name: _fill(value, self._slots).clone() for name, value in begun.items()}
            return
        rows = torch.from_numpy(slots).to(self._compute.device)
        for name, value in begun.items():
            self._state[name][rows] = value

    def _given(self, example: np.ndarray, attempt: np.ndarray) -> State:
        """What is known of examples before a search begins."""
        device = self._compute.device
        rows = torch.from_numpy(example).to(device)
        batch = self.images.take(rows, self._compute)
        state = {
            "x": batch.x,
            "y": batch.y,
            "index": batch.index,
            "attempt": torch.from_numpy(attempt).to(device),
            "ranking": self.clean.ranking[rows],
        }
        if self.search.needs_clean:
            state["clean"] = padded(self.exact, batch.x, self._slots)
        return state

    def _advance(self, busy: np.ndarray, ended: _Ended, round_: int) -> None:
        self.oracle.live = int(busy.sum())
        self._state = self.search.advance(self._state, self.oracle)
        self._age += 1
        first = busy & (self._age == 1)
        if first.any():
            self.found.mute += int((self._state["mute"].cpu().numpy() & first).sum())
        done = self._state["done"].cpu().numpy() & busy
        if not done.any():
            return
        slots = np.flatnonzero(done)
        rows = torch.from_numpy(slots).to(self._compute.device)
        if not len(ended):
            ended.since = round_
        ended.example += self._example[slots].tolist()
        ended.attempt += self._attempt[slots].tolist()
        ended.claimed += self._state["broken"][rows].cpu().tolist()
        ended.points.append(self._state["best"][rows])
        self._example[slots] = -1

    def _decide(self, ended: _Ended) -> None:
        """Judge what has ended, by compute shapes, and free the slots of what is broken."""
        points = torch.cat(ended.points)
        example, attempt = np.array(ended.example), np.array(ended.attempt)
        claimed = np.array(ended.claimed)
        for start in range(0, len(example), self._slots):
            part = slice(start, start + self._slots)
            self._decide_part(example[part], attempt[part], claimed[part], points[part])
        gone = (self._example >= 0) & ~self.found.robust[self._example]
        self._example[gone] = -1

    def _decide_part(self, example: np.ndarray, attempt: np.ndarray, claimed: np.ndarray, points: Tensor) -> None:
        right = self._judge(example, points)
        if not self._transfer:
            doubtful = right & claimed
            self.found.unconfirmed += int(doubtful.sum())
            again = np.flatnonzero((doubtful | (right & self._lossy)) & self.found.robust[example])
            steps = ceil(self._continuation * self.search.steps)
            if len(again) and steps:
                rows = torch.from_numpy(again).to(points.device)
                points[rows] = self._go_on(example[again], attempt[again], points[rows], steps)
                right[again] = self._judge(example[again], points[rows])
        if self.points is not None:
            news = torch.from_numpy(np.flatnonzero(self.found.robust[example]))
            self.points[torch.from_numpy(example)[news]] = points[news]
        self.found.tried[example, attempt] = True
        self.found.robust[example[~right]] = False

    def _judge(self, example: np.ndarray, points: Tensor) -> np.ndarray:
        """Whether the exact network still withstands at these points: right there, or they are not allowed."""
        batch = self.images.take(torch.from_numpy(example).to(points.device), self._compute)
        z = padded(self.exact, points, self._slots)
        inside = self.search.ball.contains(points, batch.x)
        self.found.outside += int((~inside).sum())
        self.found.not_finite += int((~z.isfinite().all(1)).sum())
        right: np.ndarray = (~wrong(z, batch.y) | ~inside).cpu().numpy()
        return right

    def _go_on(self, example: np.ndarray, attempt: np.ndarray, points: Tensor, steps: int) -> Tensor:
        """Where a finer search by the exact network ends, from these points on."""
        search = self.search.continued(steps)
        state = search.begin(self._given(example, attempt) | {"start": points})
        state = {name: _fill(value, self._slots) for name, value in state.items()}
        handed = state["best"]
        settled = torch.zeros_like(state["done"])
        while not bool(settled[: len(points)].all()):
            self.exact.live = int((~settled[: len(points)]).sum())
            state = search.advance(state, self.exact)
            newly = state["done"] & ~settled
            handed = torch.where(newly.view(-1, *([1] * (handed.dim() - 1))), state["best"], handed)
            settled = settled | state["done"]
        return handed[: len(points)]


def striking(
    search: Search, model: nn.Module, images: Images, compute: Compute, slots: int, oracle: Oracle | None = None
) -> Generator[None, None, LiveExamples]:
    """One attack from its beginning to its end, on a model in eval mode; `found` and `points` of the result tell.

    `oracle` is the network that searches if it is not the model as it is. Hands over between any two steps.
    """
    exact = exact_oracle(model, compute)
    clean = yield from answering_clean(exact, images, compute, slots, search.attempts + 1)
    found = Found(clean.right.copy(), np.zeros((len(images), search.attempts), dtype=bool))
    live = LiveExamples(
        search, oracle or exact, exact, images, clean, found, compute, slots, continuation=CONTINUATION, keep=True
    )
    for _ in live.run():
        yield
    return live


def strike(
    search: Search, model: nn.Module, images: Images, compute: Compute, slots: int, oracle: Oracle | None = None
) -> LiveExamples:
    """`striking`, in one go."""
    return _outcome(striking(search, model, images, compute, slots, oracle))
