"""What defences minimise: a value per example from clean logits z_nat, adversarial logits z_adv, labels and beta.

All take the same four arguments; z_nat is None for those that do without it.
"""

from __future__ import annotations

from torch import Tensor

from engine.attacks.losses import cross_entropy, kl_divergence


def standard(z_nat: Tensor, z_adv: Tensor, y: Tensor, beta: float) -> Tensor:
    """CE on clean logits (N,K): (N,)."""
    return cross_entropy(z_nat, y)


def adv(z_nat: Tensor | None, z_adv: Tensor, y: Tensor, beta: float) -> Tensor:
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
