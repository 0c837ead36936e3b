"""Auto-PGD (Croce and Hein, ICML 2020): PGD with momentum and a step size that each example halves for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from engine.attacks.balls import per_image
from engine.attacks.oracle import Oracle
from engine.attacks.pgd import LabelLoss
from engine.attacks.search import Search, State, fresh, mute, rows, wrong

MOMENTUM = 0.75
LEAST_INCREASES = 0.75
"""Share of a window's steps that must increase the loss for the step size to be kept."""
FIRST_STEP = 2.0
"""In units of eps."""
FINER = 1 / 8
"""Of the first step, where a search goes on: three halvings, as most examples have behind them by then."""

TargetLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Logits (N,K), labels (N,) and targets (N,) to a value per example (N,)."""


def checkpoints(steps: int) -> list[int]:
    """After how many of `steps` steps the step size is reconsidered: for 100, at 22 41 57 70 80 87 93 99.

    Windows shrink from 22% of the steps by 3% each, to 6% at least, as in the authors' code.
    """
    window, shrink, least = max(int(0.22 * steps), 1), max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)
    found: list[int] = []
    at = window
    while at <= steps:
        found.append(at)
        window = max(window - shrink, least)
        at += window
    return found


@dataclass(frozen=True, kw_only=True)
class Apgd(Search):
    """`steps` steps from a random point of the ball's surface, up `loss` of the labels, or up `target_loss` towards
    the class that comes after as many others as there were attempts before (APGD-T).

    Hands over the first misclassified point of a broken example, the point of highest loss of another. The first
    window counts the first step against the start (the authors' code counts it as an increase whatever it was).
    """

    loss: LabelLoss | None = None
    target_loss: TargetLoss | None = None
    first_step: float = FIRST_STEP

    def begin(self, state: State) -> State:
        """At a random point of the surface."""
        x, like = state["x"], torch.zeros_like(state["y"], dtype=torch.float32)
        point = state["start"] if "start" in state else self.ball.surface_point(x, self.key(state, "apgd"))
        return fresh(state, point) | {
            "before": point,
            "value": like,
            "best_value": torch.full_like(like, -torch.inf),
            "best_gradient": torch.zeros_like(x),
            "size": torch.full_like(like, self.first_step * self.ball.eps),
            "increases": like,
            "best_at_check": torch.full_like(like, -torch.inf),
            "reduced": torch.ones_like(state["y"], dtype=torch.bool),
        }

    def advance(self, state: State, oracle: Oracle) -> State:
        """The loss at the point, the step size if it is time to, and the next point."""
        x, y, point, step = state["x"], state["y"], state["point"], state["step"]
        here = oracle.slope(point, self._value(state))
        broken = wrong(here.logits, y) & self.stops
        first = step == 0
        better = first | (here.value > state["best_value"]) | broken
        best, best_gradient = rows(better, point, state["best"]), rows(better, here.gradient, state["best_gradient"])
        best_value = torch.where(better, here.value, state["best_value"])
        increases = state["increases"] + (~first & (here.value > state["value"]))

        windows = self._windows.to(x.device)[step.clamp_max(self.steps)]  # 0 where there is no check
        check = windows > 0
        few = increases <= LEAST_INCREASES * windows
        stuck = ~state["reduced"] & (best_value <= state["best_at_check"])
        cut = check & (few | stuck)
        size = torch.where(cut, state["size"] / 2, state["size"])
        origin, gradient = rows(cut, best, point), rows(cut, best_gradient, here.gradient)

        z = self.ball.project(origin + per_image(size, x) * self.ball.steepest(gradient), x)
        momentum = per_image(torch.where(first, 1.0, MOMENTUM), x)
        moved = origin + momentum * (z - origin) + (1 - momentum) * (origin - state["before"])
        return state | {
            "point": self.ball.project(moved, x),
            "before": origin,
            "best": best,
            "best_gradient": best_gradient,
            "best_value": best_value,
            "value": here.value,
            "size": size,
            "increases": torch.where(check, 0.0, increases),
            "best_at_check": torch.where(check | first, best_value, state["best_at_check"]),
            "reduced": torch.where(check, cut, state["reduced"]),
            "step": step + 1,
            "broken": broken,
            "mute": mute(here.gradient, first, state["mute"]),
            "done": broken | (step >= self.steps),
        }

    def continued(self, steps: int) -> Search:
        """With the smaller steps of a search that is near its end."""
        return replace(self, steps=steps, first_step=FIRST_STEP * FINER)

    def _value(self, state: State) -> Callable[[Tensor], Tensor]:
        y = state["y"]
        if self.target_loss is None:
            assert self.loss is not None, "an attack has a loss"
            loss = self.loss
            return lambda z: loss(z, y)
        target_loss, target = self.target_loss, target_of(state)
        return lambda z: target_loss(z, y, target)

    @cached_property
    def _windows(self) -> Tensor:
        """By step, 0 to `steps`: how many steps the window has that ends there; 0 where none ends."""
        found = torch.zeros(self.steps + 1)
        last = 0
        for at in checkpoints(self.steps):
            found[at], last = at - last, at
        return found


def target_of(state: State) -> Tensor:
    """The class (N,) that each example's attempt aims at: the likeliest but the true one first."""
    return state["ranking"].gather(1, state["attempt"][:, None] + 1)[:, 0]
