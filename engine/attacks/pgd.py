"""FGSM (Goodfellow et al., ICLR 2015) and PGD (Madry et al., ICLR 2018) in Linf and L2."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engine import draws
from engine.attacks.balls import Ball
from engine.attacks.loop import Objective, ascend, attacked
from engine.attacks.losses import cross_entropy, kl_divergence
from engine.contract.schema import Adversary
from engine.data import Batch
from engine.device import Compute

LabelLoss = Callable[[Tensor, Tensor], Tensor]
"""Logits (N,K) and labels (N,) to a value per example (N,)."""


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


def fgsm(model: nn.Module, batch: Batch, ball: Ball, compute: Compute) -> Tensor:
    """One step of length eps from the clean image, without a random start: x_adv (N,C,H,W)."""
    with attacked(model):
        objective = against_labels(model, batch.y, compute)
        return ascend(objective, batch.x, batch.x, ball, steps=1, step_size=ball.eps)


def pgd(
    model: nn.Module,
    batch: Batch,
    ball: Ball,
    compute: Compute,
    *,
    steps: int,
    step_size: float,
    seed: int,
    restart: int = 0,
) -> Tensor:
    """`steps` steps of length `step_size` (in image units) from a random start: x_adv (N,C,H,W).

    An example stays at the first point where it is misclassified: robust accuracy is a worst case over the ball, and
    no step can improve on an error.
    """
    start = ball.random_point(batch.x, draws.keys(seed, batch.index, "pgd", restart))
    with attacked(model):
        objective = against_labels(model, batch.y, compute)
        return ascend(
            objective,
            batch.x,
            start,
            ball,
            steps=steps,
            step_size=step_size,
            broken=lambda logits: logits.argmax(1) != batch.y,
        )


def training_adversary(
    model: nn.Module, batch: Batch, ball: Ball, compute: Compute, adversary: Adversary, *, seed: int, epoch: int
) -> Tensor:
    """The attack inside training: random start, all steps taken, against labels or against the clean answer.

    `adversary.step_size` is in units of eps. x_adv (N,C,H,W).
    """
    assert adversary.step_size is not None, "profiles are resolved before they reach the engine"
    steps = adversary.steps if adversary.attack == "pgd" else 1
    start = ball.random_point(batch.x, draws.keys(seed, batch.index, "training", epoch))
    with attacked(model):
        if adversary.loss == "kl":
            with torch.no_grad(), compute.autocast():
                z_nat = model(batch.x)
            objective = against_clean_answer(model, z_nat, compute)
        else:
            objective = against_labels(model, batch.y, compute)
        return ascend(objective, batch.x, start, ball, steps=steps, step_size=adversary.step_size * ball.eps)
