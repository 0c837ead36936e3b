"""Defences by name. A defence is a loss; the one training loop (train.py) does the rest.

To add one: write its loss per example on logits, add one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from engine.attacks.losses import cross_entropy, kl_divergence


def adv(z_adv: Tensor, y: Tensor) -> Tensor:
    """CE on adversarial logits (N,K): (N,). Madry et al., ICLR 2018."""
    return cross_entropy(z_adv, y)


def trades(z_nat: Tensor, z_adv: Tensor, y: Tensor, beta: float) -> Tensor:
    """CE(nat) + beta * KL(p_nat || p_adv) on logits (N,K): (N,). Zhang et al., ICML 2019, eq. 5."""
    return cross_entropy(z_nat, y) + beta * kl_divergence(z_nat, z_adv)


@dataclass(frozen=True)
class Defence:
    """`loss` (z_nat or None, z_adv, y, beta) per example. Without `attacks`, z_adv is that of the clean image."""

    loss: Callable[[Tensor | None, Tensor, Tensor, float], Tensor]
    attacks: bool = True
    clean_logits: bool = False


def _trades(z_nat: Tensor | None, z_adv: Tensor, y: Tensor, beta: float) -> Tensor:
    assert z_nat is not None
    return trades(z_nat, z_adv, y, beta)


DEFENCES: dict[str, Defence] = {
    "standard": Defence(lambda z_nat, z, y, beta: cross_entropy(z, y), attacks=False),
    "adv": Defence(lambda z_nat, z_adv, y, beta: adv(z_adv, y)),
    "trades": Defence(_trades, clean_logits=True),
}
