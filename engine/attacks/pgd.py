"""FGSM (Goodfellow et al., ICLR 2015) and PGD (Madry et al., ICLR 2018) in Linf and L2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine import keyed_random
from engine.attacks.balls import Ball
from engine.attacks.loop import Objective, ascend, attacked
from engine.attacks.losses import cross_entropy, kl_divergence
from engine.attacks.queries import Oracle
from engine.attacks.search import Search, State, mute, rows, steps_of, wrong
from engine.contract.profile.schema import FGSM_STEP, Adversary
from engine.data import Batch
from engine.device import Compute

LabelLoss = Callable[[Tensor, Tensor], Tensor]
"""Logits (N,K) and labels (N,) to a value per example (N,)."""


@dataclass(frozen=True, kw_only=True)
class SignedSteps(Search):
    """`steps` steepest steps of length `step_size` (in image units), up a loss of the labels or away from the clean
    answer.

    FGSM is one step of eps from the clean image; PGD starts at a `random_start` in the ball; CW is PGD up the margin
    from the clean image. An example is done at the first point where it is misclassified: robust accuracy is a worst
    case over the ball, and no step can improve on an error.
    """

    step_size: float
    loss: LabelLoss | None = cross_entropy
    """None: KL from the clean answer (TRADES, Zhang et al., ICML 2019), which needs `clean` logits (N,K) in the
    state."""
    random_start: bool = True

    @property
    def needs_clean(self) -> bool:
        """For the KL."""
        return self.loss is None

    @property
    def counted(self) -> bool:
        """A table says PGD-20, and FGSM is one step."""
        return True

    @property
    def precise(self) -> bool:
        """A single step is not put right by others: in bf16 FGSM can be a point stronger or weaker."""
        return self.steps == 1

    def begin(self, state: State) -> State:
        """At the clean image, or at a random point of the ball."""
        x = state["x"]
        if "start" in state:
            point = state["start"]
        else:
            point = self.ball.random_point(x, self.key(state, "pgd")) if self.random_start else x
        return self.fresh(state, point)

    def advance(self, state: State, oracle: Oracle) -> State:
        """One step; the point after the last one is handed over without a question."""
        y, point = state["y"], state["point"]
        loss, begins = self.loss, 0 in steps_of(state)

        def value(z: Tensor) -> Tensor:
            return loss(z, y) if loss else kl_divergence(state["clean"], z)

        here = oracle.slope(point, value)
        broken = wrong(here.logits, y) & self.stops
        moved = self.confine(point.add(self.ball.steepest(here.gradient), alpha=self.step_size), state)
        point = rows(broken, point, moved)
        step = state["step"] + 1
        made = {"point": point, "best": point, "step": step, "broken": broken}
        if begins:
            made["mute"] = mute(here.gradient, state)
        return state | made | {"done": broken | (step >= self.steps)}


def against_labels(model: nn.Module, y: Tensor, compute: Compute, loss: LabelLoss = cross_entropy) -> Objective:
    """A loss of the model's answer to labels y (N,), to be maximised."""

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        with compute.autocast():
            logits = model(x)
        return loss(logits, y), logits

    return objective


def against_clean_answer(model: nn.Module, z_nat: Tensor, compute: Compute) -> Objective:
    """KL from the clean answer z_nat (N,K) to the model's answer, as TRADES attacks (Zhang et al., ICML 2019)."""

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        with compute.autocast():
            logits = model(x)
        return kl_divergence(z_nat, logits), logits

    return objective


def training_adversary(
    model: nn.Module,
    batch: Batch,
    ball: Ball,
    compute: Compute,
    adversary: Adversary,
    *,
    seed: int,
    epoch: int,
    share: float = 0.0,
) -> Tensor:
    """The attack inside training: random start, all steps taken, against labels or against the clean answer.

    `adversary.step_size` is in units of eps; `share` (0-1) of the epoch is behind, which decides what a mixed
    adversary is. x_adv (N,C,H,W).
    """
    assert adversary.step_size is not None, "profiles are resolved before they reach the engine"
    steps, step_size = adversary.steps, adversary.step_size
    if adversary.attack == "fgsm":
        steps = 1
    elif adversary.attack == "mixed" and share >= adversary.pgd_share:
        steps, step_size = 1, FGSM_STEP
    start = ball.random_point(batch.x, keyed_random.keys(seed, batch.index, "training", epoch))
    with attacked(model):
        if adversary.loss == "kl":
            with torch.no_grad(), compute.autocast():
                z_nat = model(batch.x)
            objective = against_clean_answer(model, z_nat, compute)
        else:
            objective = against_labels(model, batch.y, compute)
        return ascend(objective, batch.x, start, ball, steps=steps, step_size=step_size * ball.eps)
