"""Adversarial weight perturbation (AWP: Wu, Xia and Wang, NeurIPS 2020, arXiv 2004.05884)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from engine import distributed
from engine.attacks.losses import cross_entropy
from engine.device import Compute

PROXY_RATE = 0.01
"""Step of the proxy up the adversarial loss. It falls out of the result but for rounding."""


def worst_direction(
    model: nn.Module, x_adv: Tensor, y: Tensor, compute: Compute, whole: int | None = None
) -> dict[str, Tensor]:
    """By name of each weight tensor with more than one dimension: |w| / |dw| * dw for a step dw up CE(f(x_adv), y).

    The mean is over the `whole` batch, of which x_adv and y may be the share of this rank; default: all there is.
    The model is used in its present mode; its statistics of BatchNorm stay as they are.
    """
    weights = dict(model.named_parameters())
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    with torch.enable_grad():
        with compute.autocast():
            z = functional_call(model, weights | buffers, (x_adv,))
        chosen = {name: value for name, value in weights.items() if value.dim() > 1}
        gradients = torch.autograd.grad(cross_entropy(z, y).sum() / (whole or len(y)), list(chosen.values()))
    distributed.sum_up(gradients)
    directions = {}
    for (name, weight), gradient in zip(chosen.items(), gradients, strict=True):
        step = PROXY_RATE * gradient
        directions[name] = weight.detach().norm() / (step.norm() + 1e-20) * step
    return directions


@contextmanager
def perturbed(model: nn.Module, directions: dict[str, Tensor], gamma: float) -> Iterator[None]:
    """Within this context the weights are w + gamma * d; what is done to them there stays, gamma * d is taken off.

    Also when the context is left by an exception.
    """
    weights = dict(model.named_parameters())

    def move(by: float) -> None:
        with torch.no_grad():
            for name, direction in directions.items():
                weights[name].add_(direction, alpha=by)

    move(gamma)
    try:
        yield
    finally:
        move(-gamma)
