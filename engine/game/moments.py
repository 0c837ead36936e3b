"""The pure functions of the game: likelihoods, moment, regulariser (CAFE, section 3). All values per example (N,)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.attacks.losses import cross_entropy


def omega(head: nn.Module, F_nat: Tensor, w: Tensor) -> Tensor:
    """Omega(w) = log softmax head(F_nat + w), fp32, (N,K), for features and treatment (N,C,H,W)."""
    return F.log_softmax(head(F_nat + w).float(), 1)


def moment(omega_h: Tensor, omega_g: Tensor, y: Tensor) -> Tensor:
    """psi = Omega(h(g(Z)))[y] * Omega(g(Z))[y] >= 0: (N,)."""
    rows = torch.arange(len(y), device=y.device)
    return omega_h[rows, y] * omega_g[rows, y]


def regulariser(treatment: Tensor, Z: Tensor) -> Tensor:
    """mean over the feature of (g(Z) - Z)^2: (N,); its mean over a batch is the regulariser of the game."""
    return (treatment.float() - Z.float()).pow(2).flatten(1).mean(1)


class Accuracies(NamedTuple):
    """Logits (N,K) of the four readings of the features."""

    adv: Tensor
    cf: Tensor
    cc: Tensor
    ac: Tensor

    def psi(self, y: Tensor) -> Tensor:
        """The moment of the game, (N,), from the logits of CC and CF."""
        return moment(F.log_softmax(self.cc.float(), 1), F.log_softmax(self.cf.float(), 1), y)

    def shown(self, y: Tensor) -> dict[str, Tensor]:
        """accuracy_* (percent) and ce_* per example, under the names of the records."""
        values: dict[str, Tensor] = {}
        for name, logits in self._asdict().items():
            values[f"accuracy_{name}"] = 100.0 * (logits.argmax(1) == y)
            values[f"ce_{name}"] = cross_entropy(logits, y)
        return values


def read_features(
    head: nn.Module, h: nn.Module, F_nat: Tensor, F_adv: Tensor, Z: Tensor, treatment: Tensor
) -> Accuracies:
    """Adv, CF, CC and AC logits, for the treatment T' = g(Z)."""
    return Accuracies(adv=head(F_adv), cf=head(F_nat + treatment), cc=head(F_nat + h(treatment)), ac=head(F_nat + h(Z)))
