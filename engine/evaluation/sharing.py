"""One attack on examples that are shared between ranks: every world()-th one is a rank's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from engine import distributed
from engine.attacks.scheduler import Found


class Reached(NamedTuple):
    """Where all ranks together are: examples decided, examples that stand so far, share (0-1) of the work behind.

    `seconds` since the beginning are those of rank 0.
    """

    decided: int
    robust: int
    share: float
    seconds: float = 0.0


def share_of(found: Found) -> Found:
    """What is this rank's to do: of the examples (N,) of the others none stands and nothing was counted."""
    if distributed.world() == 1:
        return found
    own = np.arange(len(found.robust)) % distributed.world() == distributed.rank()
    mine = own[:, None]
    return Found(
        found.robust & own, found.tried & mine, found.fell & mine, found.counted * mine[..., None], found.seconds
    )


def united(own: Found) -> Found:
    """What the ranks have found, each of which has its `own`."""
    if distributed.world() == 1:
        return own
    parts = distributed.of_all(own)
    robust, tried, fell = (
        np.logical_or.reduce([getattr(part, name) for part in parts]) for name in ("robust", "tried", "fell")
    )
    return Found(robust, tried, fell, np.sum([part.counted for part in parts], axis=0), parts[0].seconds)


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
