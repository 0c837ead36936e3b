"""The feature bank: what the frozen classifier sees of every training image under one adversary draw.

The classifier does not learn in the game, so F_nat and F_adv of an image are made once for each draw of its
augmentation and adversary and used for several epochs. In the published code, that attack is most of the time.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from engine.contract.errors import DiskError, RunFailed
from engine.contract.profile.schema import BankPlace
from engine.device import free_memory

SHARE = 0.5
"""Of the free memory of a place, how much a bank may take there before `auto` goes on to the next."""

Features = tuple[Tensor, Tensor]
"""F_nat and F_adv (N,C,H,W)."""


def bank_bytes(images: int, views: int, shape: tuple[int, ...], bytes_per_value: int = 4) -> int:
    """Size of a bank: F_nat and F_adv (C,H,W) of every image in every view."""
    return 2 * images * views * math.prod(shape) * bytes_per_value


class FeatureBank:
    """Features of the images with the sorted data indices `index` (M,), in `views` draws of augmentation and attack.

    They lie on the device of `index`, in the memory of the host, or in a temporary file that the system removes with
    the process. Not part of a checkpoint: what is missing after a stop is made again, to the same bits.
    """

    def __init__(self, index: Tensor, views: int, place: BankPlace) -> None:
        self.index = index
        self._views = views
        self._wanted = place
        self._held: Tensor | None = None  # (views, 2, M, C, H, W)
        self._present = torch.zeros(views, len(index), dtype=torch.bool, device=index.device)
        self._missing = [len(index)] * views
        self.place = place

    @property
    def nbytes(self) -> int:
        """Bytes held; 0 before the first features have come."""
        return 0 if self._held is None else self._held.nbytes

    def forget(self) -> None:
        """Begin a new draw."""
        self._present.zero_()
        self._missing = [len(self.index)] * self._views

    def features(self, view: int, index: Tensor, make: Callable[[], Features]) -> Features:
        """F_nat and F_adv (N,C,H,W) of the examples `index` (N,) in a view; `make` is asked where one is missing.

        Raises DiskError or RunFailed when there is no room for a bank.
        """
        rows = torch.searchsorted(self.index, index)
        if self._missing[view] and not bool(self._present[view, rows].all()):
            features = make()
            self._keep(view, rows, features)
            return features
        assert self._held is not None, "something was kept"
        F_nat, F_adv = (part[rows.to(part.device)] for part in self._held[view])
        return F_nat.to(index.device), F_adv.to(index.device)

    def _keep(self, view: int, rows: Tensor, features: Features) -> None:
        """Hold F_nat and F_adv (N,C,H,W) of the examples at `rows` (N,)."""
        if self._held is None:
            self._held = self._room(features[0])
        for held, new in zip(self._held[view], features, strict=True):
            held[rows.to(held.device)] = new.to(held.device)
        self._present[view, rows] = True
        self._missing[view] = len(self.index) - int(self._present[view].sum())

    def _room(self, features: Tensor) -> Tensor:
        """Storage for all features of the dtype and shape (N,C,H,W) of these."""
        size = bank_bytes(len(self.index), self._views, features.shape[1:], features.element_size())
        self.place = self._wanted if self._wanted != "auto" else self._roomy(size)
        shape = (self._views, 2, len(self.index), *features.shape[1:])
        if self.place == "disk":
            return _on_disk(size, shape, features.dtype)
        try:
            return torch.empty(shape, dtype=features.dtype, device=self._device(self.place))
        except RuntimeError as error:  # torch's word for memory that is not there, on every device
            raise RunFailed(
                f"the feature bank needs {size / 1e9:.1f} GB, which the {self.place} does not have",
                'Use bank = "disk", fewer views, or reuse_epochs = 1, which needs none.',
            ) from error

    def _device(self, place: BankPlace) -> torch.device:
        return self.index.device if place == "device" else torch.device("cpu")

    def _roomy(self, size: int) -> BankPlace:
        """The fastest place with room enough."""
        places: tuple[BankPlace, ...] = ("device", "host")
        return next((place for place in places if size <= SHARE * free_memory(self._device(place))), "disk")


def _on_disk(size: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor in a file without a name, so that nothing of it stays behind whatever ends the process."""
    folder = Path(tempfile.gettempdir())
    free = psutil.disk_usage(str(folder)).free
    if size > free:
        raise DiskError(
            f"the feature bank needs {size / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free",
            "Name a roomier folder in TMPDIR, or use fewer views, or reuse_epochs = 1, which needs no bank.",
        )
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a hole that cannot be filled later would kill the process
            return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=(size,))).view(dtype).view(shape)
    except OSError as error:
        raise DiskError(f"cannot make the feature bank in {folder}: {error.strerror}") from error
