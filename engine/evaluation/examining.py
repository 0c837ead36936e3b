"""Properties of a network that are looked at before any attack, and what they mean for its numbers."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

from torch import Tensor, nn

from engine.attacks.clean import Examples
from engine.attacks.loop import NoGradient
from engine.attacks.queries import Oracle
from engine.contract.profile.catalogue import ATTACKS as ROWS
from engine.contract.profile.catalogue import is_averaged, parts, plain
from engine.oom import out_of_memory

ROUNDING = 1e-3
"""By which logits of one image may differ between two compute shapes in fp32, as a share of their largest."""
COARSE_ROUNDING = 0.05
"""The same for a network that computes in a smaller number format."""


@dataclass(frozen=True)
class Examined:
    """Properties of a network that were looked at before any attack."""

    random: float = 0.0
    """Largest difference between two answers to the same images."""
    probabilities: bool = False
    training: bool = False
    """Whether parts of it stay in train mode whatever is asked of them."""
    neighbours: float = 0.0
    """Largest difference between the answers to an image alone and among others; 0 where it is rounding."""

    def warnings(self, attack: str) -> list[str]:
        """What touches the numbers of this attack."""
        notes = []
        if self.random:
            random = f"the network's answers are random (they differ by up to {self.random:.2g})"
            if is_averaged(attack):
                consequence = "so is this number, which another batch size, stop or count of processes changes"
            else:
                consequence = f"use the attack `rand{attack.removeprefix(plain(attack))}`"
            notes.append(f"{random}: {consequence}")
        if self.training:
            notes.append("parts of the network stay in train mode: BatchNorm and dropout make attacks look weak")
        if self.neighbours:
            finite = math.isfinite(self.neighbours)
            sign = f"logits differ by up to {self.neighbours:.2g}" if finite else "it takes no image alone"
            notes.append(
                f"the network's answer to an image depends on the other images of its batch ({sign}): another "
                "batch_size gives another number"
            )
        if self.probabilities:
            notes.append("the network answers with probabilities: attacks need logits, as softmax flattens gradients")
        return notes


def examine(model: nn.Module, exact: Oracle, examples: Examples) -> Generator[None, None, Examined]:
    """Ask about the first images twice, and look at the answers and at the model, which was put into eval mode.

    Yields between any two questions or three.
    """
    slots = examples.slots
    batch = next(examples.images.batches(slots, examples.compute))
    z, again = exact.padded_logits(batch.x, slots), exact.padded_logits(batch.x, slots)
    random = float((z - again).abs().nan_to_num().amax())
    yield
    sums = z.sum(1)
    probabilities = bool(((z >= 0) & (z <= 1)).all()) and bool(((sums - 1).abs() < 1e-4).all())
    training = any(module.training for module in model.modules())
    neighbours = yield from _of_neighbours(exact, batch.x, z, slots)
    # Where answers are random, only a difference that is far larger can come from the neighbours.
    return Examined(random, probabilities, training, neighbours if neighbours > 3 * random else 0.0)


def _of_neighbours(exact: Oracle, x: Tensor, z: Tensor, slots: int) -> Generator[None, None, float]:
    """By how much the logits z (N,K) of images x (N,C,H,W) differ from those of an image alone; 0 if by rounding.

    The first and the last image are asked about among copies of themselves, in the compute shape, and the last one by
    itself, as a network may look at how many there are.
    """
    rounding = COARSE_ROUNDING if exact.own_format in ("bf16", "fp16") else ROUNDING
    last = x[-1:]
    asked = [(z[:1], exact.padded_logits(x[:1], slots)), (z[-1:], exact.padded_logits(last, slots))]
    yield
    try:
        asked.append((z[-1:], exact.padded_logits(last, 1)))
    except (RuntimeError, ValueError) as error:  # such as BatchNorm in train mode, which needs two values
        if out_of_memory(error):
            raise
        return math.inf
    apart = max(float((alone - among).abs().nan_to_num().amax()) for among, alone in asked)
    return apart if apart > rounding * float(z.abs().nan_to_num().amax().clamp_min(1e-6)) else 0.0


def without_gradient(searching: Oracle, x: Tensor) -> str:
    """Why no gradient of the answer to images x (N,C,H,W) can be had, in words; empty if it can."""
    try:
        searching.slope(x, lambda z: z.sum(1))
    except NoGradient as error:
        return error.message
    except (RuntimeError, NotImplementedError) as error:
        if out_of_memory(error):
            raise
        return f"the network's backward pass fails: {str(error).strip().splitlines()[0]}"
    return ""


def asks_gradients(attack: str) -> bool:
    """Whether an attack, or a part of it, asks for gradients; `clean` does not."""
    return any(ROWS[plain(part)].gradients for part in parts(attack))
