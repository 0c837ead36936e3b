"""Padded 3x3 convolutions of maps with few positions, on a CPU, as products of matrices.

At 2x2 and 4x4 positions a convolution library pads and multiplies by what it padded with, and its gradients of weights
are slow. As products over the taps that meet the map at all, pass and gradients of 512 channels at 2x2 take a quarter
of the time, and at 4x4 three quarters.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, reduce
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Network = TypeVar("Network", bound=nn.Module)

POSITIONS = 16
"""Of a map that counts as small. At 8x8 the library is as fast."""


def suits(x: Tensor) -> bool:
    """Whether maps (N,C,H,W) are convolved here: on a CPU, small, in full precision."""
    return (
        x.device.type == "cpu"
        and x.shape[2] * x.shape[3] <= POSITIONS
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
    )


class Conv3x3(nn.Conv2d):
    """nn.Conv2d with a 3x3 kernel, stride 1 and padding 1, fast for small maps. Maps it returns are channels-last."""

    def __init__(self, before: int, after: int, *, bias: bool = True) -> None:
        super().__init__(before, after, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N,before,H,W) to (N,after,H,W)."""
        if not suits(x):
            return super().forward(x)
        return _with_bias(_Convolution.apply(x, self.weight), self.bias)


class Deconv3x3(nn.ConvTranspose2d):
    """nn.ConvTranspose2d with a 3x3 kernel, stride 1 and padding 1, fast for small maps and for constant ones."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 3, padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N,before,H,W) to (N,after,H,W)."""
        if not suits(x):
            return super().forward(x, output_size)
        return _with_bias(_Deconvolution.apply(x, self.weight), self.bias)

    def of_constant(self, summary: Tensor, height: int, width: int) -> Tensor:
        """What it makes of maps that are `summary` (N,before) at every position: (N,after,height,width).

        Then a position's value depends only on which taps meet the map there: at most nine products instead of nine a
        position.
        """
        rows, columns = _meeting_taps(height), _meeting_taps(width)
        taps = [row.unbind(0) for row in self.weight.permute(2, 3, 1, 0).unbind(0)]  # [3][3], each (after,before)
        made = {}
        for in_row in dict.fromkeys(rows):
            of_row = [reduce(torch.add, [taps[ky][kx] for ky in in_row]) for kx in range(3)]
            for in_column in dict.fromkeys(columns):
                made[in_row, in_column] = summary @ reduce(torch.add, [of_row[kx] for kx in in_column]).T
        maps = torch.stack([made[row, column] for row in rows for column in columns], 1)
        maps = maps.view(len(summary), height, width, -1).permute(0, 3, 1, 2)
        return _with_bias(maps, self.bias)


def by_taps(network: Network) -> Network:
    """The same network, the kernels of its convolutions kept tap by tap, as the products here read and write them."""
    for module in network.modules():
        if isinstance(module, Conv3x3 | Deconv3x3):
            weight = module.weight
            weight.data = weight.data.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
    return network


def _with_bias(maps: Tensor, bias: Tensor | None) -> Tensor:
    return maps if bias is None else maps + bias[:, None, None]


@cache
def _meeting_taps(size: int) -> tuple[tuple[int, ...], ...]:
    """For each of `size` positions in a row, the taps of a deconvolution that meet the map."""
    return tuple(tuple(k for k in range(3) if 0 <= at - k + 1 < size) for at in range(size))


@cache
def _pieces(height: int, width: int) -> tuple[tuple[int, int, int, int, int, int, int], ...]:
    """For each position (y, x) and row `ky` of the kernel that meets the map: y, x, ky, the columns of the kernel that
    do (from, to), and where their row and first column lie in the map."""
    return tuple(
        (y, x, ky, max(0, 1 - x), min(3, width + 1 - x), y + ky - 1, max(0, x - 1))
        for y in range(height)
        for x in range(width)
        for ky in range(max(0, 1 - y), min(3, height + 1 - y))
    )


def _products(Y: Tensor, X: Tensor, T: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Y (N,H,W,b), X (N,H,W,a) and the kernel T (3,3,a,b) in views y (N,b), x (N,k*a), t (k*a,b).

    A convolution is y += x t over all; its gradients are x += y t' and t += x' y.
    """
    n, height, width, b = Y.shape
    for y, x, ky, first, end, row, column in _pieces(height, width):
        met = X[:, row, column : column + end - first].view(n, -1)
        yield Y[:, y, x], met, T[ky, first:end].view(-1, b)


def _gather(X: Tensor, T: Tensor) -> Tensor:
    Y = X.new_zeros(*X.shape[:3], T.shape[3])
    for y, x, t in _products(Y, X, T):
        y.addmm_(x, t)
    return Y


def _scatter(Y: Tensor, T: Tensor) -> Tensor:
    X = Y.new_zeros(*Y.shape[:3], T.shape[2])
    for y, x, t in _products(Y, X, T):
        x.addmm_(y, t.T)
    return X


def _correlate(Y: Tensor, X: Tensor) -> Tensor:
    T = X.new_zeros(3, 3, X.shape[3], Y.shape[3])
    for y, x, t in _products(Y, X, T):
        t.addmm_(x.T, y)
    return T


def _to_last(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1).contiguous()


def _from_last(maps: Tensor) -> Tensor:
    return maps.permute(0, 3, 1, 2)


def _to_taps(weight: Tensor) -> Tensor:
    return weight.permute(2, 3, 1, 0).contiguous()


def _from_taps(T: Tensor) -> Tensor:
    return T.permute(3, 2, 0, 1)


class _Convolution(torch.autograd.Function):
    """Maps (N,a,H,W) and kernel (b,a,3,3) to maps (N,b,H,W)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        X, T = _to_last(x), _to_taps(weight)
        ctx.save_for_backward(X, T)
        return _from_last(_gather(X, T))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        X, T = ctx.saved_tensors
        Y = _to_last(gradient)
        of_x, of_weight = ctx.needs_input_grad
        return (
            _from_last(_scatter(Y, T)) if of_x else None,
            _from_taps(_correlate(Y, X)) if of_weight else None,
        )


class _Deconvolution(torch.autograd.Function):
    """Maps (N,b,H,W) and kernel (b,a,3,3) to maps (N,a,H,W): what a convolution's gradient does."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor) -> Tensor:
        Y, T = _to_last(y), _to_taps(weight)
        ctx.save_for_backward(Y, T)
        return _from_last(_scatter(Y, T))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        Y, T = ctx.saved_tensors
        X = _to_last(gradient)
        of_y, of_weight = ctx.needs_input_grad
        return (
            _from_last(_gather(X, T)) if of_y else None,
            _from_taps(_correlate(Y, X)) if of_weight else None,
        )
