"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 60,000 colour images of 32x32, from the binary or the Python archive."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engine.contract.archives import PUBLISHED
from engine.contract.profile.schema import Data
from engine.data.archives import Recipe, load, members
from engine.data.cache import Arrays
from engine.data.source import Source

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Of CIFAR-10, as batches.meta names them."""
_PIXELS = 3 * 32 * 32
_TRAIN_10 = tuple(f"data_batch_{i}" for i in range(1, 6))


def load_cifar10(data: Data) -> Source:
    """50,000 images to train on and 10,000 to test on, of 10 classes."""
    return load(data.name, CIFAR10)


def load_cifar100(data: Data) -> Source:
    """50,000 images to train on and 10,000 to test on, of 100 (fine) classes."""
    return load(data.name, CIFAR100)


def read(
    paths: Sequence[Path], *, train: Sequence[str], test: Sequence[str], label: int, key: bytes
) -> tuple[Arrays, Arrays]:
    """The two parts of an archive, binary or Python by its name.

    `label` is the place of the label among the bytes before the pixels of a binary record, `key` its name in a pickle.
    """
    path = paths[0]
    binary = "binary" in path.name

    def part(names: Sequence[str]) -> Arrays:
        wanted = [f"{name}.bin" if binary else name for name in names]
        parts = [_records(data, label) if binary else _pickled(data, key) for data in members(path, wanted)]
        return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])

    return part(train), part(test)


def _records(data: bytes, label: int) -> Arrays:
    """Records of label bytes (one for CIFAR-10, coarse and fine for CIFAR-100) and 3,072 pixels, channel by channel."""
    table = np.frombuffer(data, dtype=np.uint8).reshape(-1, label + 1 + _PIXELS)
    return table[:, label + 1 :].reshape(-1, 3, 32, 32), table[:, label].astype(np.int64)


def _pickled(data: bytes, key: bytes) -> Arrays:
    batch = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    images = np.asarray(batch[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
    return images, np.asarray(batch[key], dtype=np.int64)


class _Unpickler(pickle.Unpickler):
    """Knows how to rebuild an array and nothing else, so that a pickle cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Raises ValueError for anything but numpy's arrays."""
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.zeros(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise ValueError(f"the pickle asks for {module}.{name}, which a data set does not need")


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into a pickle that Python 2 can read."""
    if encoding != "latin1":
        raise ValueError(f"the pickle asks for the encoding {encoding}")
    return text.encode("latin1")


CIFAR10 = Recipe(
    PUBLISHED["cifar10"], partial(read, train=_TRAIN_10, test=("test_batch",), label=0, key=b"labels"), CLASSES
)
CIFAR100 = Recipe(PUBLISHED["cifar100"], partial(read, train=("train",), test=("test",), label=1, key=b"fine_labels"))
