"""What attacks maximise and defences minimise: one value per example, in fp32, never reduced over the batch.

Summing (not averaging) these before differentiating makes every example's gradient independent of the batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.contract.profile.catalogue import DLR_LEAST_CLASSES, TARGETED_DLR_LEAST_CLASSES


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """-log softmax(z)[y] for logits z (N,K) and labels y (N,): (N,)."""
    return F.cross_entropy(z.float(), y, reduction="none")


def kl_divergence(z_p: Tensor, z_q: Tensor) -> Tensor:
    """KL( softmax(z_p) || softmax(z_q) ) for logits (N,K): (N,). From log-softmax, so no probability is ever 0/0."""
    log_p, log_q = F.log_softmax(z_p.float(), 1), F.log_softmax(z_q.float(), 1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def margin(z: Tensor, y: Tensor) -> Tensor:
    """max over i != y of z_i, minus z_y, for logits (N,K): (N,). Positive exactly where the answer is wrong.

    The objective of Carlini and Wagner (2017). The true class is left out by -inf, so logits may all be negative.
    """
    z = z.float()
    others = z.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - z.gather(1, y[:, None])[:, 0]


def dlr(z: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, -(z_y - max_{i != y} z_i) / (z_(1) - z_(3) + 1e-12): (N,).

    Croce and Hein, ICML 2020, eq. 6. Unchanged when logits are scaled or shifted. With fewer than DLR_LEAST_CLASSES
    classes there is no third logit; the margin takes its place.
    """
    if z.shape[1] < DLR_LEAST_CLASSES:
        return margin(z, y)
    top = z.float().topk(3, dim=1).values
    return margin(z, y) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_margin(z: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """z_t - z_y for target classes t (N,): (N,)."""
    z = z.float()
    return (z.gather(1, target[:, None]) - z.gather(1, y[:, None]))[:, 0]


def targeted_dlr(z: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12) for target classes t (N,): (N,).

    Croce and Hein, ICML 2020, eq. 7. With fewer than TARGETED_DLR_LEAST_CLASSES classes the margin takes its place.
    """
    if z.shape[1] < TARGETED_DLR_LEAST_CLASSES:
        return targeted_margin(z, y, target)
    top = z.float().topk(4, dim=1).values
    return targeted_margin(z, y, target) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)
