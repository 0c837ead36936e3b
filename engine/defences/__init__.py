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


def mart(z_nat: Tensor, z_adv: Tensor, y: Tensor, beta: float) -> Tensor:
    """Boosted CE(adv) + beta * KL(p_nat || p_adv) * (1 - p_nat[y]) on logits (N,K): (N,). Wang et al., ICLR 2020.

    The boost is the negative log of one minus the likeliest wrong class. The small constants are the authors'.
    """
    p_nat, p_adv = z_nat.float().softmax(1), z_adv.float().softmax(1)
    wrong = p_adv.scatter(1, y[:, None], -1.0).argmax(1)
    boost = -(1.0001 - p_adv.gather(1, wrong[:, None])[:, 0] + 1e-12).log()
    unsure = 1.0000001 - p_nat.gather(1, y[:, None])[:, 0]
    return cross_entropy(z_adv, y) + boost + beta * kl_divergence(z_nat, z_adv) * unsure


HELPER_REACH, HELPER_WEIGHT = 2.0, 0.25
"""Of help (HAT: Rade and Moosavi-Dezfooli, ICLR 2022): how far its example goes along the attack, and its weight."""


def helper_term(z_helper: Tensor, z_standard: Tensor) -> Tensor:
    """CE of the helper example's logits against the standard network's answer to the adversarial image: (N,)."""
    return HELPER_WEIGHT * cross_entropy(z_helper, z_standard.argmax(1))


@dataclass(frozen=True)
class Defence:
    """`loss` (z_nat or None, z_adv, y, beta) per example. Without `attacks` it is one of clean images alone.

    `awp` takes the loss at adversarially perturbed weights; `helper` adds the term of the helper example.
    """

    loss: Callable[[Tensor | None, Tensor, Tensor, float], Tensor]
    attacks: bool = True
    clean_logits: bool = False
    awp: bool = False
    helper: bool = False


def _standard(z_nat: Tensor | None, z_adv: Tensor, y: Tensor, beta: float) -> Tensor:
    assert z_nat is not None
    return cross_entropy(z_nat, y)


def _trades(z_nat: Tensor | None, z_adv: Tensor, y: Tensor, beta: float) -> Tensor:
    assert z_nat is not None
    return trades(z_nat, z_adv, y, beta)


def _mart(z_nat: Tensor | None, z_adv: Tensor, y: Tensor, beta: float) -> Tensor:
    assert z_nat is not None
    return mart(z_nat, z_adv, y, beta)


DEFENCES: dict[str, Defence] = {
    "standard": Defence(_standard, attacks=False, clean_logits=True),
    "adv": Defence(lambda z_nat, z_adv, y, beta: adv(z_adv, y)),
    "fast": Defence(lambda z_nat, z_adv, y, beta: adv(z_adv, y)),
    "trades": Defence(_trades, clean_logits=True),
    "mart": Defence(_mart, clean_logits=True),
    "awp": Defence(_trades, clean_logits=True, awp=True),
    "help": Defence(_trades, clean_logits=True, awp=True, helper=True),
}
