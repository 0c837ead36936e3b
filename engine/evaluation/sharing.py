"""One attack on examples that are shared between ranks: every world()-th one is a rank's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from engine import distributed
from engine.attacks.live import Found
from engine.attacks.oracle import Effort

COUNTS = ("outside", "not_finite", "mute", "begun", "unconfirmed")


class Reached(NamedTuple):
    """Where all ranks together are: examples decided, examples that stand so far, share (0-1) of the work behind.

    `seconds` since the beginning are those of rank 0.
    """

    decided: int
    robust: int
    share: float
    seconds: float = 0.0


def share_of(found: Found) -> Found:
    """What is this rank's to do, with counts from 0: the examples (N,) of the others are none that stand."""
    if distributed.world() == 1:
        return found
    own = np.arange(len(found.robust)) % distributed.world() == distributed.rank()
    return Found(found.robust & own, found.tried.copy(), seconds=found.seconds)


def united(found: Found, own: Found) -> Found:
    """What was known at the beginning, and since then found by the ranks, each of which has its `own`."""
    if distributed.world() == 1:
        return own
    parts = distributed.of_all(own)
    everything = [found, *parts]
    return Found(
        np.logical_or.reduce([part.robust for part in parts]),
        np.logical_or.reduce([part.tried for part in everything]),
        **{name: sum(getattr(part, name) for part in everything) for name in COUNTS},
        seconds=parts[0].seconds,
        effort=Effort(
            sum(part.effort.gradient_steps for part in everything), sum(part.effort.forwards for part in everything)
        ),
    )


def in_step(work: Iterator[int], own: Found) -> Iterator[Reached]:
    """Drive the work on `own` to its end; all ranks make the same number of steps, so that they can agree on a stop."""
    started, others = time.perf_counter(), distributed.world() - 1
    while True:
        busy = next(work, None) is not None
        seconds = time.perf_counter() - started if distributed.first() else 0.0
        decided, robust, share, elapsed, going = distributed.totals(
            own.decided, int(own.robust.sum()), own.share, seconds, busy
        )
        if not going:
            return
        # A rank calls what is not its own decided.
        yield Reached(int(decided) - others * len(own.robust), int(robust), share - others, elapsed)
