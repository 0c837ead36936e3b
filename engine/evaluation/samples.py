"""Pictures of a few test images: clean, adversarial, perturbation, causal inversion, with the predictions for them."""

from __future__ import annotations

import io
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec import structs
from PIL import Image
from torch import Tensor

from engine.attacks import ATTACKS
from engine.attacks.balls import Ball
from engine.attacks.inversion import Inversion, causal_logits
from engine.attacks.queries import exact_oracle
from engine.attacks.setting import Setting
from engine.attacks.strike import striking
from engine.contract.plan import columns
from engine.contract.profile.catalogue import CLEAN, parts
from engine.contract.profile.schema import Evaluate, Game, Inoculate
from engine.contract.run.records import Message, Record, SampleSheet
from engine.contract.run.rundir import write_atomically
from engine.data import Batch, Images
from engine.device import Compute
from engine.evaluation.examining import asks_gradients, without_gradient
from engine.models.base import Classifier
from engine.stage import Context

PERTURBATION_GAIN = 10
INVERSION_STEPS = 10
"""Of the inversions shown where the run has no inoculation."""


def write_samples(context: Context, stage: Evaluate, compute: Compute) -> Generator[None, None, Record]:
    """Write PNG files and samples.json for `stage.samples` test images of all classes; the record tells where.

    The network is the base of the latest game before this stage (else the first of the table), the attack the last
    one of the table. The perturbation is drawn PERTURBATION_GAIN times enlarged around grey. Hands over between steps
    of the attack and between batches, so that a stop need not wait for all of them; what was written is written again.
    """
    attacks = [name for name in stage.attacks if name != CLEAN]
    if not stage.samples or not attacks:
        return Message(stage=str(stage.id), text="no samples: none asked for, or no attack to show")
    game, inoculation = _before(context, stage)
    assert stage.models is not None, "the profile was resolved"
    name = str(game.base) if game else stage.models[0]
    model = context.trained(name).requires_grad_(False).eval()
    images = context.data.test.subset(stage.samples)
    if asks_gradients(parts(attacks[-1])[0]) and (reason := _no_gradient(model, images, compute)):
        return Message(stage=str(stage.id), text=f"no samples: {reason}")
    points = yield from _attacked(context, stage, model, images, compute)
    rows: list[dict[str, Any]] = []
    for batch in images.batches(stage.batch_size, compute):
        x_adv = points[len(rows) : len(rows) + len(batch.x)]
        pictures = {
            "clean": batch.x,
            "adversarial": x_adv,
            "perturbation": (0.5 + PERTURBATION_GAIN * (x_adv - batch.x)).clamp(0, 1),
        }
        if game:
            target = causal_logits(model, context.hypothesis(game.id, model.feature_shape), batch.x, x_adv, compute)
            pictures["inversion"] = _inversion(context, inoculation, compute)(model, batch, target, epoch=-1)
            yield
        rows += _write(context, model, batch, pictures)
        yield
    sheet = {
        "stage": stage.id,
        "model": name,
        "attack": attacks[-1],
        "perturbation_gain": PERTURBATION_GAIN,
        "samples": rows,
    }
    path = context.run.samples / "samples.json"
    write_atomically(path, msgspec.json.format(msgspec.json.encode(sheet)))
    return SampleSheet(stage=str(stage.id), path=str(path.relative_to(context.run.path)))


def _no_gradient(model: Classifier, images: Images, compute: Compute) -> str:
    sample = next(images.batches(len(images), compute))
    return without_gradient(exact_oracle(model, compute), sample.x)


def _attacked(
    context: Context, stage: Evaluate, model: Classifier, images: Images, compute: Compute
) -> Generator[None, None, Tensor]:
    """What the last attack of the table, or the first part of it, makes of the images (N,C,H,W).

    An image that is misclassified as it is stays so.
    """
    column = next(c for c in reversed(columns(context.profile, stage)) if c.attack != CLEAN)
    plain = structs.replace(stage, source=None)
    setting = Setting(Ball(column.norm, column.eps), plain, context.profile.seed, context.data.facts.classes)
    search = ATTACKS[parts(column.attack)[0]].search(setting)
    slots = min(len(images), stage.batch_size)
    live = yield from striking(search, model, images, replace(compute, channels_last=False), slots)
    assert live.points is not None, "asked for"
    return live.points


def _before(context: Context, stage: Evaluate) -> tuple[Game | None, Inoculate | None]:
    stages = context.profile.stage
    earlier = stages[: next(i for i, other in enumerate(stages) if other.id == stage.id)]
    games = [other for other in earlier if isinstance(other, Game)]
    inoculations = [other for other in earlier if isinstance(other, Inoculate)]
    return games[-1] if games else None, inoculations[-1] if inoculations else None


def _inversion(context: Context, inoculation: Inoculate | None, compute: Compute) -> Inversion:
    """As in the inoculation; without one, a quarter of the threat's radius and INVERSION_STEPS."""
    gamma = inoculation.gamma if inoculation and inoculation.gamma else context.profile.threat.eps / 4
    steps = inoculation.inversion_steps if inoculation else INVERSION_STEPS
    return Inversion(gamma, steps, compute, context.profile.seed)


def _write(context: Context, model: Classifier, batch: Batch, pictures: dict[str, Tensor]) -> list[dict[str, Any]]:
    predictions: dict[str, list[int]] = {}
    for kind, x in pictures.items():
        if kind != "perturbation":
            with torch.no_grad():
                predictions[kind] = model(x).argmax(1).tolist()
    rows = []
    for i, index in enumerate(batch.index.tolist()):
        files = {kind: f"{index:05d}-{kind}.png" for kind in pictures}
        for kind, file in files.items():
            _png(context.run.samples / file, pictures[kind][i])
        own = {kind: values[i] for kind, values in predictions.items()}
        rows.append({"index": index, "label": int(batch.y[i]), "predictions": own, "files": files})
    return rows


def _png(path: Path, x: Tensor) -> None:
    """One image (C,H,W) in [0,1], C = 1 or 3, as a PNG."""
    pixels = (x * 255).round().byte().cpu().permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.squeeze(pixels, 2) if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
