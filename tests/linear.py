"""A classifier whose worst case is known in closed form, cut into features and head like every other."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    """Two classes, logits (s/2, -s/2) with margin s = w.x + b; features are the image itself."""

    def __init__(self, weight: Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = bias
        self.features = nn.Identity()
        self.feature_shape = tuple(weight.shape)

    def head(self, features: Tensor) -> Tensor:
        margin = (features * self.weight).flatten(1).sum(1) + self.bias
        return torch.stack([margin / 2, -margin / 2], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)

    def margin(self, x: Tensor, y: Tensor) -> Tensor:
        """How far the true class is ahead: (N,) in fp64."""
        s = (x.double() * self.weight.double()).flatten(1).sum(1) + self.bias
        return torch.where(y == 0, s, -s)

    def worst_linf(self, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """The smallest margin in the Linf ball cut with the box: every pixel goes to its worse end. fp64 (N,)."""
        x, push = x.double(), torch.where(y == 0, -1.0, 1.0)[:, None, None, None] * self.weight.double().sign()
        return self.margin((x + eps * push).clamp(0, 1), y)

    def worst_l2(self, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """The smallest margin in the L2 ball, where the box does not cut it: fp64 (N,)."""
        return self.margin(x, y) - eps * self.weight.double().norm()


def example(n: int = 64, shape: tuple[int, int, int] = (3, 4, 4), seed: int = 0) -> tuple[Linear, Tensor, Tensor]:
    """A linear model, n images in [0.2, 0.8] and labels that it mostly gets right."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.2 + 0.6 * torch.rand(n, *shape, generator=generator)
    weight = torch.randn(shape, generator=generator)
    model = Linear(weight, bias=-float((x * weight).flatten(1).sum(1).median()))
    y = (model(x)[:, 1] > model(x)[:, 0]).long()
    y[::10] = 1 - y[::10]
    return model, x, y.detach()


class ManyClasses(nn.Module):
    """K classes, logits W x + b: robust against class j iff z_y - z_j > eps |w_y - w_j| in the dual norm."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias

    def robust(self, x: Tensor, y: Tensor, norm: str, eps: float) -> Tensor:
        """Which examples withstand every point of the ball, where the box does not cut it: (N,) bool, in fp64.

        Also how near each is to the border, relative to the logits' scale.
        """
        weight, z = self.weight.double(), x.double().flatten(1) @ self.weight.double().T + self.bias.double()
        lead = z.gather(1, y[:, None]) - z
        apart = weight[y][:, None] - weight[None]
        reach = eps * (apart.abs().sum(2) if norm == "linf" else apart.norm(dim=2))
        lead, reach = (value.scatter(1, y[:, None], fill) for value, fill in ((lead, 1.0), (reach, 0.0)))
        return (lead > reach).all(1)


def many_classes(n: int = 96, classes: int = 10, seed: int = 0) -> tuple[ManyClasses, Tensor, Tensor]:
    """A linear model of many classes, n images in [0.3, 0.7] (2,4,4) and labels of which it gets nine in ten right."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.3 + 0.4 * torch.rand(n, 2, 4, 4, generator=generator)
    model = ManyClasses(torch.randn(classes, 32, generator=generator), torch.zeros(classes)).requires_grad_(False)
    model.bias -= model(x).mean(0)  # else one class would win everywhere
    y = model(x).argmax(1)
    y[::10] = (y[::10] + 1) % classes
    return model, x, y
