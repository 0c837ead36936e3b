"""The scheduler of live examples: batches that stay full, because what is decided leaves and the next takes its place.

Every batch has the same shape, filled up with copies where examples run out: then the convolution library treats an
example alike whatever its neighbours are, and what is found for it does not depend on them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
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

COUNTS = ("gradient_steps", "forwards", "outside", "not_finite", "mute", "unconfirmed")
"""What is counted of every attempt, see Found."""

PATIENCE = 10
"""Steps after which a point that the search calls broken is judged, even if few others wait."""

CONTINUATION = 0.1
"""Share of the steps that `strike` makes on the exact network where that does not confirm what a search found."""


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
    """What an attack has found so far: who withstands it (N,) bool, which attempts (N,A) bool are behind, and what each
    of these took and met, `counted` (N,A,6), by the names in COUNTS.

    `outside` points left the ball or the box and were not counted; of `not_finite` points the answer was no number;
    `mute` first gradients were zero or not finite; `unconfirmed` points fooled the network that searched, but not the
    exact one. Counted are the attempts up to the first that broke the example, where `fell` (N,A) bool: attempts in
    flight, and those that were begun because a slot was free, depend on where an engine was stopped.
    """

    robust: np.ndarray
    tried: np.ndarray
    fell: np.ndarray
    counted: np.ndarray
    seconds: float = 0.0

    @classmethod
    def nothing(cls, right: np.ndarray, attempts: int) -> Found:
        """Before the attack on the examples that are `right` (N,) bool."""
        no = np.zeros((len(right), attempts), dtype=bool)
        return cls(right.copy(), no, no.copy(), np.zeros((*no.shape, len(COUNTS)), dtype=np.int32))

    @property
    def effort(self) -> Effort:
        """What was asked of the networks."""
        return Effort(self.count("gradient_steps"), self.count("forwards"))

    @property
    def begun(self) -> int:
        """Attempts that count."""
        return int(self._counting.sum())

    def count(self, name: str) -> int:
        """The sum of one of COUNTS."""
        return int(self.counted[self._counting, COUNTS.index(name)].sum(dtype=np.int64))

    def moot(self, example: np.ndarray, attempt: np.ndarray) -> np.ndarray:
        """Whether an attempt (K,) at an example (K,) counts no more, because an earlier one broke it: (K,) bool."""
        fell = self.fell[example]
        moot: np.ndarray = fell.any(1) & (fell.argmax(1) < attempt)
        return moot

    @property
    def _counting(self) -> np.ndarray:
        earlier = np.cumsum(self.fell, axis=1) - self.fell > 0
        counting: np.ndarray = self.tried & ~earlier
        return counting

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
    counted: list[np.ndarray] = field(default_factory=list)
    points: list[Tensor] = field(default_factory=list)
    since: int = 0

    def __len__(self) -> int:
        return len(self.example)


class LiveExamples:
    """One attack on the examples that `found` calls robust.

    `search` asks `oracle`; a point counts only if `exact`, the fp32 network that is tested, is wrong there and the
    point lies in ball and box. What a search in a smaller format (`lossy`) did not break, and what `exact` did not
    confirm, is searched further on `exact` for the share `continuation` of the steps. Where an attack is defined by its
    steps, a lossy search leaves it these steps, so that there are as many as it says. With `transfer` the oracle is
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
        self._added = 0 if transfer else ceil(continuation * search.steps)
        if lossy and search.counted:
            self._added = min(self._added, search.steps - 1)
            search = replace(search, steps=search.steps - self._added)
        self.search, self.oracle, self.exact = search, oracle, exact
        self._effort = oracle.effort = exact.effort = Effort()
        self._seen = np.zeros(2, dtype=np.int64)  # of it, gradient steps and forwards that have been laid to examples
        self.images, self.clean, self.found = images, clean, found
        self._compute, self._slots = compute, slots
        self._lossy, self._transfer = lossy, transfer
        self.points: Tensor | None = None
        """With `keep`, the point handed over for each example (N,C,H,W): a misclassified one where there is any."""
        if keep:
            self.points = images.take(torch.arange(len(images), device=images.labels.device), compute).x
        self._example = np.full(slots, -1)  # -1: the slot is free
        self._attempt = np.zeros(slots, dtype=np.int64)
        self._age = np.zeros(slots, dtype=np.int64)
        self._counted = np.zeros((slots, len(COUNTS)), dtype=np.int32)  # of the attempts at work
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
                for _ in self._decide(ended):
                    yield self.found.decided
                ended = _Ended()
            elif idle:
                return
            round_ += 1
            yield self.found.decided

    def _jobs(self) -> Iterator[tuple[int, int]]:
        """First attempts first, so that examples that fall early cost no later ones.

        An attempt that was in flight when a later one broke the example is made all the same: it counts.
        """
        found = self.found
        stood = found.robust | found.fell.any(1)
        for attempt in range(self.search.attempts):
            for example in np.flatnonzero(stood & ~found.tried[:, attempt]):
                if not found.fell[example, :attempt].any():
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
        self._counted[slots] = 0
        begun = self.search.begin(self._given(self._example[slots], self._attempt[slots]))
        self._counted[slots, :2] += self._asked(len(slots))
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
        self._counted[busy, :2] += self._asked(self.oracle.live)
        self._age += 1
        first = busy & (self._age == 1)
        if first.any():
            self._counted[first, COUNTS.index("mute")] += self._state["mute"].cpu().numpy()[first]
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
        ended.counted.append(self._counted[slots])
        ended.points.append(self._state["best"][rows])
        self._example[slots] = -1

    def _decide(self, ended: _Ended) -> Iterator[None]:
        """Judge what has ended, by compute shapes, and free the slots of what is broken; hands over between steps."""
        points = torch.cat(ended.points)
        example, attempt = np.array(ended.example), np.array(ended.attempt)
        claimed, counted = np.array(ended.claimed), np.concatenate(ended.counted)
        for start in range(0, len(example), self._slots):
            part = slice(start, start + self._slots)
            yield from self._decide_part(example[part], attempt[part], claimed[part], counted[part], points[part])
        self._example[(self._example >= 0) & self.found.moot(self._example, self._attempt)] = -1

    def _decide_part(
        self, example: np.ndarray, attempt: np.ndarray, claimed: np.ndarray, counted: np.ndarray, points: Tensor
    ) -> Iterator[None]:
        right, met = self._judge(example, points)
        counted += met
        if not self._transfer:
            doubtful = right & claimed
            counted[:, COUNTS.index("unconfirmed")] += doubtful
            again = np.flatnonzero((doubtful | (right & self._lossy)) & ~self.found.moot(example, attempt))
            if len(again) and self._added:
                rows = torch.from_numpy(again).to(points.device)
                points[rows], asked = yield from self._go_on(example[again], attempt[again], points[rows])
                right[again], met = self._judge(example[again], points[rows])
                counted[again] += asked + met
        if self.points is not None:
            news = torch.from_numpy(np.flatnonzero(self.found.robust[example]))
            self.points[torch.from_numpy(example)[news]] = points[news]
        self.found.tried[example, attempt] = True
        self.found.counted[example, attempt] = counted
        self.found.fell[example, attempt] = ~right
        self.found.robust[example[~right]] = False

    def _asked(self, examples: int) -> np.ndarray:
        """Gradient steps and forwards (2,) of each of so many examples, all asked alike, since the last look."""
        now = np.array([self._effort.gradient_steps, self._effort.forwards])
        asked: np.ndarray = (now - self._seen) // examples
        self._seen = now
        return asked

    def _judge(self, example: np.ndarray, points: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Whether the exact network still withstands at these points (N,), and what to count (N,6).

        It does where it is right, or where they are not allowed.
        """
        batch = self.images.take(torch.from_numpy(example).to(points.device), self._compute)
        z = padded(self.exact, points, self._slots)
        inside = self.search.ball.contains(points, batch.x)
        met = np.zeros((len(example), len(COUNTS)), dtype=np.int32)
        met[:, :2] = self._asked(len(example))
        met[:, COUNTS.index("outside")] = (~inside).cpu().numpy()
        met[:, COUNTS.index("not_finite")] = (~z.isfinite().all(1)).cpu().numpy()
        return (~wrong(z, batch.y) | ~inside).cpu().numpy(), met

    def _go_on(
        self, example: np.ndarray, attempt: np.ndarray, points: Tensor
    ) -> Generator[None, None, tuple[Tensor, np.ndarray]]:
        """Where a finer search by the exact network ends, from these points (N,C,H,W) on, and what to count (N,6)."""
        counted = np.zeros((len(example), len(COUNTS)), dtype=np.int32)
        search = self.search.continued(self._added)
        state = search.begin(self._given(example, attempt) | {"start": points})
        counted[:, :2] += self._asked(len(example))
        state = {name: _fill(value, self._slots) for name, value in state.items()}
        handed = state["best"]
        settled = torch.zeros_like(state["done"])
        while not bool(settled[: len(points)].all()):
            going = (~settled[: len(points)]).cpu().numpy()
            self.exact.live = int(going.sum())
            state = search.advance(state, self.exact)
            counted[going, :2] += self._asked(self.exact.live)
            newly = state["done"] & ~settled
            handed = torch.where(newly.view(-1, *([1] * (handed.dim() - 1))), state["best"], handed)
            settled = settled | state["done"]
            yield
        return handed[: len(points)], counted


def striking(
    search: Search, model: nn.Module, images: Images, compute: Compute, slots: int, oracle: Oracle | None = None
) -> Generator[None, None, LiveExamples]:
    """One attack from its beginning to its end, on a model in eval mode; `found` and `points` of the result tell.

    `oracle` is the network that searches if it is not the model as it is. Hands over between any two steps.
    """
    exact = exact_oracle(model, compute)
    clean = yield from answering_clean(exact, images, compute, slots, search.attempts + 1)
    found = Found.nothing(clean.right, search.attempts)
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
