"""FGSM (Goodfellow et al., ICLR 2015) and PGD (Madry et al., ICLR 2018) in Linf and L2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from engine import keyed_random
from engine.attacks.balls import Ball
from engine.attacks.loop import Objective, ascend, attacked, steepest_step
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
    def defined_by_steps(self) -> bool:
        """A table says PGD-20, and FGSM is one step."""
        return True

    @property
    def precise(self) -> bool:
        """No later step makes up for a single one: in bf16 FGSM can be a point stronger or weaker."""
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
        """One step; nothing is asked about the point after the last one."""
        y, point = state["y"], state["point"]
        loss, begins = self.loss, 0 in steps_of(state)

        def value(z: Tensor) -> Tensor:
            return loss(z, y) if loss else kl_divergence(state["clean"], z)

        here = oracle.slope(point, value)
        broken = wrong(here.logits, y) & self.stops
        confine = partial(self.confine, state=state)
        moved = steepest_step(point, here.gradient, self.ball, self.step_size, confine)
        point = rows(broken, point, moved)  # an example stays at the first point that breaks it
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


@dataclass(frozen=True)
class TrainingAttack:
    """The attack inside training: random start, all steps taken, against labels or against the clean answer.

    `adversary.step_size` is in units of eps. The profile must be resolved.
    """

    adversary: Adversary
    ball: Ball
    compute: Compute
    seed: int

    def __call__(self, model: nn.Module, batch: Batch, epoch: int, share: float = 0.0) -> Tensor:
        """x_adv (N,C,H,W) for a batch, drawn anew for each `epoch`.

        `share` (0-1) of the epoch is done, which decides what a mixed adversary is.
        """
        steps, step_size = self._budget(share)
        x, ball = batch.x, self.ball
        start = ball.random_point(x, keyed_random.keys(self.seed, batch.index, "training", epoch))
        with attacked(model):
            objective = self._objective(model, batch)
            return ascend(objective, x, start, ball, steps=steps, step_size=step_size * ball.eps)

    def _budget(self, share: float) -> tuple[int, float]:
        """How many steps, and how long each is in units of eps."""
        adversary = self.adversary
        assert adversary.step_size is not None, "profiles are resolved before they reach the engine"
        if adversary.attack == "fgsm":
            return 1, adversary.step_size
        if adversary.attack == "mixed" and share >= adversary.pgd_share:
            return 1, FGSM_STEP
        return adversary.steps, adversary.step_size

    def _objective(self, model: nn.Module, batch: Batch) -> Objective:
        if self.adversary.loss != "kl":
            return against_labels(model, batch.y, self.compute)
        with torch.no_grad(), self.compute.autocast():
            z_nat = model(batch.x)
        return against_clean_answer(model, z_nat, self.compute)
