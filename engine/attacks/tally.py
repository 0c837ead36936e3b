"""The bookkeeping of an attack: which attempts at which examples were made, which broke them, and what they took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.attacks.queries import Effort

COUNTS = ("gradient_steps", "forwards", "outside", "not_finite", "mute", "unconfirmed")
"""What is counted of every attempt, see Tally."""
_, _, OUTSIDE, NOT_FINITE, MUTE, UNCONFIRMED = range(len(COUNTS))
"""Their columns in `counts`."""
ASKED = slice(0, 2)
"""The columns of gradient steps and forwards."""


@dataclass
class Tally:
    """What an attack has come to: `robust` (N,) bool, the examples that withstand it so far; `attempted` (N,A) bool,
    the attempts that are finished; `broken` (N,A) bool, those of them that broke the example; and what each took and
    met, `counts` (N,A,6) int32, by the names in COUNTS.

    `outside` points left the ball or the box and were not counted; of `not_finite` points the answer was no number;
    `mute` first gradients were zero or not finite; `unconfirmed` points fooled the network that searched, but not the
    exact one. Only the attempts up to the first that broke the example count: attempts in flight, and those that were
    begun because a slot was free, depend on where an engine was stopped.
    """

    robust: np.ndarray
    attempted: np.ndarray
    broken: np.ndarray
    counts: np.ndarray
    seconds: float = 0.0

    @classmethod
    def before(cls, right: np.ndarray, attempts: int) -> Tally:
        """Before the attack on the examples that are `right` (N,) bool, with so many attempts at each."""
        none = np.zeros((len(right), attempts), dtype=bool)
        return cls(right.copy(), none, none.copy(), np.zeros((*none.shape, len(COUNTS)), dtype=np.int32))

    @property
    def effort(self) -> Effort:
        """What was asked of the networks."""
        return Effort(self.count("gradient_steps"), self.count("forwards"))

    @property
    def attempts(self) -> int:
        """How many attempts count."""
        return int(self._counting.sum())

    def count(self, name: str) -> int:
        """The sum of one of COUNTS over the attempts that count."""
        return int(self.counts[self._counting, COUNTS.index(name)].sum(dtype=np.int64))

    def superseded(self, example: np.ndarray, attempt: np.ndarray) -> np.ndarray:
        """Whether an attempt (K,) at an example (K,) does not count, because an earlier one broke it: (K,) bool."""
        broken = self.broken[example]  # (K,A)
        superseded: np.ndarray = broken.any(1) & (broken.argmax(1) < attempt)
        return superseded

    @property
    def _counting(self) -> np.ndarray:
        """The finished attempts before which none broke the example: (N,A) bool."""
        broken_earlier = np.cumsum(self.broken, axis=1) - self.broken > 0
        counting: np.ndarray = self.attempted & ~broken_earlier
        return counting

    @property
    def share(self) -> float:
        """Of the work that is done, 0-1: broken examples need no more attempts."""
        remaining = (self.robust[:, None] & ~self.attempted).sum()
        return 1.0 - float(remaining) / max(self.attempted.size, 1)

    @property
    def decided(self) -> int:
        """Examples that are broken or have withstood every attempt."""
        return int((~self.robust | self.attempted.all(1)).sum())


@dataclass
class Attempts:
    """K attempts whose search has ended: `attempt` (K,) at `example` (K,) after so many `steps` (K,).

    `claimed` (K,) bool: whether the network that was asked calls the example broken; `counts` (K,6) by COUNTS; `points`
    (K,C,H,W), what the searches hand over.
    """

    example: np.ndarray
    attempt: np.ndarray
    steps: np.ndarray
    claimed: np.ndarray
    counts: np.ndarray
    points: Tensor

    def __len__(self) -> int:
        return len(self.example)

    def rows(self, chosen: np.ndarray) -> Attempts:
        """Those that are chosen (K,) bool, in their order."""
        points = self.points[torch.from_numpy(chosen).to(self.points.device)]
        return Attempts(
            self.example[chosen],
            self.attempt[chosen],
            self.steps[chosen],
            self.claimed[chosen],
            self.counts[chosen],
            points,
        )


class Queue:
    """Attempts that wait until there are enough of them for a full batch."""

    def __init__(self) -> None:
        self._parts: list[Attempts] = []

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def any_claimed(self) -> bool:
        """Whether the network that was asked calls one of the examples broken."""
        return any(part.claimed.any() for part in self._parts)

    def add(self, attempts: Attempts) -> None:
        """Behind the others."""
        if len(attempts):
            self._parts.append(attempts)

    def take(self, count: int) -> Attempts:
        """Remove and return the first `count` of them, or all; there must be one at least."""
        parts = self._parts
        waiting = Attempts(
            np.concatenate([part.example for part in parts]),
            np.concatenate([part.attempt for part in parts]),
            np.concatenate([part.steps for part in parts]),
            np.concatenate([part.claimed for part in parts]),
            np.concatenate([part.counts for part in parts]),
            torch.cat([part.points for part in parts]),
        )
        first = np.arange(len(waiting)) < count
        self._parts = []
        self.add(waiting.rows(~first))
        return waiting.rows(first)
