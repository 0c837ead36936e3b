"""Attacks by name. Each takes (model, batch, setting, restart) and returns x_adv (N,C,H,W); it never measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from engine.attacks import pgd
from engine.attacks.balls import Ball
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
    """One column of the table. `restarts` and `steps` tell from the stage how often and how long it runs."""

    run: Callable[[nn.Module, Batch, Setting, int], Tensor]
    steps: Callable[[Evaluate], int]
    restarts: Callable[[Evaluate], int] = lambda stage: 1


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


_FGSM = Attack(_fgsm, steps=lambda stage: 1)
_PGD = Attack(_pgd, steps=lambda stage: stage.pgd_steps, restarts=lambda stage: stage.pgd_restarts)

ATTACKS: dict[str, Attack] = {
    "clean": Attack(_clean, steps=lambda stage: 0),
    "fgsm": _FGSM,
    "pgd": _PGD,
    "fgsm-l2": _FGSM,
    "pgd-l2": _PGD,
}
