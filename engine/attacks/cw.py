"""The Linf attack of Carlini and Wagner (S&P 2017) as robustness papers run it: signed steps up the logit margin."""

from __future__ import annotations

from torch import Tensor, nn

from engine.attacks.balls import Ball
from engine.attacks.loop import ascend, attacked
from engine.attacks.losses import margin
from engine.attacks.pgd import against_labels
from engine.data import Batch
from engine.device import Compute


def cw(model: nn.Module, batch: Batch, ball: Ball, compute: Compute, *, steps: int) -> Tensor:
    """`steps` steps of 3*eps/steps from the clean image, kappa 0: x_adv (N,C,H,W).

    An example stays at the first point where it is misclassified.
    """
    with attacked(model):
        return ascend(
            against_labels(model, batch.y, compute, margin),
            batch.x,
            batch.x,
            ball,
            steps=steps,
            step_size=3 * ball.eps / steps,
            broken=lambda logits: logits.argmax(1) != batch.y,
        )
