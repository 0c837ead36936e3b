"""Image folders: ImageNet (ILSVRC 2012; Russakovsky et al. 2015) and any other of the form train/CLASS/PICTURE."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.contract.datasets import cache_folder, is_prepared, not_prepared
from engine.contract.errors import UsageError
from engine.contract.folders import listing
from engine.contract.profile.catalogue import DataFacts, is_any_folder
from engine.contract.profile.schema import Data
from engine.data import cache
from engine.data.cache import Arrays, Say
from engine.data.pictures import Pictures
from engine.data.source import Source

REMEDY = "Remove or replace that picture."


def load(data: Data) -> Source:
    """The images of a folder from the cache, which is made anew where the folder was changed since.

    That of ImageNet takes hours and hundreds of GB to make, so it is left to `prepare`. Raises UsageError, DiskError.
    """
    folder = cache_folder(data)
    if is_any_folder(data.name):
        if _is_stale(data, folder):
            with cache.alone(folder):
                if _is_stale(data, folder):
                    convert(data)
    elif not is_prepared(data):
        raise not_prepared(data)
    return cache.load(folder)


def prepare(data: Data, say: Say) -> None:
    """Make the cache of a folder, or verify it. Raises UsageError, DiskError."""
    folder = cache_folder(data)
    if _is_stale(data, folder):
        if data.path is None:
            raise UsageError(
                f"{data.name} has to be read from its folder; which?",
                f"Give --path FOLDER, which holds train/WNID and val/WNID; it cannot be fetched: `cafe data prepare "
                f"{data.name} --path /data/ILSVRC`.",
            )
        with cache.alone(folder, say):
            if _is_stale(data, folder):
                needed, free = cache.room(folder, data.facts)
                say(f"{data.name}: {needed / 1e6:,.0f} MB for the cache, {free / 1e6:,.0f} MB free in {folder.parent}")
                convert(data, say)
                say(f"{data.name} is ready in {folder}")
                return
    cache.verify(folder)
    say(f"{data.name} is ready in {folder}, its checksums are right")


def _is_stale(data: Data, folder: Path) -> bool:
    """Whether there is no cache, or it was made of other pictures than those there now, if they still are.

    That of ImageNet, which takes long to list, is taken as it is.
    """
    if not is_prepared(data):
        return True
    path = Path(str(data.path))
    return is_any_folder(data.name) and path.is_dir() and listing(path).stamp != cache.stamp(folder)


def convert(data: Data, say: Say = print) -> None:
    """Make the cache. Raises UsageError, DiskError."""
    root, wanted = Path(str(data.path)), data.facts
    listed = listing(root)
    if len(listed.classes) != wanted.classes:
        raise UsageError(f"{root}: {len(listed.classes)} classes; needed: {wanted.classes}")
    cache.write(
        cache_folder(data),
        _part(root, listed.train, wanted),
        _part(root, listed.test, wanted),
        wanted,
        cache.Origin(str(root), REMEDY),
        say=say,
        kept={"stamp": listed.stamp, "class_names": listed.classes},
    )


def _part(root: Path, pictures: tuple[tuple[str, ...], ...], facts: DataFacts) -> Arrays:
    names = [name for group in pictures for name in group]
    labels = np.repeat(np.arange(len(pictures)), [len(group) for group in pictures])
    return Pictures(names, lambda name: (root / name).read_bytes(), facts.channels, facts.size), labels
