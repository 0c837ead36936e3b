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
from engine.attacks.oracle import Oracle
from engine.attacks.search import Search, State, fresh, mute, rows, wrong
from engine.contract.catalogue import Norm

MOST_BIAS = 0.1
"""Share of the projection of the clean image at most (alpha_max)."""
OVERSHOOT = 1.05
"""How far beyond the linearised boundary a step goes (eta)."""
STEP_BACK = 0.9
"""What is left of the way from the clean image after a misclassified point (beta)."""


@dataclass(frozen=True, kw_only=True)
class Fab(Search):
    """`steps` projections towards each target class, from the clean image; one backward pass each, of z_t - z_y.

    An example is broken as soon as a misclassified point lies in the ball. What is handed over otherwise is the
    nearest misclassified point found, brought into the ball.
    """

    def begin(self, state: State) -> State:
        """At the clean image."""
        point = state["start"] if "start" in state else state["x"]
        distance = torch.full_like(state["y"], torch.inf, dtype=torch.float32)
        return fresh(state, point) | {"nearest": point, "distance": distance}

    def advance(self, state: State, oracle: Oracle) -> State:
        """Is the point misclassified, and how near? Then a projection from there, or from a step back."""
        x, y, point, target = state["x"], state["y"], state["point"], target_of(state)
        over = wrong(oracle.logits(point), y)
        d = point - x
        length = _size(d, self.ball.norm)
        broken = over & (length <= self.ball.eps)
        nearer = over & (length < state["distance"])
        nearest, distance = rows(nearer, point, state["nearest"]), torch.where(nearer, length, state["distance"])

        base = rows(over, x + STEP_BACK * d, point)
        here = oracle.slope(base, lambda z: targeted_margin(z, y, target))
        w = here.gradient / FP16_SCALE
        from_base = least_move(w, -here.value, base, self.ball.norm)
        lean = (w * (base - x)).flatten(1).sum(1) - here.value
        from_clean = least_move(w, lean, x, self.ball.norm)
        a, b = (_size(move, self.ball.norm).clamp_min(1e-8) for move in (from_base, from_clean))
        share = per_image((a / (a + b)).clamp_max(MOST_BIAS), x)
        moved = (1 - share) * (base + OVERSHOOT * from_base) + share * (x + OVERSHOOT * from_clean)
        first = state["step"] == 0
        return state | {
            "point": moved.clamp(0, 1),
            "best": self.ball.project(rows(distance.isfinite(), nearest, moved.clamp(0, 1)), x),
            "nearest": nearest,
            "distance": distance,
            "step": state["step"] + 1,
            "broken": broken,
            "mute": mute(here.gradient, first, state["mute"]),
            "done": broken | (state["step"] >= self.steps),
        }


def _size(d: Tensor, norm: Norm) -> Tensor:
    return d.flatten(1).abs().amax(1) if norm == "linf" else l2_norm(d)


def least_move(w: Tensor, gap: Tensor, at: Tensor, norm: Norm) -> Tensor:
    """The shortest d (N,C,H,W) in `norm` with <w,d> = gap (N,) and at + d in [0,1].

    Where the box does not let it reach the gap, the furthest towards it. A pixel that reaches the wall stays there
    while the others go on, so <w,d> grows piecewise linearly with the length that pixels are allowed: the walls are
    sorted by the length at which they are met, and the right piece is solved exactly.
    """
    n = len(at)
    weight, place = w.reshape(n, -1), at.reshape(n, -1)
    direction = weight.sign() * gap.sign()[:, None]
    room = torch.where(direction > 0, 1 - place, place) * (direction != 0)
    size = weight.abs()
    # A pixel moves by `reach` (linf), or by `reach` times its weight (l2), until it meets its wall.
    rate = torch.ones_like(size) if norm == "linf" else size
    wall = torch.where(size > 0, room / rate.clamp_min(1e-30), torch.inf)
    walls, order = wall.sort(dim=1)
    slope, full = (size * rate).gather(1, order), (size * room).gather(1, order)
    met = full.cumsum(1) - full  # what the pixels before have given when the i-th meets its wall
    open_slope = slope.flip(1).cumsum(1).flip(1)  # of the pixels that still move then
    given = met + torch.where(walls.isfinite(), walls, 0.0) * open_slope
    reachable = given >= gap.abs()[:, None]
    piece = reachable.to(torch.uint8).argmax(1, keepdim=True)
    rest = gap.abs()[:, None] - met.gather(1, piece)
    reach = rest / open_slope.gather(1, piece).clamp_min(1e-30)
    reach = torch.where(reachable.any(1, keepdim=True), reach, torch.inf)
    length = torch.minimum(torch.where(size > 0, reach * rate, 0.0).nan_to_num(0.0, posinf=torch.inf), room)
    return (direction * length).view_as(at)
