"""Data sets that come as archives: where they lie and how they are had.

Archives lie in the data folder ($CAFE_DATA, else ~/.cache/cafe/data), fetched by `cafe data prepare NAME` or put there
by hand. Each is converted once into uint8 arrays beside it, which are mapped from then on. Nothing in an archive is
executed or unpacked to disk.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from engine.contract.archives import (
    MEGABYTE,
    Alternatives,
    Archive,
    by_hand,
    data_folder,
    judge,
    published_here,
)
from engine.contract.datasets import is_cached
from engine.contract.errors import UsageError
from engine.contract.profile.catalogue import DATA_FACTS
from engine.data import cache
from engine.data.cache import Arrays, Say
from engine.data.fetching import fetch, still_to_come
from engine.data.source import Source

LARGEST_MEMBER = 200 * MEGABYTE
REMEDY = "Delete it and fetch it again."


@dataclass(frozen=True)
class Recipe:
    """How a data set is had: alternatives of files, of which one must be there whole, and what reads them.

    `read` takes the paths of one alternative and returns the training and the test part. `class_names` are those that
    its publishers use, empty where they are left to the archive.
    """

    alternatives: Alternatives
    read: Callable[[Sequence[Path]], tuple[Arrays, Arrays]]
    class_names: tuple[str, ...] = ()


def load(name: str, recipe: Recipe) -> Source:
    """The data set from its cache, which is made if there are archives. Raises UsageError, DiskError."""
    folder = data_folder() / name
    if not is_cached(folder):
        paths = published_here(name, recipe.alternatives)
        with cache.alone(folder):
            if not is_cached(folder):
                _convert(name, recipe, paths, folder)
    source = cache.load(folder)
    return replace(source, class_names=recipe.class_names or source.class_names)


def prepare(name: str, recipe: Recipe, say: Say = print) -> None:
    """Fetch what is missing, verify it, make the cache; verify the cache if it is there.

    Raises UsageError, DiskError.
    """
    folder = data_folder() / name
    if not is_cached(folder):
        with cache.alone(folder, say):
            if not is_cached(folder):
                _make(name, recipe, folder, say)
                say(f"{name} is ready in {folder}")
                return
    cache.verify(folder)
    say(f"{name} is ready in {folder}, its checksums are right")


def _make(name: str, recipe: Recipe, folder: Path, say: Say) -> None:
    missing: list[Archive] = []
    try:
        paths = published_here(name, recipe.alternatives, say)
    except UsageError as error:
        here = error.message
        paths = [folder.parent / archive.name for archive in recipe.alternatives[0]]
        missing = [a for a, path in zip(recipe.alternatives[0], paths, strict=True) if judge(path, a)]
    fetched = sum(map(still_to_come, missing))
    needed, free = cache.room(folder, DATA_FACTS[name], fetched)
    say(
        f"{name}: {f'{fetched / 1e6:,.0f} MB to fetch, ' * bool(missing)}{needed / 1e6:,.0f} MB for the cache, "
        f"{free / 1e6:,.0f} MB free in {folder.parent}"
    )
    for archive in missing:
        try:
            fetch(archive, say)
        except UsageError as error:
            hints = filter(None, (error.hint, by_hand(recipe.alternatives)))
            raise UsageError(f"{error.message}; {here}", " ".join(hints)) from None
    say(f"converting {', '.join(path.name for path in paths)}")
    _convert(name, recipe, paths, folder, say)


def _convert(name: str, recipe: Recipe, paths: Sequence[Path], folder: Path, say: Say = print) -> None:
    origin = cache.Origin(str(paths[0]), REMEDY)
    with origin.readable():
        train, test = recipe.read(paths)
    cache.write(folder, train, test, DATA_FACTS[name], origin, say=say)


def members(path: Path, names: Sequence[str]) -> Iterator[bytes]:
    """The contents of these files of a tar archive, by the last part of their names; nothing is written to disk.

    Raises KeyError for a missing one and ValueError for one that is no plain file, or too large.
    """
    with tarfile.open(path) as tar:
        there = {Path(member.name).name: member for member in tar.getmembers()}
        for name in names:
            member = there[name]
            if not member.isfile() or member.size > LARGEST_MEMBER:
                raise ValueError(f"{name} is no plain file of at most {LARGEST_MEMBER // MEGABYTE} MB")
            file: IO[bytes] | None = tar.extractfile(member)
            if file is None:
                raise ValueError(f"{name} cannot be read")
            yield file.read()
