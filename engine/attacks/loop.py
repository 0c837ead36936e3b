"""Projected gradient ascent: one gradient, one step, and who repeats them.

There are two drivers of the same step. `ascend` below takes every step of a whole batch at once, for training and for
the causal inversion. `SignedSteps` (FGSM, PGD and CW in an evaluation) takes one step of examples that are each at a
step of their own, because the scheduler replaces an example as soon as it is broken. For that the host must know after
every step which examples are broken, so it waits for the device; a training step must not wait, and never stops early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engine.attacks.balls import Ball
from engine.contract.errors import UsageError

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images (N,C,H,W) to what is to be maximised (N,), and the logits (N,K) it was computed from."""

FP16_SCALE = 1024.0
"""Multiplies the objective before differentiating: in fp16 small gradients would vanish; direction is unchanged."""


class NoGradient(UsageError):
    """A network whose answer has no gradient with respect to its images."""

    def __init__(self) -> None:
        super().__init__(
            "the network's answer has no gradient with respect to the image",
            "Its forward uses torch.no_grad, detach, argmax or numpy, or rounds to integers; the attacks `clean` and "
            "`square` need no gradient.",
        )


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
    """The objective at x and its gradient with respect to the images alone. Raises NoGradient where there is none."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value, logits = objective(x)
        if not value.requires_grad:
            raise NoGradient
        (gradient,) = torch.autograd.grad(value, x, torch.full_like(value, FP16_SCALE), allow_unused=True)
    if gradient is None:
        raise NoGradient
    return Slope(gradient, value.detach(), logits.detach())


def steepest_step(
    point: Tensor, gradient: Tensor, ball: Ball, step_size: float, project: Callable[[Tensor], Tensor]
) -> Tensor:
    """`point` (N,C,H,W) moved by `step_size` (in image units) where `gradient` is steepest, then brought back.

    `project` maps images into ball and box; it is given a new tensor, which it may change in place.
    """
    return project(point.add(ball.steepest(gradient), alpha=step_size))


def ascend(objective: Objective, x: Tensor, start: Tensor, ball: Ball, *, steps: int, step_size: float) -> Tensor:
    """Climb `objective` from `start` by `steps` steepest steps of length `step_size`, each projected into `ball`.

    x, start and the result: (N,C,H,W) fp32 in [0,1]. The model behind `objective` must be inside `attacked`.
    """
    x_adv, project = start, ball.around(x)
    for _ in range(steps):
        gradient = input_gradient(objective, x_adv).gradient
        x_adv = steepest_step(x_adv, gradient, ball, step_size, project)
    return x_adv.detach()
