"""Tiny-ImageNet (Le and Yang 2015): 110,000 pictures of 64x64 of 200 classes, read from the published zip as it is."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from engine.contract.archives import PUBLISHED
from engine.contract.profile.catalogue import DATA_FACTS
from engine.contract.profile.schema import Data
from engine.data.archives import Recipe, load
from engine.data.cache import Arrays
from engine.data.pictures import Pictures
from engine.data.source import Source

_ROOT = "tiny-imagenet-200"
_LARGEST_MEMBER = 16 << 20


def load_tiny_imagenet(data: Data) -> Source:
    """100,000 images to train on and 10,000, the published validation part, to test on; labels sort the wnids.

    The published test part has no labels and is left alone.
    """
    return load(data.name, TINY_IMAGENET)


def read(paths: Sequence[Path]) -> tuple[Arrays, Arrays]:
    """The two parts: pictures that stay in the zip until they are decoded, and their labels."""
    archive = zipfile.ZipFile(paths[0])
    lock = Lock()  # a zip counts its open members, which threads may not do at once

    def content(name: str) -> bytes:
        with lock:
            if archive.getinfo(name).file_size > _LARGEST_MEMBER:
                raise ValueError(f"more than {_LARGEST_MEMBER >> 20} MB")
            return archive.read(name)

    facts = DATA_FACTS["tiny-imagenet"]
    wnids = sorted(content(f"{_ROOT}/wnids.txt").decode("ascii").split())
    if len(set(wnids)) != facts.classes:
        raise ValueError(f"wnids.txt names {len(set(wnids))} classes; needed: {facts.classes}")
    label = {wnid: i for i, wnid in enumerate(wnids)}
    names, labels = [], []
    for name in sorted(archive.namelist()):
        root, _, inner = name.partition("/train/")
        wnid, _, picture = inner.partition("/images/")
        if root == _ROOT and wnid in label and picture.endswith(".JPEG"):
            names.append(name)
            labels.append(label[wnid])
    lines = content(f"{_ROOT}/val/val_annotations.txt").decode("ascii").splitlines()
    annotations = [line.split("\t")[:2] for line in lines]
    held = [f"{_ROOT}/val/images/{picture}" for picture, _ in annotations]
    return (
        (Pictures(names, content, facts.channels, facts.size), np.array(labels, dtype=np.int64)),
        (Pictures(held, content, facts.channels, facts.size), np.array([label[wnid] for _, wnid in annotations])),
    )


TINY_IMAGENET = Recipe(PUBLISHED["tiny-imagenet"], read)
