"""What attacks maximise and defences minimise: one value per example, in fp32, never reduced over the batch.

Summing (not averaging) these before differentiating makes every example's gradient independent of the batch.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """-log softmax(z)[y] for logits z (N,K) and labels y (N,): (N,)."""
    return F.cross_entropy(z.float(), y, reduction="none")


def kl_divergence(z_p: Tensor, z_q: Tensor) -> Tensor:
    """KL( softmax(z_p) || softmax(z_q) ) for logits (N,K): (N,). From log-softmax, so no probability is ever 0/0."""
    log_p, log_q = F.log_softmax(z_p.float(), 1), F.log_softmax(z_q.float(), 1)
    return (log_p.exp() * (log_p - log_q)).sum(1)
