"""Attacks by name. Each makes a search for a ball out of an evaluate stage; none of them measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.attacks.apgd import Apgd
from engine.attacks.balls import Ball
from engine.attacks.fab import Fab
from engine.attacks.losses import (
    DLR_LEAST_CLASSES,
    TARGETED_DLR_LEAST_CLASSES,
    cross_entropy,
    dlr,
    margin,
    targeted_dlr,
)
from engine.attacks.pgd import LabelLoss, SignedSteps
from engine.attacks.search import Search
from engine.attacks.square import Square
from engine.contract.profile.schema import Evaluate

LOSSES: dict[str, LabelLoss | None] = {"ce": cross_entropy, "margin": margin, "dlr": dlr, "kl": None}
"""What pgd maximises by the name in a profile; None: KL from the clean answer."""


@dataclass(frozen=True)
class Setting:
    """What an attack in an evaluation may use: the ball, the profile's evaluate stage, the seed, how many classes."""

    ball: Ball
    stage: Evaluate
    seed: int
    classes: int

    @property
    def stops(self) -> bool:
        """Whether the network that is asked is the one that is tested."""
        return self.stage.source is None

    @property
    def targets(self) -> int:
        """Classes that a targeted attack aims at."""
        return min(self.stage.targets, self.classes - 1)


@dataclass(frozen=True)
class Attack:
    """One column of the table. `note` says, for a setting, what a reader of the number must know.

    `uses_gradients` is false for attacks that see answers only.
    """

    search: Callable[[Setting], Search]
    note: Callable[[Setting], str] = lambda setting: ""
    uses_gradients: bool = True


def _fgsm(s: Setting) -> Search:
    return SignedSteps(s.ball, s.seed, 1, stops=s.stops, step_size=s.ball.eps, random_start=False)


def _pgd(s: Setting) -> Search:
    steps = s.stage.pgd_steps
    size, loss = 2.3 * s.ball.eps / steps, LOSSES[s.stage.pgd_loss]
    return SignedSteps(s.ball, s.seed, steps, s.stage.pgd_restarts, s.stops, step_size=size, loss=loss)


def _cw(s: Setting) -> Search:
    steps = s.stage.cw_steps
    size = 3 * s.ball.eps / steps
    return SignedSteps(s.ball, s.seed, steps, stops=s.stops, step_size=size, loss=margin, random_start=False)


def _apgd(loss: LabelLoss) -> Callable[[Setting], Search]:
    return lambda s: Apgd(s.ball, s.seed, s.stage.apgd_steps, s.stage.apgd_restarts, s.stops, loss=loss)


def _apgd_t(s: Setting) -> Search:
    return Apgd(s.ball, s.seed, s.stage.apgd_steps, s.targets, s.stops, target_loss=targeted_dlr)


def _fab_t(s: Setting) -> Search:
    return Fab(s.ball, s.seed, s.stage.fab_steps, s.targets)


def _square(s: Setting) -> Search:
    return Square(s.ball, s.seed, s.stage.square_queries)


def _without_third_logit(s: Setting) -> str:
    return "DLR needs three classes; the logit margin was used" if s.classes < DLR_LEAST_CLASSES else ""


def _without_fourth_logit(s: Setting) -> str:
    few = s.classes < TARGETED_DLR_LEAST_CLASSES
    return "targeted DLR needs four classes; the targeted margin was used" if few else ""


_SINGLE: dict[str, Attack] = {
    "fgsm": Attack(_fgsm),
    "pgd": Attack(_pgd, lambda s: _without_third_logit(s) if s.stage.pgd_loss == "dlr" else ""),
    "cw": Attack(_cw),
    "apgd-ce": Attack(_apgd(cross_entropy)),
    "apgd-dlr": Attack(_apgd(dlr), _without_third_logit),
    "apgd-t": Attack(_apgd_t, _without_fourth_logit),
    "fab-t": Attack(_fab_t),
    "square": Attack(_square, uses_gradients=False),
}
ATTACKS: dict[str, Attack] = _SINGLE | {f"{name}-l2": attack for name, attack in _SINGLE.items() if name != "cw"}
"""Every attack that is one search. `clean` needs none, and ENSEMBLES in the catalogue are several of these."""
