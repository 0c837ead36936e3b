"""Causal inoculation: what CAFE adds to the loss of any defence (section 4 of the paper)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from engine.attacks.inversion import causal_logits, invert
from engine.attacks.loop import attacked
from engine.attacks.losses import kl_divergence
from engine.contract.schema import Inoculate
from engine.data import Batch
from engine.models.base import Classifier
from engine.stage import Context


class Inoculated(NamedTuple):
    """The term per example (N,), the inversions x_c (N,C,H,W), and the AC logits (N,K) they were made for."""

    term: Tensor
    x_c: Tensor
    target: Tensor


class Inoculation:
    """KL( f(x_adv) || f(x_c) ), where x_c is the causal inversion under the frozen hypothesis model of a game.

    Z is taken in eval mode, the mode h was trained on. The gradient goes through both arguments.
    """

    def __init__(self, context: Context, stage: Inoculate, model: Classifier) -> None:
        assert stage.gamma is not None, "the profile was resolved"
        self.compute, self.seed = context.compute, context.profile.seed
        self.steps, self.gamma, self.weight = stage.inversion_steps, stage.gamma, stage.weight
        self.hypothesis = context.hypothesis(stage.game, model.feature_shape)

    def addend(self, model: Classifier, batch: Batch, x_adv: Tensor, z_adv: Tensor, epoch: int) -> Inoculated:
        """The term for a batch whose adversarial images gave the logits z_adv (N,K) with gradient."""
        target = causal_logits(model, self.hypothesis, batch.x, x_adv, self.compute)
        x_c = invert(model, batch, target, self.gamma, self.compute, steps=self.steps, seed=self.seed, epoch=epoch)
        with self.compute.autocast():
            z_c = model(x_c)
        return Inoculated(kl_divergence(z_adv, z_c), x_c, target)

    def distance(self, model: Classifier, inoculated: Inoculated) -> Tensor:
        """KL( f(x_c) || AC ) per example (N,), with f in eval mode: how well the inversion succeeded."""
        with attacked(model), torch.no_grad(), self.compute.autocast():
            return kl_divergence(model(inoculated.x_c), inoculated.target)
