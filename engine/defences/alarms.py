"""Signs, in the held-out accuracies of a training, that its network should not be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

FALL = 5.0
"""Points below its best that held-out robust accuracy may be before robust overfitting is said (Rice et al. 2020)."""
LOST, HAD = 0.2, 10.0
"""Catastrophic overfitting (Wong et al. 2020): less than this share is left of a robust accuracy of at least that."""
NEAR_CHANCE = 1.2
PATIENCE = 3
"""Epochs at chance level after which a training counts as collapsed."""


class Epoch(NamedTuple):
    """Held-out accuracies in percent after an epoch; `robust` is None where nothing is attacked."""

    clean: float
    robust: float | None


def alarms(history: Sequence[Epoch], classes: int) -> dict[str, str]:
    """Kind -> sentence for everything that can be said after the last of these epochs."""
    found: dict[str, str] = {}
    robust = [epoch.robust for epoch in history if epoch.robust is not None]
    if robust:
        best = max(robust)
        epoch = robust.index(best) + 1
        if best >= HAD and robust[-1] < LOST * best:
            found["catastrophic"] = (
                f"catastrophic overfitting: held-out robust accuracy fell from {best:.1f}% to {robust[-1]:.1f}%; "
                "try pgd instead of fgsm, or a smaller step"
            )
        elif robust[-1] < best - FALL:
            found["overfitting"] = (
                f"robust overfitting: held-out robust accuracy {robust[-1]:.1f}%, its best was {best:.1f}% after "
                f'epoch {epoch}; `select = "best"` keeps that'
            )
    recent = history[-PATIENCE:]
    if len(recent) == PATIENCE and all(epoch.clean <= NEAR_CHANCE * 100 / classes for epoch in recent):
        found["collapse"] = (
            f"the training has collapsed: held-out accuracy has been at chance for {PATIENCE} epochs; "
            "try a lower learning rate or a longer warm-up"
        )
    return found
