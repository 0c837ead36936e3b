"""Images that are too many for the device: they stay in a mapped file on the host and are read ahead by threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from engine.device import free_memory

READERS = min(4, os.cpu_count() or 1)
AHEAD = 2 * READERS
"""Batches that are read, or being read, before they are asked for."""
SHARE = 0.5
"""Of the device's free memory, what images may take: networks, attacks and their gradients need the rest."""


@dataclass(frozen=True)
class OnHost:
    """Images (N,C,H,W) uint8 that stay on the host: image i is `array[places[i]]`; `array` may be a mapped file."""

    array: np.ndarray
    places: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """As a tensor's."""
        return (len(self.places), *self.array.shape[1:])

    def __getitem__(self, part: slice | np.ndarray) -> OnHost:
        return OnHost(self.array, self.places[part])

    def read(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """The images at `rows` (N,) in memory from which the device copies without waiting."""
        pixels = torch.empty((len(rows), *self.shape[1:]), dtype=torch.uint8, pin_memory=device.type == "cuda")
        np.take(self.array, self.places[rows], axis=0, out=pixels.numpy(), mode="clip")
        return pixels

    def ahead(self, parts: Sequence[np.ndarray], device: torch.device) -> Iterator[Tensor]:
        """`read` for each of these rows in turn, a few of them before they are asked for."""
        pool = ThreadPoolExecutor(READERS, thread_name_prefix="images")
        waiting: deque[Future[Tensor]] = deque()
        try:
            for part in parts:
                waiting.append(pool.submit(self.read, part, device))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def streams(residency: Literal["auto", "device", "stream"], size: int, device: torch.device) -> bool:
    """Whether images of `size` bytes stay on the host; auto looks at the memory of the device that is free now."""
    if residency != "auto":
        return residency == "stream"
    return size > SHARE * free_memory(device)
