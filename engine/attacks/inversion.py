"""Causal inversion: the image whose prediction is nearest to that of its causal features (CAFE, section 4)."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from engine import keyed_random
from engine.attacks.balls import Ball
from engine.attacks.loop import ascend, attacked
from engine.attacks.losses import kl_divergence
from engine.data import Batch
from engine.device import Compute
from engine.models.base import Classifier


def causal_logits(
    model: Classifier,
    hypothesis: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    compute: Compute,
    mode: Literal["eval", "train"] = "eval",
) -> Tensor:
    """AC logits head(F_nat + h(Z)) (N,K), with the classifier in `mode`, h in eval mode, and without gradient."""
    frozen = attacked(model) if mode == "eval" else nullcontext(model.train())
    with frozen, attacked(hypothesis), torch.no_grad(), compute.autocast():
        F_nat = model.features(x)
        Z = model.features(x_adv) - F_nat
        logits: Tensor = model.head(F_nat + hypothesis(Z))
    return logits.float()


@dataclass(frozen=True)
class Inversion:
    """Causal inversion within `gamma` (linf, image units), by `steps` signed steps of 2.3*gamma/steps."""

    gamma: float
    steps: int
    compute: Compute
    seed: int

    def __call__(self, model: nn.Module, batch: Batch, target: Tensor, epoch: int) -> Tensor:
        """x_c = argmin over |d|_inf <= gamma of KL( f(x+d) || target ) for target logits (N,K): (N,C,H,W) in [0,1].

        From a uniform random start, drawn anew for each `epoch`.
        """
        ball = Ball("linf", self.gamma)

        def objective(x: Tensor) -> tuple[Tensor, Tensor]:
            with self.compute.autocast():
                logits = model(x)
            return -kl_divergence(logits, target), logits

        start = ball.random_point(batch.x, keyed_random.keys(self.seed, batch.index, "inversion", epoch))
        with attacked(model):
            return ascend(objective, batch.x, start, ball, steps=self.steps, step_size=2.3 * self.gamma / self.steps)
