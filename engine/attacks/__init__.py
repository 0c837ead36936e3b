"""Attacks by name. Each takes (model, batch, setting, restart) and returns x_adv (N,C,H,W); it never measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from engine.attacks import apgd, cw, pgd
from engine.attacks.balls import Ball
from engine.attacks.losses import DLR_LEAST_CLASSES, cross_entropy, dlr
from engine.contract.schema import Evaluate
from engine.data import Batch
from engine.device import Compute


@dataclass(frozen=True)
class Setting:
    """What an attack in an evaluation may use: the ball, the profile's evaluate stage, the seed, the device."""

    ball: Ball
    stage: Evaluate
    seed: int
    compute: Compute


@dataclass(frozen=True)
class Attack:
    """One column of the table.

    `steps` (gradients an example costs at most) and `restarts` come from the stage; `note` says, for a number of
    classes, what a reader of the numbers must know.
    """

    run: Callable[[nn.Module, Batch, Setting, int], Tensor]
    steps: Callable[[Evaluate], int]
    restarts: Callable[[Evaluate], int] = lambda stage: 1
    note: Callable[[int], str] = lambda classes: ""


def _clean(model: nn.Module, batch: Batch, setting: Setting, restart: int) -> Tensor:
    return batch.x


def _fgsm(model: nn.Module, batch: Batch, setting: Setting, restart: int) -> Tensor:
    return pgd.fgsm(model, batch, setting.ball, setting.compute)


def _pgd(model: nn.Module, batch: Batch, setting: Setting, restart: int) -> Tensor:
    return pgd.pgd(
        model,
        batch,
        setting.ball,
        setting.compute,
        steps=setting.stage.pgd_steps,
        step_size=2.3 * setting.ball.eps / setting.stage.pgd_steps,
        seed=setting.seed,
        restart=restart,
    )


def _cw(model: nn.Module, batch: Batch, setting: Setting, restart: int) -> Tensor:
    return cw.cw(model, batch, setting.ball, setting.compute, steps=setting.stage.cw_steps)


def _apgd(loss: pgd.LabelLoss) -> Callable[[nn.Module, Batch, Setting, int], Tensor]:
    def run(model: nn.Module, batch: Batch, setting: Setting, restart: int) -> Tensor:
        return apgd.apgd(
            model,
            batch,
            setting.ball,
            setting.compute,
            loss,
            steps=setting.stage.apgd_steps,
            seed=setting.seed,
            restart=restart,
        )

    return run


def _without_third_logit(classes: int) -> str:
    return "DLR needs three classes; the logit margin was used" if classes < DLR_LEAST_CLASSES else ""


_FGSM = Attack(_fgsm, steps=lambda stage: 1)
_PGD = Attack(_pgd, steps=lambda stage: stage.pgd_steps, restarts=lambda stage: stage.pgd_restarts)
_APGD_CE = Attack(
    _apgd(cross_entropy), steps=lambda stage: stage.apgd_steps + 1, restarts=lambda stage: stage.apgd_restarts
)
_APGD_DLR = replace(_APGD_CE, run=_apgd(dlr), note=_without_third_logit)

ATTACKS: dict[str, Attack] = {
    "clean": Attack(_clean, steps=lambda stage: 0),
    "fgsm": _FGSM,
    "pgd": _PGD,
    "cw": Attack(_cw, steps=lambda stage: stage.cw_steps),
    "apgd-ce": _APGD_CE,
    "apgd-dlr": _APGD_DLR,
    "fgsm-l2": _FGSM,
    "pgd-l2": _PGD,
    "apgd-ce-l2": _APGD_CE,
    "apgd-dlr-l2": _APGD_DLR,
}
