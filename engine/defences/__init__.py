"""Defences by name. A defence is a loss; the one training loop (train.py) does the rest.

To add one: write its loss per example on logits, add a row to the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from engine.contract.profile.catalogue import DEFENCES
from engine.registry import resolve

LOSSES: dict[str, Callable[[Tensor | None, Tensor, Tensor, float], Tensor]] = {
    name: resolve(defence.loss) for name, defence in DEFENCES.items()
}
"""Name -> loss per example, of z_nat (None where the defence does without), z_adv, y and beta."""
