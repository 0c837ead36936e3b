"""How near a game is to its saddle point, and signs that it has degenerated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engine.attacks.loop import attacked
from engine.attacks.losses import kl_divergence
from engine.device import Compute
from engine.game.moments import moment, omega, regulariser

FEWEST = 4
"""Held-out images that regret needs: two in either half, as BatchNorm cannot learn the variance of one."""
LITTLE = 0.05
"""Below this share of |Z| g(Z) counts as Z itself; below this share of what examples differ by, h is without effect."""
ALIKE = 0.1
"""Nearer to Adv than this share of what the attack does to the answer, CF counts as Adv. A g that was trained to be the
identity alone comes to 0.02, one that plays is at 0.5 and more."""
NOTHING = 1e-3
"""psi, a product, below which nothing is left to play for: one of the likelihoods of the true class is near 1."""


class Play(NamedTuple):
    """The two players as they stand, and the head of the classifier, f_l+, through which they are judged."""

    head: nn.Module
    h: nn.Module
    g: nn.Module


class HeldOut(NamedTuple):
    """Features of images that nobody trains on: F_nat and Z (N,C,H,W), labels (N,)."""

    F_nat: Tensor
    Z: Tensor
    y: Tensor

    def halves(self) -> Sequence[HeldOut]:
        """The first and the second half."""
        middle = len(self.y) // 2
        return HeldOut(*(part[:middle] for part in self)), HeldOut(*(part[middle:] for part in self))


def payoff(play: Play, seen: HeldOut, compute: Compute, lambda_: float) -> Tensor:
    """What g climbs and h, through psi, descends: E[psi] - lambda * E[mean((g(Z) - Z)^2)], a scalar.

    Autocast keeps copies of weights as long as it lasts: here for one answer, so that the next sees a step between.
    """
    with compute.autocast():
        treatment = play.g(seen.Z)
        omega_g = omega(play.head, seen.F_nat, treatment)
        omega_h = omega(play.head, seen.F_nat, play.h(treatment))
    return moment(omega_h, omega_g, seen.y).mean() - lambda_ * regulariser(treatment, seen.Z).mean()


class Practice(NamedTuple):
    """How a copy of g is trained on: `steps` steps with copies of the optimizer of g and of its loss scaling."""

    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    steps: int


def regret(play: Play, practice: Practice, seen: HeldOut, compute: Compute, lambda_: float) -> float:
    """By how much the payoff grows when a copy of g is trained on against h as it is: about 0 at a saddle point.

    The copy practises on one half of the images; it and g are measured on the other half. It is a lower bound of what
    the best g would gain. What is copied stays as it is, and h.
    """
    training, test = seen.halves()
    better = play._replace(g=deepcopy(play.g).train())
    optimizer = torch.optim.AdamW(better.g.parameters())
    optimizer.load_state_dict(deepcopy(practice.optimizer.state_dict()))
    scaler = compute.scaler()
    scaler.load_state_dict(practice.scaler.state_dict())
    with attacked(play.h):
        for _ in range(practice.steps):
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(-payoff(better, training, compute, lambda_)).backward()
            scaler.step(optimizer)
            scaler.update()
        better.g.eval()
        with attacked(play.g), torch.no_grad():
            before, after = (payoff(players, test, compute, lambda_) for players in (play, better))
    return float(after - before)


def shape_of_play(play: Play, seen: HeldOut) -> dict[str, float]:
    """How far g is from the identity, and what it matters to the classifier which example h answers to.

    treatment_distance is |g(Z) - Z| / |Z|. counterfactual_kl is mean KL(Adv || CF) / mean KL(Adv || clean answer), near
    0 also for a g that cannot repeat every value of Z but does the same to the classifier. hypothesis_spread is by how
    much logits change when h gives its mean answer to every example, root mean square over that of the clean logits
    around their mean: 0 for a constant h as for one that vanishes. Logits are taken around their mean over the classes,
    as the softmax does not see it.
    """

    def logits(w: Tensor | float) -> Tensor:
        z = play.head(seen.F_nat + w).float()
        return z - z.mean(1, keepdim=True)

    with attacked(play.h), attacked(play.g), torch.no_grad():
        treatment = play.g(seen.Z)
        answer = play.h(treatment)
        away, length = (w.float().flatten(1).norm(dim=1) for w in (treatment - seen.Z, seen.Z))
        clean, adv = logits(0.0), logits(seen.Z)
        kl, attack = kl_divergence(adv, logits(treatment)), kl_divergence(adv, clean)
        moved = logits(answer) - logits(answer.float().mean(0).to(answer.dtype))
    apart = (clean - clean.mean(0)).pow(2).mean().sqrt()
    return {
        "treatment_distance": float(away.mean() / length.mean().clamp_min(1e-12)),
        "counterfactual_kl": float(kl.mean() / attack.mean().clamp_min(1e-12)),
        "hypothesis_spread": float(moved.pow(2).mean().sqrt() / apart.clamp_min(1e-12)),
    }


def alarms(values: Mapping[str, float]) -> dict[str, str]:
    """Kind -> sentence for everything that held-out values (with the prefix `val_`) say is wrong with a game."""
    diverged = [name for name, value in values.items() if not math.isfinite(value)]
    if diverged:
        return {
            "diverged": f"the game has diverged: not finite numbers are {', '.join(diverged)}; "
            "try a lower learning rate"
        }
    signs: dict[str, str] = {}
    distance, kl, spread = (
        values[f"val_{name}"] for name in ("treatment_distance", "counterfactual_kl", "hypothesis_spread")
    )
    if distance < LITTLE or kl < ALIKE:
        signs["identity"] = (
            f"the test function is almost the identity: CF is {100 * kl:.1f}% as far from Adv as the clean answer is "
            f"(KL), g(Z) {100 * distance:.1f}% of |Z| away from Z, so there is no counterfactual to learn from; "
            "try a smaller lambda or a higher learning rate"
        )
    if spread < LITTLE:
        signs["constant"] = (
            "the hypothesis model is constant or without effect: with one answer for all examples the logits would "
            f"change by {100 * spread:.1f}% of what they differ by; try more epochs or another learning rate"
        )
    if values["val_psi"] < NOTHING:
        signs["psi"] = (
            f"psi has gone to {values['val_psi']:.2g}: for almost every image CC or CF is sure of the true class and "
            "nothing is left to play for; try a weaker base network or a larger eps"
        )
    return signs
