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
    model: nn.Module, x_adv: Tensor, y: Tensor, compute: Compute, global_batch: int | None = None
) -> dict[str, Tensor]:
    """By name of each weight tensor with more than one dimension: |w| / |dw| * dw for a step dw up CE(f(x_adv), y).

    The mean is over `global_batch` examples, of which x_adv and y may be the share of this rank; default: all there is.
    The model is used in its present mode; its statistics of BatchNorm stay as they are. Where a gradient is not finite
    the direction is 0: loss scaling leaves such a step out.
    """
    weights = dict(model.named_parameters())
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    with torch.enable_grad():
        with compute.autocast():
            z = functional_call(model, weights | buffers, (x_adv,))
        chosen = {name: value for name, value in weights.items() if value.dim() > 1}
        gradients = torch.autograd.grad(cross_entropy(z, y).sum() / (global_batch or len(y)), list(chosen.values()))
    distributed.sum_up(gradients)
    directions = {}
    for (name, weight), gradient in zip(chosen.items(), gradients, strict=True):
        step = PROXY_RATE * gradient
        length = step.norm()
        direction = weight.detach().norm() / (length + 1e-20) * step
        directions[name] = torch.where(length.isfinite(), direction, 0.0)
    return directions


@contextmanager
def perturbed(model: nn.Module, directions: dict[str, Tensor], gamma: float) -> Iterator[None]:
    """Within this context the weights are w + gamma * d; what is done to them there stays, gamma * d is taken off.

    Where nothing is done, w comes back to the bit; adding and subtracting would leave a rounding at every step. After
    an exception w comes back whatever was done. Takes the memory of the weights twice.
    """
    weights = {name: value.detach() for name, value in model.named_parameters() if name in directions}
    kept = {name: weight.clone() for name, weight in weights.items()}
    moved = {name: weight.add_(directions[name], alpha=gamma).clone() for name, weight in weights.items()}
    done: dict[str, Tensor] = {}
    try:
        yield
        done = {name: weight - moved[name] for name, weight in weights.items()}
    finally:
        for name, weight in weights.items():
            weight.copy_(kept[name] + done[name] if done else kept[name])
