"""Targeted FAB (Croce and Hein, ICML 2020, arXiv 1907.02044): the nearest misclassified image, class by class.

Each step projects onto the linearised boundary to the target class, inside the box; a share of it starts from the clean
image, which draws the walk back to it. A misclassified point is moved towards the clean image and the walk goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.attacks.apgd import target_of
from engine.attacks.balls import l2_norm, per_image
from engine.attacks.loop import FP16_SCALE
from engine.attacks.losses import targeted_margin
from engine.attacks.queries import Oracle
from engine.attacks.search import Search, State, mute, rows, steps_of, wrong
from engine.attacks.setting import Setting
from engine.contract.profile.catalogue import Norm

MOST_BIAS = 0.1
"""Share of the projection of the clean image at most (alpha_max)."""
OVERSHOOT = 1.05
"""How far beyond the linearised boundary a step goes (eta)."""
STEP_BACK = 0.9
"""What is left of the way from the clean image after a misclassified point (beta)."""

TIE = 1e-6
"""How far a pixel moves at least, on a boundary too, where two logits tie: more than fp32 rounds."""
NEGLIGIBLE = 1e-6
"""Share of a length by which another step of Newton's method is not worth while: what fp32 rounds."""
LONGEST = 1e30
"""Further than any wall, and finite."""


@dataclass(frozen=True, kw_only=True)
class Fab(Search):
    """`steps` projections towards each target class, from the clean image; one backward pass each, of z_t - z_y.

    An example is broken as soon as a misclassified point lies in the ball. What is handed over otherwise is the
    nearest misclassified point found, brought into the ball.
    """

    @property
    def precise(self) -> bool:
        """It walks along the boundary, where the difference of two logits in bf16 is mostly rounding."""
        return True

    def begin(self, state: State) -> State:
        """At the clean image."""
        point = state["start"] if "start" in state else state["x"]
        distance = torch.full_like(state["y"], torch.inf, dtype=torch.float32)
        return self.fresh(state, point) | {"nearest": point, "distance": distance}

    def advance(self, state: State, oracle: Oracle) -> State:
        """Is the point misclassified, and how near? Then a projection from there, or from a step back."""
        x, y, point, target = state["x"], state["y"], state["point"], target_of(state)
        begins = 0 in steps_of(state)
        over = wrong(oracle.logits(point), y)
        d = point - x
        length = _size(d, self.ball.norm)
        broken = over & (length <= self.ball.eps)
        nearer = over & (length < state["distance"])
        nearest, distance = rows(nearer, point, state["nearest"]), torch.where(nearer, length, state["distance"])

        base = rows(over, torch.add(x, d, alpha=STEP_BACK), point)
        here = oracle.slope(base, lambda z: targeted_margin(z, y, target))
        w = here.gradient / FP16_SCALE
        tie = TIE * w.flatten(1).abs().sum(1)
        gap = torch.where(here.value.abs() < tie, tie, -here.value)
        lean = (w * (base - x)).flatten(1).sum(1) - here.value
        from_base, from_clean = least_move(
            torch.cat([w, w]), torch.cat([gap, lean]), torch.cat([base, x]), self.ball.norm
        ).chunk(2)
        a, b = (_size(move, self.ball.norm).clamp_min_(1e-8) for move in (from_base, from_clean))
        share = per_image((a / (a + b)).clamp_max_(MOST_BIAS), x)
        moved = torch.lerp(base.add(from_base, alpha=OVERSHOOT), x.add(from_clean, alpha=OVERSHOOT), share).clamp_(0, 1)
        made = {
            "point": moved,
            "best": self.confine(rows(distance.isfinite(), nearest, moved), state),
            "nearest": nearest,
            "distance": distance,
            "step": state["step"] + 1,
            "broken": broken,
            "done": broken | (state["step"] >= self.steps),
        }
        if begins:
            made["mute"] = mute(here.gradient, state)
        return state | made


def _size(d: Tensor, norm: Norm) -> Tensor:
    return d.flatten(1).abs().amax(1) if norm == "linf" else l2_norm(d)


def least_move(w: Tensor, gap: Tensor, at: Tensor, norm: Norm) -> Tensor:
    """The shortest d (N,C,H,W) in `norm` with <w,d> = gap (N,) and at + d in [0,1].

    Where the box does not let it reach the gap, the furthest towards it. A pixel that reaches its wall stays there
    while the others go on, so what <w,d> gives grows with the length that pixels are allowed as a concave broken line:
    Newton's method comes to its root from below, in few steps, each exact on the piece that it ends on.
    """
    n = len(at)
    weight, place, most = w.reshape(n, -1), at.reshape(n, -1), gap.abs()[:, None]
    direction = weight.sign() * gap.sign()[:, None]
    room = (direction / 2).add_(0.5).sub_(place).mul_(direction)  # to 1, to 0, or none where there is no direction
    size = weight.abs()
    # A pixel moves by `reach` (linf), or by `reach` times its weight (l2), until it meets its wall.
    rate = size if norm == "l2" else torch.ones_like(size[:1])
    gain = size * rate
    reach, length = torch.zeros_like(most), torch.zeros_like(room)
    for _ in range(room.shape[1]):  # a step passes one wall at least
        missing = most - (size * length).sum(1, keepdim=True)
        slope = (room - length).sign_().mul_(gain).sum(1, keepdim=True)  # of the pixels that still move
        further = (missing / slope) * (slope > 0)
        further = torch.where(further > NEGLIGIBLE * reach, further, 0.0)  # so a row stays where it has arrived
        if not bool(further.any()):
            break
        reach = (reach + further).clamp_max_(LONGEST)
        length = torch.minimum(reach * rate, room)
    return (direction * length).view_as(at)


def fab_t(s: Setting) -> Search:
    """Towards one class after the other."""
    return Fab(s.ball, s.seed, s.stage.fab_steps, s.targets)
