"""What a loader returns."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine.data.pictures import BLOCK

DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Source:
    """A data set as it was read: images (N,C,H,W) uint8, labels (N,) int64, channel statistics of images in [0,1].

    `class_names` are empty where they are not known. `digests` are the SHA-256 of the four arrays in this order,
    `shared` is how many test images are in train too; both are found out where a cache does not hold them.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    known_shared: int | None = None

    @cached_property
    def sums(self) -> dict[str, str]:
        """What tells this train and this test part from any other: images, labels and their order."""
        arrays = (self.train_images, self.train_labels, self.test_images, self.test_labels)
        train_x, train_y, test_x, test_y = self.digests if all(self.digests) and self.digests else map(digest, arrays)
        parts = {"train": (self.train_images, train_x, train_y), "test": (self.test_images, test_x, test_y)}
        return {
            part: hashlib.sha256(f"{images.shape} {x} {y}".encode()).hexdigest()[:16]
            for part, (images, x, y) in parts.items()
        }

    @cached_property
    def shared(self) -> int:
        """How many test images are pixel for pixel among the training images."""
        if self.known_shared is not None:
            return self.known_shared
        return shared(fingerprints(self.train_images), fingerprints(self.test_images))


def digest(array: np.ndarray) -> str:
    """The SHA-256 of the elements of an array, block by block, as it may be a mapped file."""
    result = hashlib.sha256()
    for start in range(0, len(array), BLOCK):
        result.update(np.ascontiguousarray(array[start : start + BLOCK]).data)
    return result.hexdigest()


def fingerprints(images: np.ndarray) -> np.ndarray:
    """A number (N,) uint64 for each image (N,C,H,W) uint8: the same for the same pixels, and for no others."""
    sums = (hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(sums), dtype=np.uint64)


def shared(train: np.ndarray, test: np.ndarray) -> int:
    """How many of the fingerprints `test` (M,) are among `train` (N,)."""
    return int(np.isin(test, train).sum())
