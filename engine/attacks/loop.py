"""The one projected-gradient loop. FGSM, PGD and the causal inversion are settings of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engine.attacks.balls import Ball, per_image

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images (N,C,H,W) to what is to be maximised (N,), and the logits (N,K) it was computed from."""

FP16_SCALE = 1024.0
"""Multiplies the objective before differentiating: in fp16 small gradients would vanish; direction is unchanged."""


@contextmanager
def attacked(model: nn.Module) -> Iterator[None]:
    """Within this context the model is in eval mode and no gradient is computed for its weights."""
    was_training = model.training
    wanted = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        model.train(was_training)


class Slope(NamedTuple):
    """An objective at images (N,C,H,W): its gradient there, times FP16_SCALE, its value (N,), the logits (N,K)."""

    gradient: Tensor
    value: Tensor
    logits: Tensor


def input_gradient(objective: Objective, x: Tensor) -> Slope:
    """The objective at x and its gradient with respect to the images alone."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value, logits = objective(x)
        (gradient,) = torch.autograd.grad(value, x, torch.full_like(value, FP16_SCALE))
    return Slope(gradient, value.detach(), logits.detach())


def ascend(
    objective: Objective,
    x: Tensor,
    start: Tensor,
    ball: Ball,
    *,
    steps: int,
    step_size: float,
    broken: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Climb `objective` from `start` by `steps` steepest steps of length `step_size`, each projected into `ball`.

    x, start and the result: (N,C,H,W) fp32 in [0,1]. With `broken` (logits (N,K) to (N,) bool) an example stays at
    the first point that it calls broken. The model behind `objective` must be inside `attacked`.
    """
    x_adv, project = start, ball.around(x)
    for _ in range(steps):
        here = input_gradient(objective, x_adv)
        moved = project(x_adv.add(ball.steepest(here.gradient), alpha=step_size))
        x_adv = moved if broken is None else torch.where(per_image(broken(here.logits), x), x_adv, moved)
    return x_adv.detach()
