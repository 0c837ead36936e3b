"""What a profile will do before it is done: steps and relative cost of each stage, known without torch.

Cost is counted in passes of one image through the classifier: forward 1, gradient for the image 2, training step 3.
It orders stages and gives a time to go; it is no promise of seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from engine.contract.catalogue import DATA_FACTS
from engine.contract.resolving import kind_of
from engine.contract.schema import Adversary, Evaluate, Game, Inoculate, Profile, Stage, Train

_ATTACK_STEP = 2.0
_TRAIN_PASS = 3.0
_TREATMENTS = 12.0
"""Passes that one step of h and g costs, next to a classifier of their size."""


@dataclass(frozen=True)
class StagePlan:
    """Optimiser steps (or attacked batches) of a stage, its epochs, and its cost in image passes."""

    id: str
    kind: str
    steps: int
    epochs: int
    cost: float


def validation_size(profile: Profile) -> int:
    """Training images that are held out: at least one."""
    return max(1, round(profile.data.validation * DATA_FACTS[profile.data.name].pool))


def train_size(profile: Profile) -> int:
    """Images that are trained on."""
    return DATA_FACTS[profile.data.name].pool - validation_size(profile)


def test_size(profile: Profile, stage: Evaluate) -> int:
    """Test images that an evaluation attacks."""
    return min(stage.limit or DATA_FACTS[profile.data.name].test, DATA_FACTS[profile.data.name].test)


def batches(count: int, size: int) -> int:
    """Training steps that `count` images make in batches of `size`; a last batch of one image is left out.

    BatchNorm cannot learn the variance of a single value. The order of an epoch is random, so no image is left out
    for good.
    """
    full, rest = divmod(count, size)
    return full + (rest > 1 or full == 0)


def plan(profile: Profile) -> list[StagePlan]:
    """The stages of a resolved profile, in order."""
    return [_plan(profile, stage) for stage in profile.stage]


def _plan(profile: Profile, stage: Stage) -> StagePlan:
    if isinstance(stage, Evaluate):
        size = test_size(profile, stage)
        assert stage.models is not None
        passes = sum(1 + _ATTACK_STEP * evaluation_steps(stage, attack) for attack in stage.attacks)
        steps = ceil(size / stage.batch_size) * len(stage.models) * len(stage.attacks)
        return StagePlan(str(stage.id), kind_of(stage), steps, 0, passes * size * len(stage.models))
    size = train_size(profile)
    steps = batches(size, stage.batch_size) * stage.epochs
    passes = _ATTACK_STEP * _steps(stage.adversary)
    if isinstance(stage, Game):
        passes += 2 + _TREATMENTS
    elif isinstance(stage, Train):
        passes = _TRAIN_PASS if stage.defence == "standard" else passes + _TRAIN_PASS * _views(stage)
    else:
        passes += _TRAIN_PASS * (1 + _views(stage)) + 3 + _ATTACK_STEP * stage.inversion_steps
    return StagePlan(str(stage.id), kind_of(stage), steps, stage.epochs, passes * size * stage.epochs)


def evaluation_steps(stage: Evaluate, attack: str) -> int:
    """Gradient steps that an attack spends on each example at most."""
    steps = {
        "clean": 0,
        "fgsm": 1,
        "pgd": stage.pgd_steps * stage.pgd_restarts,
        "cw": stage.cw_steps,
        "apgd-ce": (stage.apgd_steps + 1) * stage.apgd_restarts,
        "apgd-dlr": (stage.apgd_steps + 1) * stage.apgd_restarts,
    }
    return steps[attack.removesuffix("-l2")]


def _steps(adversary: Adversary) -> int:
    return adversary.steps if adversary.attack == "pgd" else 1


def _views(stage: Train | Inoculate) -> int:
    return 2 if stage.defence == "trades" else 1
