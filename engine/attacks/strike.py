"""One attack from its beginning to its end, outside of a table."""

from __future__ import annotations

from collections.abc import Generator

from torch import nn

from engine.attacks.clean import answering_clean, result_of
from engine.attacks.queries import Oracle, Oracles, exact_oracle
from engine.attacks.scheduler import LiveExamples
from engine.attacks.search import Search
from engine.attacks.tally import Tally
from engine.data import Images
from engine.device import Compute

CONTINUATION = 0.1
"""Share of the steps that are made on the exact network where that does not confirm what a search found."""


def striking(
    search: Search, model: nn.Module, images: Images, compute: Compute, slots: int, oracle: Oracle | None = None
) -> Generator[None, None, LiveExamples]:
    """Attack a model in eval mode; the result holds the `tally` and the `points`.

    `oracle` is the network that searches, if not the model as it is. Yields between any two steps.
    """
    exact = exact_oracle(model, compute)
    examples = yield from answering_clean(exact, images, compute, slots, search.attempts + 1)
    tally = Tally.before(examples.clean.right, search.attempts)
    live = LiveExamples(
        search, Oracles(oracle or exact, exact), examples, tally, continuation=CONTINUATION, keep_points=True
    )
    for _ in live.run():
        yield
    return live


def strike(
    search: Search, model: nn.Module, images: Images, compute: Compute, slots: int, oracle: Oracle | None = None
) -> LiveExamples:
    """`striking` without a pause."""
    return result_of(striking(search, model, images, compute, slots, oracle))
