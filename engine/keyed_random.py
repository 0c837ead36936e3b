"""Random numbers that belong to an example, not to a batch.

Every draw is a pure function of a key (seed, data index, purpose, restart, step) and of the position of the element:
so a result does not depend on batch size, neighbours, device count, or on where a run was resumed. The generator is a
counter through the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
OOPSLA 2014), in int64 arithmetic that wraps around alike on every device.
"""

from __future__ import annotations

import math
import zlib
from typing import TypeVar

import torch
from torch import Tensor

Bits = TypeVar("Bits", int, Tensor)


def _wrapped(bits: Bits) -> Bits:
    """A number wrapped around to what a signed one of 64 bits holds, as a tensor of int64 is anyway."""
    if isinstance(bits, Tensor):
        return bits
    bits &= (1 << 64) - 1
    return bits - (1 << 64) if bits >= 1 << 63 else bits


_GOLDEN = _wrapped(0x9E3779B97F4A7C15)
_MIX_1 = _wrapped(0xBF58476D1CE4E5B9)
_MIX_2 = _wrapped(0x94D049BB133111EB)


def _shift_right(bits: Bits, by: int) -> Bits:
    return (bits >> by) & ((1 << (64 - by)) - 1)  # >> copies the sign bit; the mask makes the shift logical


def _mix(bits: Bits) -> Bits:
    bits = _wrapped((bits ^ _shift_right(bits, 30)) * _MIX_1)
    bits = _wrapped((bits ^ _shift_right(bits, 27)) * _MIX_2)
    return bits ^ _shift_right(bits, 31)


def keys(seed: int, index: Tensor, purpose: str, *path: int | Tensor) -> Tensor:
    """One key (N,) int64 for each data index (N,) int64, for one purpose and a path such as (restart, step).

    A part of the path is one number for all, or int64 (N,) where the examples are at different restarts or steps. What
    is alike for all is mixed as one number, which costs next to nothing.
    """
    parts, alike = [seed, *path, index], zlib.crc32(purpose.encode())
    while isinstance(part := parts[0], int):
        alike = _mix(_wrapped(_mix(alike) + _wrapped(part * _GOLDEN)))
        del parts[0]
    key = torch.full_like(index, alike)
    for part in parts:
        key = _mix(_mix(key) + _step(part))
    return key


def _step(number: int | Tensor) -> int | Tensor:
    """How far the counter goes for a number, one for all or int64 (N,)."""
    return number * _GOLDEN if isinstance(number, Tensor) else _wrapped(number * _GOLDEN)


def further(key: Tensor, number: int | Tensor) -> Tensor:
    """Keys (N,) of the draws with this number, one for all or int64 (N,), that follow from keys (N,).

    For many draws of one purpose: a tenth of the work of `keys`. The keys that they follow from must draw nothing else.
    """
    return _mix(key + _step(number))


def uniform(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers in [0,1), fp32, (N, *shape) for keys (N,): multiples of 2^-24."""
    count = math.prod(shape)
    counter = torch.arange(1, count + 1, device=key.device, dtype=torch.int64) * _GOLDEN
    bits = _mix(key[:, None] + counter[None, :])
    return (_shift_right(bits, 40).float() * 2.0**-24).view(len(key), *shape)


def normal(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, fp32, (N, *shape) for keys (N,), by the Box-Muller transform."""
    count = math.prod(shape)
    pairs = uniform(key, (2, count))
    radius = torch.sqrt(-2 * torch.log1p(-pairs[:, 0]))  # 1 - u lies in (0,1], so the logarithm is finite
    return (radius * torch.cos(2 * math.pi * pairs[:, 1])).view(len(key), *shape)
