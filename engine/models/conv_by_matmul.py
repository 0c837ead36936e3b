"""Padded 3x3 convolutions of maps with few positions, on a CPU, as products of matrices.

At 2x2 and 4x4 positions a convolution library pads and multiplies by what it padded with, and its gradients of weights
are slow. As products over the taps that meet the map at all, pass and gradients of 512 channels at 2x2 take a quarter
of the time, and a pass at 4x4 about half.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, reduce
from itertools import product
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
        maps = maps.view(len(summary), height, width, maps.shape[2]).permute(0, 3, 1, 2)
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
def _pieces(height: int, width: int) -> tuple[tuple[bool, int, int, slice, slice, slice, slice], ...]:
    """For each tap (ky, kx) where rows and columns of a result lie, and those of the map that the tap meets there.

    One piece for all rows together if they are whole, as then they lie without a gap, otherwise one for each. Each
    tells first whether it is the first of its tap; the centre, which meets everything, comes before all others.
    """
    pieces = []
    for ky, kx in sorted(product(range(3), range(3)), key=lambda tap: tap != (1, 1)):
        top, bottom = max(0, 1 - ky), height - max(0, ky - 1)
        columns = slice(max(0, 1 - kx), width - max(0, kx - 1))
        met = slice(columns.start + kx - 1, columns.stop + kx - 1)
        parts = [slice(top, bottom)] if kx == 1 else [slice(row, row + 1) for row in range(top, bottom)]
        for part in parts:
            if part.start < part.stop and columns.start < columns.stop:
                met_rows = slice(part.start + ky - 1, part.stop + ky - 1)
                pieces.append((part.start == top, ky, kx, part, columns, met_rows, met))
    return tuple(pieces)


def _products(Y: Tensor, X: Tensor, T: Tensor) -> Iterator[tuple[bool, Tensor, Tensor, Tensor]]:
    """Y (H,W,N,b), X (H,W,N,a) and the kernel T (3,3,a,b) in views y (M,b), x (M,a), t (a,b).

    A convolution is y += x t over all; its gradients are x += y t' and t += x' y. Tells whether a t is new.
    """
    height, width = Y.shape[:2]
    for first, ky, kx, rows, columns, met_rows, met_columns in _pieces(height, width):
        y, x = Y[rows, columns], X[met_rows, met_columns]
        yield first, y.view(-1, Y.shape[3]), x.view(-1, X.shape[3]), T[ky, kx]


def _gather(X: Tensor, T: Tensor) -> Tensor:
    Y = X.new_empty(*X.shape[:3], T.shape[3])
    for i, (_, y, x, t) in enumerate(_products(Y, X, T)):
        y.addmm_(x, t, beta=min(i, 1))
    return Y


def _scatter(Y: Tensor, T: Tensor) -> Tensor:
    X = Y.new_empty(*Y.shape[:3], T.shape[2])
    for i, (_, y, x, t) in enumerate(_products(Y, X, T)):
        x.addmm_(y, t.T, beta=min(i, 1))
    return X


def _correlate(Y: Tensor, X: Tensor) -> Tensor:
    met_by_all = min(Y.shape[:2]) > 1
    T = (X.new_empty if met_by_all else X.new_zeros)(3, 3, X.shape[3], Y.shape[3])
    for first, y, x, t in _products(Y, X, T):
        t.addmm_(x.T, y, beta=1 - first)
    return T


def _by_positions(maps: Tensor) -> Tensor:
    """(N,C,H,W) as (H,W,N,C): what a tap meets in a row of all maps lies together."""
    return maps.permute(2, 3, 0, 1).contiguous()


def _by_maps(maps: Tensor) -> Tensor:
    """(H,W,N,C) as (N,C,H,W), channels-last, which other layers read faster."""
    return maps.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


def _to_taps(weight: Tensor) -> Tensor:
    return weight.permute(2, 3, 1, 0).contiguous()


def _from_taps(T: Tensor) -> Tensor:
    return T.permute(3, 2, 0, 1)


class _Convolution(torch.autograd.Function):
    """Maps (N,a,H,W) and kernel (b,a,3,3) to maps (N,b,H,W)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        X, T = _by_positions(x), _to_taps(weight)
        ctx.save_for_backward(X, T)
        return _by_maps(_gather(X, T))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        X, T = ctx.saved_tensors
        Y = _by_positions(gradient)
        of_x, of_weight = ctx.needs_input_grad
        return (
            _by_maps(_scatter(Y, T)) if of_x else None,
            _from_taps(_correlate(Y, X)) if of_weight else None,
        )


class _Deconvolution(torch.autograd.Function):
    """Maps (N,b,H,W) and kernel (b,a,3,3) to maps (N,a,H,W): what a convolution's gradient does."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor) -> Tensor:
        Y, T = _by_positions(y), _to_taps(weight)
        ctx.save_for_backward(Y, T)
        return _by_maps(_scatter(Y, T))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        Y, T = ctx.saved_tensors
        X = _by_positions(gradient)
        of_y, of_weight = ctx.needs_input_grad
        return (
            _by_maps(_gather(X, T)) if of_y else None,
            _from_taps(_correlate(Y, X)) if of_weight else None,
        )
