"""Auto-PGD (Croce and Hein, ICML 2020): PGD with momentum and a step size that each example halves for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from engine.attacks.balls import per_image
from engine.attacks.losses import cross_entropy, dlr, targeted_dlr
from engine.attacks.pgd import LabelLoss
from engine.attacks.queries import Oracle
from engine.attacks.search import Search, State, mute, rows, steps_of, wrong
from engine.attacks.setting import Setting

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
    ends: list[int] = []
    end = window
    while end <= steps:
        ends.append(end)
        window = max(window - shrink, least)
        end += window
    return ends


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
        return self.fresh(state, point) | {
            "before": point,
            "value": torch.full_like(like, torch.inf),  # nothing is an increase over the start's
            "best_value": torch.full_like(like, -torch.inf),
            "best_gradient": torch.zeros_like(x),
            "size": torch.full_like(like, self.first_step * self.ball.eps),
            "increases": like,
            "best_at_check": torch.full_like(like, -torch.inf),
            "reduced": torch.ones_like(state["y"], dtype=torch.bool),
        }

    def advance(self, state: State, oracle: Oracle) -> State:
        """The loss at the point, the step size if it is time to, and the next point."""
        point, step = state["point"], state["step"]
        at = steps_of(state)
        here = oracle.slope(point, self._value(state))
        broken = wrong(here.logits, state["y"]) & self.stops
        better = (here.value > state["best_value"]) | broken
        made = state | {
            "best": rows(better, point, state["best"]),
            "best_gradient": rows(better, here.gradient, state["best_gradient"]),
            "best_value": torch.where(better, here.value, state["best_value"]),
            "value": here.value,
            "increases": state["increases"] + (here.value > state["value"]),
            "step": step + 1,
            "broken": broken,
            "done": broken | (step >= self.steps),
        }
        origin, gradient = point, here.gradient
        momentum: float | Tensor = MOMENTUM
        if 0 in at:
            first = step == 0
            made["best_at_check"] = torch.where(first, made["best_value"], state["best_at_check"])
            made["mute"] = mute(here.gradient, state)
            momentum = per_image(torch.where(first, 1.0, MOMENTUM), point)
        if not at.isdisjoint(self._checks):
            cut = self._reconsider(made, step)
            origin, gradient = rows(cut, made["best"], point), rows(cut, made["best_gradient"], gradient)

        ahead = self.ball.steepest(gradient).mul_(per_image(made["size"], point)).add_(origin)
        moved = torch.lerp(origin, self.confine(ahead, state), momentum)
        # At the first step there is no step before: `before` is the point itself.
        moved.add_(origin - state["before"], alpha=1 - MOMENTUM)
        return made | {"point": self.confine(moved, state), "before": origin}

    def _reconsider(self, made: State, step: Tensor) -> Tensor:
        """Halve the step size, in the rows at the end of a window, where the window did not do: (N,) bool."""
        windows = self._windows.to(step.device)[step.clamp_max(self.steps)]  # 0 where there is no check
        check = windows > 0
        few = made["increases"] <= LEAST_INCREASES * windows
        stuck = ~made["reduced"] & (made["best_value"] <= made["best_at_check"])
        cut = check & (few | stuck)
        made["size"] = torch.where(cut, made["size"] / 2, made["size"])
        made["increases"] = torch.where(check, 0.0, made["increases"])
        made["best_at_check"] = torch.where(check, made["best_value"], made["best_at_check"])
        made["reduced"] = torch.where(check, cut, made["reduced"])
        return cut

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
    def _checks(self) -> frozenset[int]:
        return frozenset(checkpoints(self.steps))

    @cached_property
    def _windows(self) -> Tensor:
        """By step, 0 to `steps`: how many steps the window has that ends there; 0 where none ends."""
        windows = torch.zeros(self.steps + 1)
        last = 0
        for end in checkpoints(self.steps):
            windows[end], last = end - last, end
        return windows


def target_of(state: State) -> Tensor:
    """The class (N,) that each example's attempt aims at: the likeliest but the true one first."""
    return state["ranking"].gather(1, state["attempt"][:, None] + 1)[:, 0]


def apgd_ce(s: Setting) -> Search:
    """Up the cross-entropy."""
    return Apgd(s.ball, s.seed, s.stage.apgd_steps, s.stage.apgd_restarts, s.stops, loss=cross_entropy)


def apgd_dlr(s: Setting) -> Search:
    """Up the difference of logits ratio."""
    restarts = s.stage.apgd_dlr_restarts or s.stage.apgd_restarts
    return Apgd(s.ball, s.seed, s.stage.apgd_steps, restarts, s.stops, loss=dlr)


def apgd_t(s: Setting) -> Search:
    """Up the targeted difference of logits ratio, towards one class after the other."""
    return Apgd(s.ball, s.seed, s.stage.apgd_steps, s.targets, s.stops, target_loss=targeted_dlr)
