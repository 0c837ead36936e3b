"""What an attack is to the scheduler of live examples: a step for many examples, each at a step of its own.

A search keeps everything that it knows of an example in the rows of a `State`. It never sees which examples share a
batch with it and draws random numbers by (seed, data index, attack, attempt, step) alone, so the result for an example
does not depend on order, number and neighbours of the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine import keyed_random
from engine.attacks.balls import Ball, per_image
from engine.attacks.queries import Oracle

State = dict[str, Tensor]
"""One row for each attempt in flight. Given: `x` (N,C,H,W) the clean image, `y` (N,), `index` (N,) in its data set,
`attempt` (N,) which restart or target, `ranking` (N,T) classes by clean logit, the likeliest first.

Made by a search: `point` (N,C,H,W) what it asks about next, `best` (N,C,H,W) what it hands over, `step` (N,), `broken`
(N,) whether the network it asked was wrong at `best`, `done` (N,), `mute` (N,) whether the first gradient was zero or
not finite; in linf, `low` and `high` (N,C,H,W), the walls of ball and box. A `start` (N,C,H,W) given to it is a point
to continue from."""


@dataclass(frozen=True)
class Search(ABC):
    """One attack on examples that the network classifies right. `attempts` restarts or targets are made of each."""

    ball: Ball
    seed: int
    steps: int
    attempts: int = 1
    stops: bool = True
    """Whether an example is done once the network asked is wrong; false where another network is to be fooled."""

    @property
    def needs_clean(self) -> bool:
        """Whether the state must hold `clean`, the logits (N,K) of the clean image."""
        return False

    @abstractmethod
    def begin(self, state: State) -> State:
        """The state (N rows) of examples before their first step."""

    @abstractmethod
    def advance(self, state: State, oracle: Oracle) -> State:
        """The state one step later. Rows that are done are given again and do not matter any more."""

    @property
    def defined_by_steps(self) -> bool:
        """Whether its number of steps defines the attack, so that none may be added to them."""
        return False

    @property
    def precise(self) -> bool:
        """Whether its result depends on the last bits of the answers, so that it must ask the network in fp32."""
        return False

    def continued(self, steps: int) -> Search:
        """The same search from the `start` of each example for so many more steps, with finer ones if it can."""
        return replace(self, steps=steps)

    def fresh(self, state: State, point: Tensor) -> State:
        """The state of examples whose first question is about `point`."""
        no = torch.zeros_like(state["y"], dtype=torch.bool)
        made = {"point": point, "best": point, "step": torch.zeros_like(state["y"]), "broken": no, "done": no}
        if self.ball.norm == "linf":
            made["low"], made["high"] = self.ball.walls(state["x"])
        return state | made | {"mute": no}

    def confine(self, point: Tensor, state: State) -> Tensor:
        """`point` (N,C,H,W) brought into ball and box; it may be changed in place."""
        if self.ball.norm == "linf":
            return point.clamp_(state["low"], state["high"])
        return self.ball.project(point, state["x"])

    def key(self, state: State, purpose: str, *path: int | Tensor) -> Tensor:
        """Keys (N,) of random draws that belong to each example and attempt."""
        return keyed_random.keys(self.seed, state["index"], purpose, state["attempt"], *path)


def wrong(z: Tensor, y: Tensor) -> Tensor:
    """Whether logits (N,K) name another class than y (N,): (N,) bool. Logits that are no numbers name none."""
    return (z.argmax(1) != y) | ~z.isfinite().all(1)


def steps_of(state: State) -> set[int]:
    """The steps that the examples are at. To be asked for before the network is: then nothing has to be waited for."""
    return set(state["step"].tolist())


def mute(gradient: Tensor, state: State) -> Tensor:
    """Whether the first gradient of an example led nowhere, being zero or not finite: (N,) bool."""
    size = gradient.flatten(1).abs().sum(1)
    return torch.where(state["step"] == 0, (size == 0) | ~size.isfinite(), state["mute"])


def rows(chosen: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """`yes` in the rows that are chosen (N,), `no` in the others."""
    return torch.where(per_image(chosen, yes), yes, no)
