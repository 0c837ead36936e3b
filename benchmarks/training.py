"""A step of adversarial training against a bare loop of the same operations, and what recording adds to it.

The bare loop is what one would write by hand for one network and one attack: take the images, shift them, PGD-10 in
eval mode, cross-entropy, SGD. Both sides start from the same weights. The stage does beside it what a run needs: keyed
random numbers, metering, learning rate, records, the chance to stop.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from common import Row, in_turn, main

from engine.attacks.loop import attacked
from engine.contract.profile import files as profiles
from engine.contract.profile.catalogue import DATA_FACTS
from engine.contract.profile.schema import Train
from engine.contract.run import rundir
from engine.contract.run.records import Scalars
from engine.data import Images, Splits
from engine.defences.train import Training
from engine.device import emulates, prepare
from engine.record import Recorder
from engine.stage import Context, Step

OVERHEAD = 1.05
"""A step of the stage against the bare loop."""
RECORDING = 0.5
"""Percent of a step that recording may take."""
FASTER = 1.8
"""By which bf16 should beat fp32 where the hardware multiplies it."""
ADVERSARY = 10


def noise(name: str, count: int) -> Splits:
    """`count` training images in the shape of a data set."""
    generator, facts = torch.Generator().manual_seed(0), DATA_FACTS[name]

    def images(size: int) -> Images:
        shape = (size, facts.channels, facts.size, facts.size)
        values = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return Images(values, torch.arange(size) % facts.classes, torch.arange(size))

    mean, std = (0.5,) * facts.channels, (0.25,) * facts.channels
    return Splits(facts, mean, std, images(count), images(2), images(2), streamed=False)


@contextmanager
def context_of(network: str, batch: int, steps: int) -> Iterator[Context]:
    """A training of `network` on noise, with epochs of `steps` steps; the small network on images like the digits."""
    with tempfile.TemporaryDirectory() as folder:
        name = "digits" if network == "small" else "cifar10"
        stage = {"kind": "train", "epochs": 1000, "batch_size": batch}
        tables = {"name": "training", "data": {"name": name}, "model": {"name": network}, "stage": [stage]}
        profile = profiles.from_tables({**tables, "compute": {"device": "cpu"}})
        run = rundir.create(Path(folder) / "runs", "training", profiles.dumps(profile))
        yield Context(profile, run, prepare(profile.compute), noise(name, steps * batch))


class Ours:
    """The stage, driven as the pipeline does, its records written."""

    def __init__(self, context: Context, recorder: Recorder) -> None:
        stage = context.profile.stage[0]
        assert isinstance(stage, Train)
        self.training = Training(context, stage)
        self._events = self.training.run()
        self._recorder = recorder
        self.recording = 0.0

    def steps(self, count: int) -> None:
        """So many optimiser steps."""
        for event in self._events:
            if isinstance(event, Step):
                count -= 1
                if not count:
                    return
            else:
                started = time.perf_counter()
                self._recorder.write(event)  # type: ignore[arg-type]
                self.recording += time.perf_counter() - started


def bare(context: Context) -> Iterator[None]:
    """The same operations without anything around them, a step at a time."""
    stage = context.profile.stage[0]
    assert isinstance(stage, Train)
    model, train, eps = context.classifier(), context.data.train, context.ball.eps
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4, fused=True)
    size, reach = 2.3 * eps / ADVERSARY, train.images.shape[-1] // 8
    while True:
        for rows in torch.randperm(len(train)).split(stage.batch_size):
            x, y = train.images[rows].float() / 255, train.labels[rows]
            down, right = (int(shift) for shift in torch.randint(-reach, reach + 1, (2,)))
            x = torch.roll(x, (down, right), (2, 3))
            x_adv = (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
            with attacked(model):
                for _ in range(ADVERSARY):
                    x_adv.requires_grad_()
                    with context.compute.autocast():
                        loss = F.cross_entropy(model(x_adv).float(), y, reduction="sum")
                    (gradient,) = torch.autograd.grad(loss, x_adv)
                    x_adv = (x + (x_adv.detach() + size * gradient.sign() - x).clamp(-eps, eps)).clamp(0, 1)
            model.train()
            with context.compute.autocast():
                loss = F.cross_entropy(model(x_adv).float(), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            yield


def step_time(network: str, batch: int, repeats: int) -> list[Row]:
    """Time of a step, and the part of it that goes into records. Turns are single steps: a slow moment meets both."""
    with context_of(network, batch, repeats + 2) as context, Recorder(context.run) as recorder:
        ours, theirs = Ours(context, recorder), bare(context)
        ours.steps(1)
        next(theirs)
        ours.recording = 0.0
        mine, peer = in_turn(lambda: ours.steps(1), lambda: next(theirs), repeats=repeats)
        share = 100 * ours.recording / (repeats * mine)
    title = f"{network}, batch {batch}, PGD-{ADVERSARY}"
    return [
        Row(f"{title}: a step, against a bare loop", 1e3 * mine, 1e3 * peer, "ms", OVERHEAD),
        Row(f"{title}: records, against {RECORDING}% of a step", share, RECORDING, "%", 1.0),
    ]


def precisions(network: str, batch: int, repeats: int) -> Row:
    """A step in bf16, in the layout its kernels want, against one in fp32 in whichever layout is faster for it here."""
    with context_of(network, batch, repeats + 2) as context, Recorder(context.run) as recorder:
        laid_out = replace(context, compute=replace(context.compute, channels_last=True))
        bf16 = replace(laid_out, compute=replace(laid_out.compute, dtype=torch.bfloat16))
        one, *others = (Ours(each, recorder) for each in (bf16, laid_out, context))
        for each in (one, *others):
            each.steps(1)
        mine, *theirs = in_turn(*(partial(each.steps, 1) for each in (one, *others)), repeats=repeats)
    how = "bf16 without instructions for it" if emulates(bf16.compute.device, torch.bfloat16) else "bf16"
    title = f"{network}, batch {batch}, PGD-{ADVERSARY}: a step in {how}, against fp32 in its faster layout"
    return Row(title, 1e3 * mine, 1e3 * min(theirs), "ms", 1 / FASTER)


def recording(steps: int) -> Row:
    """One record with its values, through the Recorder, against the limit."""
    values = {"loss": 1.2345, "accuracy": 56.78, "lr": 0.05, "images_per_second": 1234.5}
    with tempfile.TemporaryDirectory() as folder:
        run = rundir.create(Path(folder), "training", "")
        with Recorder(run) as recorder:
            started = time.perf_counter()
            for step in range(steps):
                recorder.write(Scalars(stage="train", step=step, epoch=0.0, values=dict(values)))
            each = 1e6 * (time.perf_counter() - started) / steps
    return Row("one record, against 30 us", each, 30.0, "us", 1.0)


def measure(quick: bool) -> list[Row]:
    """All rows."""
    emulated = emulates(torch.device("cpu"), torch.bfloat16)  # a step then takes minutes, and nobody wants it
    rows = [*step_time("small", 64, 50 if quick else 200), recording(2_000)]
    if quick:
        network, batch = ("small", 64) if emulated else ("resnet18", 8)
        return [*rows, *step_time("resnet18", 8, 4), precisions(network, batch, 4)]
    for network, batch in (("vgg16", 64), ("resnet18", 64)):
        rows += [*step_time(network, batch, 16), precisions(network, batch, 1 if emulated else 6)]
    return rows


if __name__ == "__main__":
    main("training", measure)
