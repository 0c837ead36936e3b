"""Signs that a robust accuracy cannot be trusted, put beside the number they touch.

What to look for: Athalye et al. (ICML 2018, arXiv 1802.00420), Carlini et al. (arXiv 1902.06705), and the flags of
AutoAttack (Croce and Hein, ICML 2020).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from msgspec import structs
from torch import Tensor, nn

from engine.attacks import ATTACKS
from engine.attacks.balls import Ball
from engine.attacks.clean import Clean, Examples
from engine.attacks.queries import Oracle, Oracles
from engine.attacks.scheduler import LiveExamples
from engine.attacks.setting import Setting
from engine.attacks.tally import Tally
from engine.contract.errors import UsageError
from engine.contract.profile.catalogue import ATTACKS as ROWS
from engine.contract.profile.catalogue import ENSEMBLES, L2, plain
from engine.contract.run.records import Part
from engine.data import Images
from engine.device import Compute
from engine.models.answers import refuse_answer

GAIN, LEAST_GAIN = 0.2, 3
"""Points (AutoAttack's threshold) and examples by which a weaker attack must beat stronger ones to be no accident."""
LOOKED_AT = 64
"""Examples on which a network is tried with a ball that leaves it no chance."""
HOPELESS_STEPS = 20
COMPARABLE = 28
"""Side of images from which on our Square and the official one agree (28x28: 76.0 against 76.2%)."""


def refuse(model: nn.Module, images: Images, classes: int, compute: Compute) -> None:
    """Raise UsageError for data or a network that cannot be evaluated."""
    if not len(images):
        raise UsageError("no examples to evaluate: the test set is empty", "Check `data` and `limit`.")
    labels = images.labels
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UsageError(
            f"labels from {int(labels.min())} to {int(labels.max())} do not fit {classes} classes",
            f"Labels must be 0 to {classes - 1}.",
        )
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.device != compute.device:
            raise UsageError(
                f"the network is not on {compute.device}: {name} is on {value.device}",
                "A factory must return a network that can be moved: keep every tensor as parameter or buffer.",
            )
    batch = images.take(torch.zeros(1, dtype=torch.int64, device=labels.device), compute)
    if not bool(((batch.x >= 0) & (batch.x <= 1)).all()):
        raise UsageError("images outside of [0,1]", "Put the normalisation into the network, not into the data.")
    refuse_answer(model, batch.x, classes)


def of_images(asked: int | None, images: int) -> list[str]:
    """Whether there were as many examples as asked for."""
    if asked is None or asked <= images:
        return []
    return [f"{images} examples instead of {asked}: the data set has no more"]


def of_classes(labels: Tensor, classes: int) -> list[str]:
    """Whether there are examples of every class among those with `labels` (N,)."""
    lacking = classes - len(labels.unique())
    return [f"no image of {lacking:,} of the {classes:,} classes is among these {len(labels):,}"] if lacking else []


def of_small_images(attack: str, side: int) -> list[str]:
    """Whether a number of square is not that of its authors' code, whose squares leave out a row and a column."""
    if plain(attack) != "square" or side >= COMPARABLE:
        return []
    return [
        f"not comparable with the official Square on images of {side}x{side}: ours reaches the last row and column, "
        "the official code never does and breaks fewer (8x8: 73.0 against 67.0%); `aa` agrees"
    ]


def of_answers(not_finite: int) -> list[str]:
    """Whether answers of the network were no numbers."""
    return [f"{not_finite} answers of the network were not finite; they count as wrong"] if not_finite else []


def of_budgets(setting: Setting, standard: Mapping[str, int]) -> list[str]:
    """Whether an ensemble has the budgets that its name stands for; more targets than that change nothing."""
    stage = setting.stage
    changed = {key: getattr(stage, key) for key, value in standard.items() if getattr(stage, key) != value}
    if stage.targets >= min(standard.get("targets", 0), setting.classes - 1):
        changed.pop("targets", None)
    budgets = ", ".join(f"{key} = {value}" for key, value in changed.items())
    return [f"not the standard AutoAttack: {budgets}"] if changed else []


def of_search(tally: Tally, attack: str) -> list[str]:
    """What the search of an attack, by the name of its column, noticed itself."""
    notes = of_answers(tally.count("not_finite"))
    if outside := tally.count("outside"):
        notes.append(f"{outside} points left the ball or the box and were not counted")
    if mute := tally.count("mute"):
        notes.append(
            f"the first gradient was zero or not finite in {mute} of {tally.attempts} attempts: "
            f"gradients may be masked, look at square{attack.removeprefix(plain(attack))}"
        )
    return notes


def no_accident(more: int, examples: int) -> bool:
    """Whether a weaker attack breaks so many more of the examples that a warning is due."""
    return more >= LEAST_GAIN and 100.0 * more > GAIN * examples


def of_parts(done: Sequence[Part], examples: int) -> list[str]:
    """Whether the parts of an ensemble that see answers alone broke what its gradient parts had left."""
    notes = []
    for before, part in pairwise(done):
        if not ROWS[plain(part.attack)].gradients:
            more = before.correct - part.correct
            if no_accident(more, examples):
                notes.append(_masked(part.attack, more, examples, "the gradient parts had left"))
    return notes


def _masked(attack: str, more: int, examples: int, left: str) -> str:
    """AutoAttack's warning, in our words."""
    return (
        f"{attack} alone broke {100.0 * more / examples:.1f} points ({more} examples) that {left}: gradients may be "
        "masked and the network less robust than this; try more queries and restarts, or an attack made for it"
    )


def of_table(right: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """By attack: signs in the outcomes (N,) of the other attacks on the same examples at the same radius."""
    notes: dict[str, list[str]] = {}
    for suffix in ("", L2):
        columns = {plain(name): values for name, values in right.items() if name.endswith(L2) == bool(suffix)}
        if note := _pgd_against_fgsm(columns, suffix):
            notes.setdefault(f"pgd{suffix}", []).append(note)
        for name, note in [*_without_gradients(columns), *_ensembles_beaten(columns, suffix)]:
            notes.setdefault(f"{name}{suffix}", []).append(note)
    return notes


def _pgd_against_fgsm(columns: Mapping[str, np.ndarray], suffix: str) -> str:
    if "fgsm" not in columns or "pgd" not in columns:
        return ""
    pgd, fgsm = columns["pgd"], columns["fgsm"]
    if not no_accident(int(pgd.sum()) - int(fgsm.sum()), len(pgd)):
        return ""
    return (
        f"weaker than fgsm{suffix} ({100.0 * float(pgd.mean()):.1f} against {100.0 * float(fgsm.mean()):.1f}): "
        "more steps should find more; look for masked gradients"
    )


def _without_gradients(columns: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    """Attacks that ask for no gradient and break what those that do left, each with its note."""
    single = [name for name in columns if name in ATTACKS]
    by_gradient = [columns[name] for name in single if ATTACKS[name].uses_gradients]
    for name in single if by_gradient else []:
        together = np.logical_and.reduce(by_gradient)
        more = int((together & ~columns[name]).sum())
        if not ATTACKS[name].uses_gradients and no_accident(more, len(together)):
            points = 100.0 * more / len(together)
            yield name, f"breaks {points:.1f} points that no gradient attack did: gradients may be masked"


def _ensembles_beaten(columns: Mapping[str, np.ndarray], suffix: str) -> Iterator[tuple[str, str]]:
    """Ensembles of gradient attacks alone, such as `rand`, that left what an attack without gradients breaks."""
    blind = [name for name in columns if name in ATTACKS and not ATTACKS[name].uses_gradients]
    for name in columns:
        if name not in ENSEMBLES or not all(ROWS[part].gradients for part in ENSEMBLES[name].parts):
            continue
        for other in blind:
            more = int((columns[name] & ~columns[other]).sum())
            if no_accident(more, len(columns[name])):
                yield name, _masked(other + suffix, more, len(columns[name]), "this attack had left")


def of_transfer(crafted: np.ndarray, direct: Sequence[np.ndarray], source: str) -> list[str]:
    """Whether points crafted on another network break what `direct` gradient attacks (N,) did not."""
    if not direct:
        return []
    together = np.logical_and.reduce(direct)
    more = int((together & ~crafted).sum())
    if not no_accident(more, len(together)):
        return []
    points = 100.0 * more / len(together)
    return [f"crafted on {source}, it breaks {points:.1f} points that no attack on the network itself did"]


def hopeless(setting: Setting, exact: Oracle, examples: Examples) -> Generator[None, None, str]:
    """A warning if examples withstand apgd-ce in a ball that holds every image; empty if none does.

    In such a ball an image of another class is allowed, so that a sound attack on a sound network breaks everything.
    Yields between any two steps.
    """
    clean, images = examples.clean, examples.images
    rows = images.in_turn()[:LOOKED_AT]
    size = math.prod(images.images.shape[1:])
    everything = Ball(setting.ball.norm, 1.0 if setting.ball.norm == "linf" else size**0.5)
    name = "apgd-ce" if setting.ball.norm == "linf" else f"apgd-ce{L2}"
    stage = structs.replace(setting.stage, apgd_steps=HOPELESS_STEPS, apgd_restarts=1)
    search = ATTACKS[name].search(replace(setting, ball=everything, stage=stage))
    right = clean.right[rows.cpu().numpy()]
    few = replace(examples, images=images.at(rows), clean=Clean(right, clean.ranking[rows]))
    tally = Tally.before(right, search.attempts)
    for _ in LiveExamples(search, Oracles(exact, exact), few, tally).run():
        yield
    robust = int(tally.robust.sum())
    if not robust:
        return ""
    return (
        f"{robust} of {int(right.sum())} examples withstand {HOPELESS_STEPS} steps of {name} in a ball that holds "
        "every image: the attack does not work on this network"
    )
