"""Auto-PGD (Croce and Hein, ICML 2020): PGD with momentum and a step size that each example halves for itself.

A loop of its own, beside `loop.ascend`: its steps depend on the history of every example.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine import draws
from engine.attacks.balls import Ball, per_image
from engine.attacks.loop import Objective, attacked, input_gradient
from engine.attacks.pgd import LabelLoss, against_labels
from engine.data import Batch
from engine.device import Compute

MOMENTUM = 0.75
LEAST_INCREASES = 0.75
"""Share of a window's steps that must increase the loss for the step size to be kept."""


def checkpoints(steps: int) -> list[int]:
    """After how many of `steps` steps the step size is reconsidered: for 100, at 22 41 57 70 80 87 93 99.

    Windows shrink from 22% of the steps by 3% each, to 6% at least, as in the authors' code.
    """
    window, shrink, least = max(int(0.22 * steps), 1), max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)
    found: list[int] = []
    at = window
    while at <= steps:
        found.append(at)
        window = max(window - shrink, least)
        at += window
    return found


def apgd(
    model: nn.Module,
    batch: Batch,
    ball: Ball,
    compute: Compute,
    loss: LabelLoss,
    *,
    steps: int,
    seed: int,
    restart: int = 0,
) -> Tensor:
    """`steps` steps from a random point of the ball's surface: x_adv (N,C,H,W).

    For a broken example its first misclassified point, for the others the point of highest loss. The first window
    counts the first step against the start (the authors' code counts it as an increase whatever it was).
    """
    x, y = batch.x, batch.y
    start = ball.surface_point(x, draws.keys(seed, batch.index, "apgd", restart))
    with attacked(model):
        objective = against_labels(model, y, compute, loss)
        return _climb(objective, x, y, start, ball, steps)


def _climb(objective: Objective, x: Tensor, y: Tensor, start: Tensor, ball: Ball, steps: int) -> Tensor:
    here = input_gradient(objective, start)
    x_adv, x_before, x_best, x_broken = start, start, start, start
    gradient, best_gradient, best = here.gradient, here.gradient, here.value
    broken = here.logits.argmax(1) != y
    size, increases = torch.full_like(best, 2 * ball.eps), torch.zeros_like(best)
    best_at_check, reduced = best, torch.ones_like(broken)
    checks, last_check = set(checkpoints(steps)), 0
    for step in range(1, steps + 1):
        momentum = MOMENTUM if step > 1 else 1.0
        z = ball.project(x_adv + per_image(size, x) * ball.steepest(gradient), x)
        moved = ball.project(x_adv + momentum * (z - x_adv) + (1 - momentum) * (x_adv - x_before), x)
        x_before, x_adv, value_before = x_adv, moved, here.value
        here = input_gradient(objective, x_adv)
        gradient = here.gradient
        newly = (here.logits.argmax(1) != y) & ~broken
        x_broken = torch.where(per_image(newly, x), x_adv, x_broken)
        broken = broken | newly
        increases = increases + (here.value > value_before)
        better = here.value > best
        x_best = torch.where(per_image(better, x), x_adv, x_best)
        best_gradient = torch.where(per_image(better, x), gradient, best_gradient)
        best = torch.maximum(here.value, best)
        if step in checks:
            few = increases <= LEAST_INCREASES * (step - last_check)
            reduced = few | (~reduced & (best <= best_at_check))
            size = torch.where(reduced, size / 2, size)
            x_adv = torch.where(per_image(reduced, x), x_best, x_adv)
            gradient = torch.where(per_image(reduced, x), best_gradient, gradient)
            increases, best_at_check, last_check = torch.zeros_like(increases), best, step
    return torch.where(per_image(broken, x), x_broken, x_best)
