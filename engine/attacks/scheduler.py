"""The scheduler of live examples: batches that stay full, because what is decided leaves and the next takes its place.

Every batch has the same shape, filled up with copies where examples run out: then the convolution library treats an
example alike whatever its neighbours are, and what is found for it does not depend on them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from engine.attacks.queries import Effort, Oracle, exact_oracle
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
class _Attempts:
    """Attempts (K) that have ended: at which examples, after how many steps, whether the network asked was wrong, what
    is counted of them (K,6), and the points (K,C,H,W) that they hand over."""

    example: np.ndarray
    attempt: np.ndarray
    steps: np.ndarray
    claimed: np.ndarray
    counted: np.ndarray
    points: Tensor

    def __len__(self) -> int:
        return len(self.example)

    def rows(self, chosen: np.ndarray) -> _Attempts:
        """Those that are chosen (K,) bool, in their order."""
        points = self.points[torch.from_numpy(chosen).to(self.points.device)]
        return _Attempts(
            self.example[chosen],
            self.attempt[chosen],
            self.steps[chosen],
            self.claimed[chosen],
            self.counted[chosen],
            points,
        )


class _Pile:
    """Attempts that wait for something until there are enough of them."""

    def __init__(self) -> None:
        self._parts: list[_Attempts] = []

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def claimed(self) -> bool:
        """Whether the network asked was wrong at one of them."""
        return any(part.claimed.any() for part in self._parts)

    def add(self, attempts: _Attempts) -> None:
        """Behind the others."""
        if len(attempts):
            self._parts.append(attempts)

    def take(self, count: int) -> _Attempts:
        """The first `count` of them, or all, if there is one at least."""
        parts = self._parts
        whole = _Attempts(
            np.concatenate([part.example for part in parts]),
            np.concatenate([part.attempt for part in parts]),
            np.concatenate([part.steps for part in parts]),
            np.concatenate([part.claimed for part in parts]),
            np.concatenate([part.counted for part in parts]),
            torch.cat([part.points for part in parts]),
        )
        taken = np.arange(len(whole)) < count
        self._parts = []
        self.add(whole.rows(~taken))
        return whole.rows(taken)


class LiveExamples:
    """One attack on the examples that `found` calls robust.

    `search` asks `oracle`; a point counts only if `exact`, the fp32 network that is tested, is wrong there and the
    point lies in ball and box. What a search in a smaller format (`lossy`) did not break, and what `exact` did not
    confirm, is searched further on `exact` for the share `continuation` of the steps. Where an attack is defined by its
    steps none are added: `exact` makes all that are left, and a lossy search leaves it that share at least. With
    `transfer` the oracle is another network, and only its points count.
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
        self._whole = search
        if lossy and search.counted:
            search = replace(search, steps=max(search.steps - self._added, 1))
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
        self._further = _Pile(), _Pile()
        """What the exact network is to search on: what it did not confirm, which may have more steps to go, and what
        was not broken."""

    def run(self) -> Iterator[int]:
        """Work until nothing is left, and hand over between any two steps; yields how many examples are decided."""
        jobs, ended, round_, since = self._jobs(), _Pile(), 0, 0
        while True:
            self._admit(jobs)
            busy = self._example >= 0
            if busy.any():
                since = since if ended else round_
                self._advance(busy, ended)
            idle = not (self._example >= 0).any()
            late = ended.claimed and round_ - since >= PATIENCE
            further = next((pile for pile in self._further if len(pile) >= self._slots or (pile and idle)), None)
            if len(ended) >= self._slots or (ended and (late or idle)):
                self._decide(ended.take(self._slots))
            elif further is not None:
                for _ in self._go_on(further.take(self._slots)):
                    yield self.found.decided
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

    def _advance(self, busy: np.ndarray, ended: _Pile) -> None:
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
        ended.add(
            _Attempts(
                self._example[slots],
                self._attempt[slots],
                self._age[slots],
                self._state["broken"][rows].cpu().numpy(),
                self._counted[slots],
                self._state["best"][rows],
            )
        )
        self._example[slots] = -1

    def _decide(self, ended: _Attempts) -> None:
        """Judge what has ended; what is to be searched further waits for others, so that its batches are full too."""
        right, met = self._judge(ended.example, ended.points)
        ended.counted += met
        again = np.zeros_like(right)
        if not self._transfer:
            doubtful = right & ended.claimed
            ended.counted[:, COUNTS.index("unconfirmed")] += doubtful
            if self._added:
                moot = self.found.moot(ended.example, ended.attempt)
                again = (doubtful | (right & self._lossy)) & ~moot
                for pile, chosen in zip(self._further, (again & doubtful, again & ~doubtful), strict=True):
                    pile.add(ended.rows(chosen))
        self._settle(ended.rows(~again), right[~again])

    def _settle(self, ended: _Attempts, right: np.ndarray) -> None:
        """Write down where the exact network is right (K,) bool, and free the slots of what is broken."""
        if self.points is not None:
            news = self.found.robust[ended.example]
            for chosen in (news & right, news & ~right):  # what broke an example is kept, whatever else was tried
                some = ended.rows(chosen)
                self.points[torch.from_numpy(some.example).to(some.points.device)] = some.points
        self.found.tried[ended.example, ended.attempt] = True
        self.found.counted[ended.example, ended.attempt] = ended.counted
        self.found.fell[ended.example, ended.attempt] = ~right
        self.found.robust[ended.example[~right]] = False
        self._example[(self._example >= 0) & self.found.moot(self._example, self._attempt)] = -1

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

    def _go_on(self, ended: _Attempts) -> Iterator[None]:
        """Search further on the exact network, from the points of attempts on, and settle them."""
        ended = ended.rows(~self.found.moot(ended.example, ended.attempt))
        live = len(ended)
        if not live:
            return
        search = self._whole if self._whole.counted else self._whole.continued(self._added)
        state = search.begin(self._given(ended.example, ended.attempt) | {"start": ended.points})
        if search.counted:
            state["step"] = torch.from_numpy(ended.steps).to(ended.points.device)
        ended.counted[:, :2] += self._asked(live)
        state = {name: _fill(value, self._slots) for name, value in state.items()}
        handed = state["best"]
        settled = torch.zeros_like(state["done"])
        while not bool(settled[:live].all()):
            going = (~settled[:live]).cpu().numpy()
            self.exact.live = int(going.sum())
            state = search.advance(state, self.exact)
            ended.counted[going, :2] += self._asked(self.exact.live)
            newly = state["done"] & ~settled
            handed = torch.where(newly.view(-1, *([1] * (handed.dim() - 1))), state["best"], handed)
            settled = settled | state["done"]
            yield
        ended.points = handed[:live]
        right, met = self._judge(ended.example, ended.points)
        ended.counted += met
        self._settle(ended, right)


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
