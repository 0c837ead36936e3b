"""scikit-learn's 1,797 real handwritten digits (8x8, 10 classes; UCI Optical Recognition of Handwritten Digits)."""

from __future__ import annotations

import numpy as np

from engine.contract.profile.catalogue import DATA_FACTS
from engine.contract.profile.schema import Data
from engine.data.shipped import table
from engine.data.source import DIGITS, Source

_SPLIT_SEED = 1797


def load(data: Data) -> Source:
    """450 test images set apart by a fixed seed, whatever the seed of the run; pixels 0..16 scaled to 0..255.

    Raises UsageError.
    """
    numbers = table("sklearn", "datasets/data/digits.csv.gz", 1797, 65)
    images = np.rint(numbers[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = numbers[:, -1].astype(np.int64)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    held = DATA_FACTS["digits"].test
    test, train = np.sort(order[:held]), np.sort(order[held:])
    pixels = images[train] / 255
    return Source(
        *(images[train], labels[train], images[test], labels[test]),
        *((float(pixels.mean()),), (float(pixels.std()),)),
        class_names=DIGITS,
    )
