"""SVHN, cropped digits (Netzer et al. 2011): 99,289 colour images of house numbers, 32x32, from two MATLAB files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.contract.archives import PUBLISHED
from engine.contract.profile.schema import Data
from engine.data.archives import Recipe, load
from engine.data.cache import Arrays
from engine.data.source import DIGITS, Source


def load_svhn(data: Data) -> Source:
    """73,257 images to train on and 26,032 to test on, of 10 classes. A mirrored digit is none."""
    return load(data.name, SVHN)


def read(paths: Sequence[Path]) -> tuple[Arrays, Arrays]:
    """The training and the test file."""
    train, test = (_matlab(path) for path in paths)
    return train, test


def _matlab(path: Path) -> Arrays:
    """X (H,W,C,N) uint8 and y (N,1), in which 10 stands for the digit 0."""
    from scipy.io import loadmat  # 0.2 s that other data sets need not pay

    try:
        arrays = loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # scipy raises many kinds for one meaning
        raise ValueError(f"{path.name}: {type(error).__name__}: {error}") from None
    images = np.asarray(arrays["X"], dtype=np.uint8).transpose(3, 2, 0, 1)
    labels = np.asarray(arrays["y"], dtype=np.int64).reshape(-1)
    return images, np.where(labels == 10, 0, labels)


SVHN = Recipe(PUBLISHED["svhn"], read, DIGITS)
