"""Signs, in the held-out accuracies of a training, that its network should not be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from engine.contract.profile.catalogue import DEFENCES
from engine.contract.profile.schema import Adversary

FALL, ERRORS = 5.0, 3.0
"""Points below its best that held-out robust accuracy may be, twice in a row, before robust overfitting is said (Rice
et al. 2020): at least so many, and so many standard errors of the difference of two accuracies of as many images."""
LOST, HAD = 0.2, 10.0
"""Catastrophic overfitting (Wong et al. 2020): less than this share is left of a robust accuracy of at least that."""
NEAR_MAJORITY = 1.1
PATIENCE = 3
"""Epochs after which a training that is no better than the most frequent class counts as collapsed; or all it had."""


class Epoch(NamedTuple):
    """Held-out accuracies in percent after an epoch; `robust` is None where nothing is attacked."""

    clean: float
    robust: float | None
    loss: float = 0.0


def another_attack(adversary: Adversary, defence: str) -> str:
    """What to try where a network withstands the attack inside its training alone: that attack and another one."""
    if DEFENCES[defence].adversary is not None:
        return f"{defence} trains with {adversary.attack} alone; try the defence adv with pgd, or a smaller step_size"
    if adversary.attack == "fgsm":
        return "try pgd instead of fgsm, or a smaller step_size"
    if adversary.attack == "mixed":
        return "try pgd instead of mixed, or a larger pgd_share"
    return f"pgd of {adversary.steps} steps was used; try more steps with a smaller step_size, or a lower learning rate"


def alarms(
    history: Sequence[Epoch], images: int, majority: float, *, over: bool = False, remedy: str = ""
) -> dict[str, str]:
    """Kind -> sentence for everything that can be said after the last of these epochs; `over` if there is no other.

    Of the held-out `images`, `majority` percent are of the most frequent class. `remedy` names the attack of the
    training and what to try instead.
    """
    if not math.isfinite(history[-1].loss):
        return {
            "diverged": f"the training has diverged: held-out loss is {history[-1].loss} after epoch {len(history)}; "
            "try a lower learning rate or a longer warm-up"
        }
    signs: dict[str, str] = {}
    robust = [epoch.robust for epoch in history if epoch.robust is not None]
    if robust:
        best = max(robust)
        epoch = robust.index(best) + 1
        if best >= HAD and robust[-1] < LOST * best:
            signs["catastrophic"] = (
                f"catastrophic overfitting: held-out robust accuracy fell from {best:.1f}% to {robust[-1]:.1f}%"
                + (f"; {remedy}" if remedy else "")
            )
        elif max(robust[-2:]) < best - max(FALL, ERRORS * math.sqrt(2 * best * (100 - best) / images)):
            signs["overfitting"] = (
                f"robust overfitting: held-out robust accuracy {robust[-1]:.1f}%, its best was {best:.1f}% after "
                f'epoch {epoch}; `select = "best"` keeps that'
            )
    recent = history[-PATIENCE:]
    if (over or len(recent) == PATIENCE) and all(epoch.clean <= NEAR_MAJORITY * majority for epoch in recent):
        epochs = f"{len(recent)} epochs" if len(recent) > 1 else "its one epoch"
        signs["collapse"] = (
            f"the training has collapsed: for {epochs} held-out accuracy, now {history[-1].clean:.1f}%, has been no "
            f"better than that of the most frequent class alone, {majority:.1f}%; "
            "try a lower learning rate or a longer warm-up"
        )
    return signs
