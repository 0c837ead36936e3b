"""How fast this host is with the network of a profile, in the unit in which `contract.plan` counts cost."""

from __future__ import annotations

import time

import torch

from engine.contract.profile.schema import Evaluate, Profile, Train
from engine.device import prepare
from engine.models import build
from engine.models.base import Inputs

LEAST_SECONDS = 1.0


def passes_per_second(profile: Profile, folder: str) -> float:
    """Passes of one image through the classifier in a second: gradients for images (two passes each) are timed.

    `folder` is where a network of the user is looked for. Takes a second or two. Raises DeviceError, and ValueError for
    a network that cannot be built.
    """
    compute, facts, model = prepare(profile.compute), profile.data.facts, profile.model
    half = (0.5,) * facts.channels
    inputs = Inputs(facts.classes, facts.channels, facts.size, mean=half, std=half)
    network = build(model.name, inputs, seed=0, folder=folder)
    compute.place(network.requires_grad_(False).eval())
    batch = max(stage.batch_size for stage in profile.stage if isinstance(stage, Train | Evaluate))
    images = torch.rand(batch, facts.channels, facts.size, facts.size, device=compute.device)
    images = compute.layout(images).requires_grad_()

    def gradient() -> float:
        with compute.autocast():
            logits = network(images)
        (gradients,) = torch.autograd.grad(logits.float().logsumexp(1).sum(), images)
        return float(gradients.sum())  # waits for a GPU to have done it

    for _ in range(3):
        gradient()
    count, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < LEAST_SECONDS:
        gradient()
        count += 1
    return 2 * batch * count / spent
