"""Causal inoculation: what CAFE adds to the loss of any defence (section 4 of the paper)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from engine.attacks.inversion import Inversion, causal_logits
from engine.attacks.loop import attacked
from engine.attacks.losses import kl_divergence
from engine.contract.profile.schema import Inoculate
from engine.data import Batch
from engine.models.base import Classifier
from engine.stage import Context


class Inverted(NamedTuple):
    """The inversions x_c (N,C,H,W) of a batch, and the AC logits (N,K) they were made for."""

    x_c: Tensor
    target: Tensor


class Inoculation:
    """KL( f(x_adv) || f(x_c) ), where x_c is the causal inversion under the frozen hypothesis model of a game.

    Z is taken in eval mode, the mode h was trained on, unless the stage says otherwise. The gradient goes through both
    arguments.
    """

    def __init__(self, context: Context, stage: Inoculate, model: Classifier) -> None:
        assert stage.gamma is not None, "the profile was resolved"
        self.compute, self.weight = context.compute, stage.weight
        self._inversion = Inversion(stage.gamma, stage.inversion_steps, context.compute, context.profile.seed)
        self.mode = stage.features
        self.hypothesis = context.hypothesis(stage.game, model.feature_shape)

    def invert(self, model: Classifier, batch: Batch, x_adv: Tensor, epoch: int) -> Inverted:
        """The causal inversion of a batch with its adversarial images."""
        target = causal_logits(model, self.hypothesis, batch.x, x_adv, self.compute, self.mode)
        return Inverted(self._inversion(model, batch, target, epoch), target)

    def term(self, model: Classifier, inverted: Inverted, z_adv: Tensor) -> Tensor:
        """The addend per example (N,), for the logits z_adv (N,K) of the adversarial images, with gradient."""
        with self.compute.autocast():
            z_c = model(inverted.x_c)
        return kl_divergence(z_adv, z_c)

    def distance(self, model: Classifier, inverted: Inverted) -> Tensor:
        """KL( f(x_c) || AC ) per example (N,), with f in eval mode: how well the inversion succeeded."""
        with attacked(model), torch.no_grad(), self.compute.autocast():
            return kl_divergence(model(inverted.x_c), inverted.target)
