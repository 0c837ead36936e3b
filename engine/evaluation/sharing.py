"""Work that is shared between ranks: of the examples of an attack every world()-th one is a rank's own."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from engine import distributed
from engine.attacks.tally import Tally
from engine.stage import Step

T = TypeVar("T")


class Reached(NamedTuple):
    """How far all ranks together are: examples decided, examples robust so far, share (0-1) of the work done.

    `seconds` since the beginning are those of rank 0.
    """

    decided: int
    robust: int
    share: float
    seconds: float = 0.0


def own_share(tally: Tally) -> Tally:
    """The tally of this rank's examples: those of the others (N,) are not robust, and nothing was counted of them."""
    if distributed.world() == 1:
        return tally
    own = np.arange(len(tally.robust)) % distributed.world() == distributed.rank()
    rows = own[:, None]
    return Tally(
        tally.robust & own, tally.attempted & rows, tally.broken & rows, tally.counts * rows[..., None], tally.seconds
    )


def united(own: Tally) -> Tally:
    """The tally of all examples, where each rank has that of its `own`."""
    if distributed.world() == 1:
        return own
    parts = distributed.of_all(own)
    robust, attempted, broken = (
        np.logical_or.reduce([getattr(part, name) for part in parts]) for name in ("robust", "attempted", "broken")
    )
    return Tally(robust, attempted, broken, np.sum([part.counts for part in parts], axis=0), parts[0].seconds)


def in_step(work: Iterator[int], own: Tally) -> Iterator[Reached]:
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
        # To a rank, the examples of the others are decided.
        yield Reached(int(decided) - others * len(own.robust), int(robust), share - others, elapsed)


def stoppable(work: Generator[None, None, T], step: Step) -> Generator[Step, None, T]:
    """The result of `work`, with `step` wherever it pauses, so that the run can be stopped there."""
    result: T
    busy = True
    while True:
        try:
            if busy:
                next(work)
        except StopIteration as end:
            result, busy = end.value, False
        if not distributed.anywhere(busy):  # ranks pause equally often, so that they can agree on a stop
            return result
        yield step
