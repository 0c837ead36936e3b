"""The set of allowed images: a ball around the clean image, cut with the box [0,1]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine import keyed_random
from engine.contract.profile.catalogue import Norm

_ROUNDING = 2.0**-24
"""Half the spacing of fp32 numbers just below 1: the most by which adding a perturbation to a pixel can round up.

The radius is made smaller by this much, so that |x_adv - x|, computed in fp32, never exceeds eps.
"""


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """(N,) as (N,1,1,1), to be used with `like` (N,C,H,W)."""
    return values.view(-1, *([1] * (like.dim() - 1)))


def l2_norm(d: Tensor) -> Tensor:
    """L2 norm of each image of (N,C,H,W): (N,)."""
    return d.flatten(1).norm(dim=1)


@dataclass(frozen=True)
class Ball:
    """All images within `eps` of x in `norm`, inside [0,1]. Everything in fp32."""

    norm: Norm
    eps: float

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Bring x_adv (N,C,H,W) into the ball around x and into the box.

        For linf this is the nearest allowed point. For l2 the result is allowed, but not always the nearest such
        point where the box cuts the ball.
        """
        return self.around(x)(x_adv)

    def around(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` to the ball around x (N,C,H,W), for many points: what depends on x alone is computed once."""
        if self.norm == "linf":
            low, high = self.walls(x)
            return lambda x_adv: x_adv.clamp(low, high)
        return lambda x_adv: self._shortened(x_adv - x, x)

    def _shortened(self, d: Tensor, x: Tensor) -> Tensor:
        """x with a perturbation d (N,C,H,W) that is made as short as l2 allows, cut to the box."""
        radius = max(self.eps * (1 - 1e-6) - d[0].numel() ** 0.5 * _ROUNDING, 0.0) if len(d) else self.eps
        d = d * per_image((radius / l2_norm(d).clamp_min(1e-12)).clamp_max(1.0), d)
        return (x + d).clamp(0, 1)

    def walls(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and the highest values allowed of each pixel by linf and the box, (N,C,H,W) both."""
        radius = max(self.eps - _ROUNDING, 0.0)
        return (x - radius).clamp_min_(0), (x + radius).clamp_max_(1)

    def random_point(self, x: Tensor, key: Tensor) -> Tensor:
        """A random allowed image: uniform in the ball, then cut to the box. `key` (N,): keyed_random.keys."""
        shape = tuple(x.shape[1:])
        if self.norm == "linf":
            d = (2 * keyed_random.uniform(key, shape) - 1) * self.eps
        else:
            direction = keyed_random.normal(key, shape)
            length = keyed_random.uniform(key ^ 1, ()) ** (1 / x[0].numel()) * self.eps
            d = direction * per_image(length / l2_norm(direction).clamp_min(1e-12), x)
        return self.project(x + d, x)

    def surface_point(self, x: Tensor, key: Tensor) -> Tensor:
        """A random image at distance eps, then cut to the box: where APGD starts. `key` (N,): keyed_random.keys."""
        shape = tuple(x.shape[1:])
        if self.norm == "linf":
            d = 2 * keyed_random.uniform(key, shape) - 1
            length = d.flatten(1).abs().amax(1)
        else:
            d = keyed_random.normal(key, shape)
            length = l2_norm(d)
        return self.project(x + d * per_image(self.eps / length.clamp_min(1e-12), x), x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction of length 1 (in this norm) that increases a linear function most; 0 where the gradient is 0."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / per_image(l2_norm(gradient).clamp_min(1e-12), gradient)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Whether each x_adv is finite, in the ball and in the box, judged in fp32: (N,) bool."""
        d = x_adv - x
        size = d.flatten(1).abs().amax(1) if self.norm == "linf" else l2_norm(d)
        in_box = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)  # NaN fails both comparisons
        return in_box & (size <= torch.tensor(self.eps, dtype=torch.float32, device=x.device))
