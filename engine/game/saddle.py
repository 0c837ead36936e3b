"""How near a game is to its saddle point, and signs that it has degenerated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engine.attacks.loop import attacked
from engine.device import Compute
from engine.game.moments import moment, omega, regulariser

IMAGES = 1024
"""Held-out images that a diagnosis looks at, at most."""
LITTLE = 0.05
"""Below this share g(Z) counts as Z itself, and what h makes of different examples as the same."""
NOTHING = 1e-3
"""psi below which nothing is left to play for: both likelihoods of the true class are about 97% or more."""


class HeldOut(NamedTuple):
    """Features of images that nobody trains on: F_nat and Z (N,C,H,W), labels (N,)."""

    F_nat: Tensor
    Z: Tensor
    y: Tensor

    def halves(self) -> Sequence[HeldOut]:
        """The first and the second half."""
        middle = len(self.y) // 2
        return HeldOut(*(part[:middle] for part in self)), HeldOut(*(part[middle:] for part in self))


def payoff(head: nn.Module, h: nn.Module, g: nn.Module, seen: HeldOut, compute: Compute, lambda_: float) -> Tensor:
    """What g climbs and h, through psi, descends: E[psi] - lambda * E[mean((g(Z) - Z)^2)], a scalar.

    Autocast keeps copies of weights as long as it lasts: here for one answer, so that the next sees a step between.
    """
    with compute.autocast():
        treatment = g(seen.Z)
        omega_g, omega_h = omega(head, seen.F_nat, treatment), omega(head, seen.F_nat, h(treatment))
    return moment(omega_h, omega_g, seen.y).mean() - lambda_ * regulariser(treatment, seen.Z).mean()


def regret(
    head: nn.Module,
    h: nn.Module,
    g: nn.Module,
    optimizer: torch.optim.AdamW,
    scaler: torch.amp.GradScaler,
    seen: HeldOut,
    compute: Compute,
    *,
    lambda_: float,
    steps: int,
) -> float:
    """By how much the payoff grows when a copy of g is trained on against h as it is: about 0 at a saddle point.

    The copy takes `steps` steps with copies of its optimizer and loss scaling on one half of the images; both are
    measured on the other half. It is a lower bound of what the best g would gain. What is copied stays as it is, and h.
    """
    practice, test = seen.halves()
    better = deepcopy(g).train()
    climber = torch.optim.AdamW(better.parameters())
    climber.load_state_dict(deepcopy(optimizer.state_dict()))
    scaling = compute.scaler()
    scaling.load_state_dict(scaler.state_dict())
    with attacked(h):
        for _ in range(steps):
            climber.zero_grad(set_to_none=True)
            scaling.scale(-payoff(head, h, better, practice, compute, lambda_)).backward()
            scaling.step(climber)
            scaling.update()
        with attacked(g), torch.no_grad():
            before, after = (payoff(head, h, player, test, compute, lambda_) for player in (g, better.eval()))
    return float(after - before)


def shape_of_play(h: nn.Module, g: nn.Module, Z: Tensor) -> dict[str, float]:
    """treatment_distance |g(Z) - Z| / |Z|, 0 for an identity; hypothesis_spread in [0,1], 0 for a constant h.

    The spread is the root of the share of E|h(g(Z))|^2 that is left when the mean over the examples (N,) is taken off.
    """
    with attacked(h), attacked(g), torch.no_grad():
        treatment = g(Z)
        answer = h(treatment).float().flatten(1)
    away, length = (treatment - Z).float().flatten(1).norm(dim=1), Z.float().flatten(1).norm(dim=1)
    varying = (answer - answer.mean(0)).pow(2).sum() / answer.pow(2).sum().clamp_min(1e-12)
    return {
        "treatment_distance": float(away.mean() / length.mean().clamp_min(1e-12)),
        "hypothesis_spread": float(varying.sqrt()),
    }


def alarms(values: Mapping[str, float]) -> dict[str, str]:
    """Kind -> sentence for everything that held-out values (with the prefix `val_`) say is wrong with a game."""
    found: dict[str, str] = {}
    distance, spread = values["val_treatment_distance"], values["val_hypothesis_spread"]
    if distance < LITTLE:
        found["identity"] = (
            f"the test function is almost the identity: g(Z) is {100 * distance:.1f}% of |Z| away from Z, so there is "
            "no counterfactual to learn from; try a smaller lambda or a higher learning rate"
        )
    if spread < LITTLE:
        found["constant"] = (
            f"the hypothesis model is almost constant: {100 * spread:.1f}% of its answer depends on the example; "
            "try a lower learning rate"
        )
    if values["val_psi"] < NOTHING:
        found["psi"] = (
            f"psi has gone to {values['val_psi']:.2g}: both players are sure of the true class and nothing is left to "
            "play for; try a weaker base network or a larger eps"
        )
    return found
