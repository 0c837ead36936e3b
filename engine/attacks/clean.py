"""What a network answers to the clean images: before any attack every one of them is asked about once."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from engine.attacks.queries import Oracle
from engine.attacks.search import wrong
from engine.data import Images
from engine.device import Compute

T = TypeVar("T")


@dataclass(frozen=True)
class Clean:
    """The exact network's answers to N clean images: which are right (N,) bool, the likeliest classes (N,T), and how
    many answers were not finite."""

    right: np.ndarray
    ranking: Tensor
    not_finite: int = 0


@dataclass(frozen=True)
class Examples:
    """What is attacked: images, the answers to the clean ones, and the compute shape, `slots` images at once."""

    images: Images
    clean: Clean
    compute: Compute
    slots: int


def answering_clean(
    exact: Oracle, images: Images, compute: Compute, slots: int, ranked: int
) -> Generator[None, None, Examples]:
    """Ask about every clean image once, `slots` at a time, and keep the `ranked` likeliest classes of each answer.

    Yields after each batch, so that a stop need not wait for all of them.
    """
    right, ranking, not_finite = [], [], 0
    for batch in images.batches(slots, compute):
        z = exact.padded_logits(batch.x, slots)  # (n,K), n <= slots
        right.append(~wrong(z, batch.y))  # (n,)
        not_finite += int((~z.isfinite().all(1)).sum())
        ranking.append(z.nan_to_num().topk(min(ranked, z.shape[1]), dim=1).indices)  # (n,T)
        yield
    clean = Clean(torch.cat(right).cpu().numpy(), torch.cat(ranking), not_finite)
    return Examples(images, clean, compute, slots)


def answer_clean(exact: Oracle, images: Images, compute: Compute, slots: int, ranked: int) -> Examples:
    """`answering_clean` without a pause."""
    return result_of(answering_clean(exact, images, compute, slots, ranked))


def result_of(work: Generator[None, None, T]) -> T:
    """Drive `work` to its end without a pause; what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
