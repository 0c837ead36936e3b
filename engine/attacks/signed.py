"""The attacks of a table that are signed steps up a loss: FGSM, PGD, and the one that goes by CW."""

from __future__ import annotations

from engine.attacks.losses import cross_entropy, dlr, margin
from engine.attacks.pgd import LabelLoss, SignedSteps
from engine.attacks.search import Search
from engine.attacks.setting import Setting

LOSSES: dict[str, LabelLoss | None] = {"ce": cross_entropy, "margin": margin, "dlr": dlr, "kl": None}
"""What pgd maximises by the name in a profile; None: KL from the clean answer."""


def fgsm(s: Setting) -> Search:
    """One step of eps from the clean image."""
    return SignedSteps(s.ball, s.seed, 1, stops=s.stops, step_size=s.ball.eps, random_start=False)


def pgd(s: Setting) -> Search:
    """Steps that make 2.3 eps together, from random starts."""
    steps = s.stage.pgd_steps
    size, loss = 2.3 * s.ball.eps / steps, LOSSES[s.stage.pgd_loss]
    return SignedSteps(s.ball, s.seed, steps, s.stage.pgd_restarts, s.stops, step_size=size, loss=loss)


def cw(s: Setting) -> Search:
    """Steps up the margin that make 3 eps together, from the clean image or from a random point."""
    steps = s.stage.cw_steps
    size = 3 * s.ball.eps / steps
    start = s.stage.cw_random_start
    return SignedSteps(s.ball, s.seed, steps, stops=s.stops, step_size=size, loss=margin, random_start=start)
