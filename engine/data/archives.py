"""Data sets that come as archives: where they lie and how they are had.

Archives lie in the data folder ($CAFE_DATA, else ~/.cache/cafe/data), fetched by `cafe data prepare NAME` or put there
by hand. Each is converted once into uint8 arrays beside it, which are mapped from then on. Nothing in an archive is
executed or unpacked to disk.
"""

from __future__ import annotations

import hashlib
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from engine.contract.catalogue import DATA_FACTS
from engine.contract.datasets import Alternatives, Archive, absent, archives_here, data_folder, is_cached
from engine.contract.errors import UsageError
from engine.data import cache
from engine.data.cache import Arrays, Say
from engine.data.source import Source

MEGABYTE = 1 << 20
LARGEST_MEMBER = 200 * MEGABYTE
REMEDY = "Delete it and fetch it again."


@dataclass(frozen=True)
class Recipe:
    """How a data set is had: alternatives of files, of which one must be there whole, and what reads them.

    `read` takes the paths of one alternative and returns the training and the test part.
    """

    alternatives: Alternatives
    read: Callable[[Sequence[Path]], tuple[Arrays, Arrays]]


def load(name: str, recipe: Recipe) -> Source:
    """The data set from its cache, which is made if there are archives. Raises UsageError, DiskError."""
    folder = data_folder() / name
    if not is_cached(folder):
        _convert(name, recipe, _found(name, recipe), folder)
    return cache.load(folder)


def prepare(name: str, recipe: Recipe, say: Say = print) -> None:
    """Fetch what is missing, verify it, make the cache; verify the cache if it is there.

    Raises UsageError, DiskError.
    """
    folder = data_folder() / name
    if is_cached(folder):
        cache.verify(folder)
        say(f"{name} is ready in {folder}, its checksums are right")
        return
    try:
        paths = _found(name, recipe)
    except UsageError:
        paths = _fetch(name, recipe.alternatives[0], say)
    say(f"converting {', '.join(path.name for path in paths)}")
    _convert(name, recipe, paths, folder, say)
    say(f"{name} is ready in {folder}")


def _convert(name: str, recipe: Recipe, paths: Sequence[Path], folder: Path, say: Say = print) -> None:
    with cache.readable(str(paths[0]), REMEDY):
        train, test = recipe.read(paths)
    cache.write(folder, train, test, DATA_FACTS[name], origin=str(paths[0]), remedy=REMEDY, say=say)


def _found(name: str, recipe: Recipe) -> list[Path]:
    """The files of the first alternative that is there whole, verified."""
    paths = archives_here(recipe.alternatives)
    if not paths:
        raise absent(name, recipe.alternatives)
    known = {archive.name: archive for alternative in recipe.alternatives for archive in alternative}
    for path in paths:
        _verify(path, known[path.name])
    return paths


def _verify(path: Path, archive: Archive) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while chunk := file.read(MEGABYTE):
                digest.update(chunk)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if digest.hexdigest() != archive.md5:
        size = path.stat().st_size
        short = f"; it has {size:,} of {archive.size:,} bytes" if size < archive.size else ""
        raise UsageError(
            f"{path}: not the published file (MD5 {digest.hexdigest()}, published {archive.md5}){short}",
            REMEDY,
        )


def _fetch(name: str, archives: Sequence[Archive], say: Say) -> list[Path]:
    import pooch  # 0.1 s that other data sets need not pay

    pooch.get_logger().setLevel("ERROR")
    base = data_folder()
    total = sum(archive.size for archive in archives)
    needed, free = cache.room(base / name, DATA_FACTS[name], total)
    say(
        f"{name}: {total / 1e6:.0f} MB to fetch, {needed / 1e6:.0f} MB for the cache, "
        f"{free / 1e6:,.0f} MB free in {base}"
    )
    for archive in archives:
        target = base / archive.name
        if target.is_file() and target.stat().st_size != archive.size:
            target.unlink()  # of an interrupted copy: fetched anew
        say(f"fetching {archive.url}")
        downloader = pooch.HTTPDownloader(progressbar=_Progress(say) if sys.stderr.isatty() else False, timeout=30)
        try:
            pooch.retrieve(archive.url, f"md5:{archive.md5}", archive.name, base, downloader=downloader)
        except Exception as error:  # of requests, of the system, and pooch's own for a wrong checksum
            raise UsageError(
                f"{archive.url} cannot be fetched: {str(error).splitlines()[0][:200]}",
                f"Without a network, put {archive.name} into {base}, then run this command again.",
            ) from None
    return [base / archive.name for archive in archives]


class _Progress:
    """What pooch tells of a download, as lines of ten percent."""

    def __init__(self, say: Say) -> None:
        self._say, self._done, self._told, self.total = say, 0, 0, 0

    def update(self, count: int) -> None:
        """So many bytes more."""
        self._done += count
        tenth = 10 * self._done // self.total if self.total else 0
        if tenth > self._told:
            self._told = tenth
            self._say(f"{self._done / 1e6:.0f} of {self.total / 1e6:.0f} MB")

    def reset(self) -> None:
        """From the beginning."""
        self._done = self._told = 0

    def close(self) -> None:
        """Nothing is open."""


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
