"""What a profile will do before it is done: steps and relative cost of each stage, known without torch.

Cost is counted in passes of one image through the classifier: forward 1, gradient for the image 2, training step 3;
what held-out images cost is part of it. It orders stages and gives a time to go; it is no promise of seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec import structs

from engine.contract.profile.catalogue import ATTACKS, CLEAN, DEFENCES, L2, Norm, is_averaged, parts, plain
from engine.contract.profile.resolving import kind_of
from engine.contract.profile.schema import Adversary, Evaluate, Game, Inoculate, Profile, Stage, Train

_ATTACK_STEP = 2.0
_TRAIN_PASS = 3.0
_TREATMENTS = 4.0
"""Passes that one step of h and g costs: 1 (VGG-16, images of 32) to 6 (the small network, images of 28)."""
_PLAYED = _TREATMENTS / 3
"""Passes that it costs to let h and g answer on an image: g(Z), h(g(Z)) and h(Z)."""
JUDGE_STEPS = 10
"""Of the attack on held-out images, where training has a cheaper one."""
DIAGNOSED = 1024
"""Held-out images that the diagnosis of a game looks at, at most: half of them to train g again, half to judge it."""


@dataclass(frozen=True)
class StagePlan:
    """Optimiser steps (or examples decided under an attack) of a stage, its epochs, and its cost in image passes."""

    id: str
    kind: str
    steps: int
    epochs: int
    cost: float


def validation_size(profile: Profile) -> int:
    """Training images that are held out: at least one."""
    return max(1, round(profile.data.validation * profile.data.facts.pool))


def train_size(profile: Profile) -> int:
    """Images that are trained on."""
    return profile.data.facts.pool - validation_size(profile)


def test_size(profile: Profile, stage: Evaluate) -> int:
    """Test images that an evaluation attacks."""
    size = profile.data.facts.test
    return min(stage.limit or size, size)


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
        table = columns(profile, stage)
        passes = sum(evaluation_cost(profile, stage, column.attack) for column in table)
        steps = size * len(stage.models) * len(table)
        return StagePlan(str(stage.id), kind_of(stage), steps, 0, passes * size * len(stage.models))
    steps = batches(train_size(profile), stage.batch_size) * stage.epochs
    cost = _cost_of_game(profile, stage) if isinstance(stage, Game) else _cost_of_training(profile, stage)
    return StagePlan(str(stage.id), kind_of(stage), steps, stage.epochs, cost)


def _cost_of_game(profile: Profile, stage: Game) -> float:
    size, held_out, tested = train_size(profile), validation_size(profile), profile.data.facts.test
    draws = -(-stage.epochs // stage.reuse_epochs)
    features = (_ATTACK_STEP * _steps(stage.adversary) + 2) * (draws * stage.views * size + held_out + tested)
    regret = _TREATMENTS / 4 * stage.regret_steps * min(held_out, DIAGNOSED)
    return features + stage.epochs * (_TREATMENTS * size + _PLAYED * held_out + regret) + _PLAYED * tested


def _cost_of_training(profile: Profile, stage: Train | Inoculate) -> float:
    defence, attack = DEFENCES[stage.defence], _ATTACK_STEP * _steps(stage.adversary)
    passes, measured = attack + _TRAIN_PASS * defence.passes, 2 + _ATTACK_STEP * _steps(judge(stage.adversary))
    if isinstance(stage, Inoculate):
        passes += 2 * _TRAIN_PASS + _ATTACK_STEP * stage.inversion_steps
    elif not defence.attacks:
        passes, measured = _TRAIN_PASS, 1.0
    return stage.epochs * (passes * train_size(profile) + measured * validation_size(profile))


def judge(adversary: Adversary) -> Adversary:
    """What measures robustness on held-out images: PGD up the cross-entropy, that of training or 10 steps.

    A single step cannot see catastrophic overfitting, which is a network that only withstands single steps.
    """
    if adversary.attack == "pgd":
        return structs.replace(adversary, loss="ce")
    return Adversary(steps=JUDGE_STEPS, step_size=2.3 / JUDGE_STEPS)


@dataclass(frozen=True)
class Column:
    """A column of a robust-accuracy table: an attack in a ball. `name` tells the radius where there are several."""

    name: str
    attack: str
    norm: Norm
    eps: float


def columns(profile: Profile, stage: Evaluate) -> list[Column]:
    """The columns of the table of a stage, in order; `clean` is one column whatever the radii are."""
    threat, found = profile.threat, []
    for attack in stage.attacks:
        norm: Norm = "l2" if attack.endswith(L2) else threat.norm
        if attack == CLEAN:
            found.append(Column(attack, attack, norm, 0.0))
        elif norm != threat.norm and threat.eps_l2 is not None:
            found.append(Column(attack, attack, norm, threat.eps_l2))
        elif stage.eps is None:
            found.append(Column(attack, attack, norm, threat.eps))
        else:
            found += [Column(f"{attack}@{eps:.4g}", attack, norm, eps) for eps in stage.eps]
    return found


def budget_keys(attack: str) -> tuple[str, ...]:
    """The keys of an evaluate stage that make this attack another one; nothing for `clean`."""
    if attack == CLEAN:
        return ()
    keys = [key for part in parts(attack) for key in ATTACKS[plain(part)].keys]
    return tuple(dict.fromkeys([*keys, *(["eot"] if is_averaged(attack) else []), "source"]))


def budget(stage: Evaluate, attack: str, classes: int) -> list[Any]:
    """The values of the keys of an attack that is one search: its cost and its note depend on them."""
    values = structs.asdict(stage) | {"targets": min(stage.targets, classes - 1)}
    return [values[key] for key in ATTACKS[plain(attack)].keys]


def evaluation_cost(profile: Profile, stage: Evaluate, attack: str) -> float:
    """Passes that an attack spends on each example at most."""
    classes = profile.data.facts.classes
    steps = [ATTACKS[plain(part)].steps(*budget(stage, part, classes)) for part in parts(attack)]
    repeats = stage.eot if is_averaged(attack) else 1
    return 1 + repeats * _ATTACK_STEP * sum(steps)


def _steps(adversary: Adversary) -> float:
    share = {"pgd": 1.0, "fgsm": 0.0, "mixed": adversary.pgd_share}[adversary.attack]
    return 1 + share * (adversary.steps - 1)
