"""Square Attack (Andriushchenko et al., ECCV 2020, arXiv 1912.00049): random search without gradients.

Keeps the best point so far by the logit margin and proposes to change a square of it, smaller and smaller ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from engine import keyed_random
from engine.attacks.balls import l2_norm, per_image
from engine.attacks.losses import margin
from engine.attacks.queries import Oracle
from engine.attacks.search import Search, State, rows, wrong
from engine.attacks.setting import Setting

FIRST_SHARE = 0.8
"""Of the image that the first squares cover."""
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Proposals after which that share halves; the authors' figures for 10,000 queries, never rescaled by the budget."""


def share_of(proposal: int) -> float:
    """The share of the image that the proposal with this number, from 0, changes."""
    return FIRST_SHARE / 2 ** sum(proposal > after for after in HALVED_AFTER)


@cache
def sides(steps: int, height: int, least: int) -> Tensor:
    """The side of the square by number of the proposal, at least `least`."""
    return torch.tensor([max(round((share_of(i) * height * height) ** 0.5), least) for i in range(max(steps, 1))])


@dataclass(frozen=True, kw_only=True)
class Square(Search):
    """The first question is about the image with vertical stripes (linf) or a grid of bumps (l2); `steps` proposals
    follow. Nothing but answers is used."""

    first_proposal: int = 0

    def begin(self, state: State) -> State:
        """At the stripes or bumps."""
        state = state | {"key": self.key(state, "square")}
        point = state["start"] if "start" in state else self._first(state)
        return self.fresh(state, point) | {"best_margin": torch.full_like(state["y"], -torch.inf, dtype=torch.float32)}

    def advance(self, state: State, oracle: Oracle) -> State:
        """Keep the point if its margin is the highest so far, and propose another."""
        y, step = state["y"], state["step"]
        z = oracle.logits(state["point"])
        broken = wrong(z, y)
        value = margin(z, y)
        better = (value > state["best_margin"]) | broken
        best = rows(better, state["point"], state["best"])
        made = state | {
            "best": best,
            "best_margin": torch.where(better, value, state["best_margin"]),
            "step": step + 1,
            "broken": broken,
            "done": broken | (step >= self.steps),
        }
        return made | {"point": self._propose(made)}

    def continued(self, steps: int) -> Search:
        """With the small squares of the end."""
        return replace(self, steps=steps, first_proposal=self.first_proposal + self.steps)

    def _first(self, state: State) -> Tensor:
        x = state["x"]
        channels, height, width = x.shape[1:]
        key = keyed_random.further(state["key"], 0)
        if self.ball.norm == "linf":
            return self.ball.project(x + self.ball.eps * _signs(key, (channels, 1, width)), x)
        side = max(height // 5, 1)
        count = height // side
        margin_of = (height - count * side) // 2
        bump = _bump(side).to(x.device).repeat(count, count)
        signs = _signs(key, (channels, count, count)).repeat_interleave(side, 2).repeat_interleave(side, 3)
        d = torch.zeros_like(x)
        inner = slice(margin_of, margin_of + count * side)
        d[:, :, inner, inner] = bump * signs
        return self.ball.project(x + d * per_image(self.ball.eps / l2_norm(d).clamp_min(1e-12), x), x)

    def _propose(self, state: State) -> Tensor:
        x, best = state["x"], state["best"]
        channels, height, width = x.shape[1:]
        number = self.first_proposal + state["step"] - 1
        table = sides(self.first_proposal + self.steps + 1, min(height, width), 1 if self.ball.norm == "linf" else 3)
        side = table.to(x.device)[number.clamp(0, len(table) - 1)].clamp_max(min(height, width))
        key = keyed_random.further(state["key"], number + 1)
        chance = keyed_random.uniform(key, (4 + channels,))
        signs = torch.where(chance[:, 4:] < 0.5, -1.0, 1.0)[:, :, None, None]
        if self.ball.norm == "linf":
            square = _inside(chance[:, :2], side, height, width)
            return self.ball.project(best + 2 * self.ball.eps * signs * square, x)
        return self._propose_l2(x, best, side, chance, signs, key)

    def _propose_l2(self, x: Tensor, best: Tensor, side: Tensor, chance: Tensor, signs: Tensor, key: Tensor) -> Tensor:
        """Move the norm that one square holds, and what the ball leaves unused, into another square as a bump."""
        channels, height, width = x.shape[1:]
        side = side + (side % 2 == 0)  # odd, so that a bump has a middle
        side = side.clamp_max(min(height, width))
        d = best - x
        to, emptied = _inside(chance[:, :2], side, height, width), _inside(chance[:, 2:4], side, height, width)
        upright = keyed_random.uniform(key ^ 1, ()) < 0.5
        bump = _placed(chance[:, :2], side, height, width)
        bump = torch.where(per_image(upright, bump), bump, _placed(chance[:, :2], side, height, width, turned=True))
        old = d * to
        old = old / old.flatten(2).norm(dim=2).clamp_min(1e-12)[:, :, None, None]
        new = (bump * signs + old) * to
        new = new / new.flatten(2).norm(dim=2).clamp_min(1e-12)[:, :, None, None]
        held = (d * torch.maximum(to, emptied)).flatten(2).norm(dim=2)
        unused = (self.ball.eps**2 - l2_norm(d) ** 2).clamp_min(0)
        amount = (unused[:, None] / channels + held**2).sqrt()[:, :, None, None]
        moved = d * (1 - torch.maximum(to, emptied)) + new * amount
        return self.ball.project(x + moved * per_image(self.ball.eps / l2_norm(moved).clamp_min(1e-12), x), x)


def _signs(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """-1 or 1 with equal chances, (N, *shape)."""
    return torch.where(keyed_random.uniform(key, shape) < 0.5, -1.0, 1.0)


def _corner(chance: Tensor, side: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row and column (N,1) of a square's corner, any that leaves it in the image being equally likely."""
    down = (chance[:, 0] * (height - side + 1)).long()
    across = (chance[:, 1] * (width - side + 1)).long()
    return down[:, None], across[:, None]


def _inside(chance: Tensor, side: Tensor, height: int, width: int) -> Tensor:
    """1 in a random square of each image and 0 elsewhere: (N,1,H,W)."""
    down, across = _corner(chance, side, height, width)
    y, x = torch.arange(height, device=side.device)[None] - down, torch.arange(width, device=side.device)[None] - across
    rows_in, columns_in = (y >= 0) & (y < side[:, None]), (x >= 0) & (x < side[:, None])
    return (rows_in[:, None, :, None] & columns_in[:, None, None, :]).float()


def _placed(chance: Tensor, side: Tensor, height: int, width: int, *, turned: bool = False) -> Tensor:
    """The bump of each image's side in its random square, 0 elsewhere: (N,1,H,W)."""
    down, across = _corner(chance, side, height, width)
    placed = torch.zeros(len(side), 1, height, width, device=side.device)
    for one in side.unique().tolist():
        mine = (side == one).nonzero()[:, 0]
        bump = _bump(one).to(side.device)
        y = torch.arange(height, device=side.device)[None] - down[mine]
        x = torch.arange(width, device=side.device)[None] - across[mine]
        table = bump.T if turned else bump
        values = table[y.clamp(0, one - 1)[:, :, None], x.clamp(0, one - 1)[:, None, :]]
        there = ((y >= 0) & (y < one))[:, :, None] & ((x >= 0) & (x < one))[:, None, :]
        placed[mine, 0] = values * there
    return placed


@cache
def _bump(side: int) -> Tensor:
    """Two opposite hills, one in each half of a square: what the authors found in L2 perturbations. L2 norm 1."""
    upper = _hill(side // 2, side)
    both = torch.cat([upper, -_hill(side - side // 2, side)])
    return both / both.norm().clamp_min(1e-12)


def _hill(height: int, width: int) -> Tensor:
    """Nested rectangles around the middle, each higher by 1/k^2 than the one around it. L2 norm 1."""
    hill = torch.zeros(height, width)
    down, across = height // 2, width // 2
    for k in range(max(down, across) + 1):
        rows_of = slice(max(down - k, 0), min(down + k + 1, height))
        columns_of = slice(max(across - k, 0), min(across + k + 1, width))
        hill[rows_of, columns_of] += 1 / (k + 1) ** 2
    return hill / hill.norm().clamp_min(1e-12)


def square(s: Setting) -> Search:
    """As many questions as the stage allows."""
    return Square(s.ball, s.seed, s.stage.square_queries)
