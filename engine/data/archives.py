"""Data sets that come as archives: where they lie, how they are had, and the cache of arrays made from them.

Archives lie in the data folder ($CAFE_DATA, else ~/.cache/cafe/data), fetched by `cafe data prepare NAME` or put there
by hand. Each is converted once into uint8 arrays beside it, which are mapped from then on. Nothing in an archive is
executed or unpacked to disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from engine.contract.catalogue import DATA_FACTS
from engine.contract.errors import DiskError, UsageError
from engine.data.source import Source

MEGABYTE = 1 << 20
LARGEST_MEMBER = 200 * MEGABYTE
ELSEWHERE = "Set CAFE_DATA to another folder."
DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError, MemoryError),
    *(tarfile.TarError, zlib.error, pickle.UnpicklingError),
)
"""What readers make of damaged and hostile archives."""


@dataclass(frozen=True)
class Archive:
    """A file of a data set: its name, where it is published, its MD5 as published, its size in bytes."""

    name: str
    url: str
    md5: str
    size: int


Arrays = tuple[np.ndarray, np.ndarray]
"""Images (N,C,H,W) uint8 and labels (N,) int64."""


@dataclass(frozen=True)
class Recipe:
    """How a data set is had: alternatives of files, of which one must be there whole, and what reads them.

    `read` takes the paths of one alternative and returns the training and the test part.
    """

    alternatives: tuple[tuple[Archive, ...], ...]
    read: Callable[[Sequence[Path]], tuple[Arrays, Arrays]]


def data_folder() -> Path:
    """Where archives and caches lie."""
    return Path(os.environ.get("CAFE_DATA") or Path.home() / ".cache" / "cafe" / "data").expanduser()


def load(name: str, recipe: Recipe) -> Source:
    """The data set from its cache, which is made if there are archives. Raises UsageError, DiskError."""
    folder = data_folder() / name
    if not (folder / "facts.json").is_file():
        _convert(name, recipe, _found(name, recipe), folder)
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        train_images, train_labels, test_images, test_labels = (
            np.load(folder / f"{part}.npy", mmap_mode="r", allow_pickle=False) for part in PARTS
        )
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{folder}: the cache cannot be read ({error})", "Delete that folder; it is made again."
        ) from None
    return Source(
        train_images,
        np.array(train_labels),
        test_images,
        np.array(test_labels),
        tuple(facts["mean"]),
        tuple(facts["std"]),
    )


PARTS = ("train_images", "train_labels", "test_images", "test_labels")


def prepare(name: str, recipe: Recipe, say: Callable[[str], None] = print) -> None:
    """Fetch what is missing, verify it, make the cache. Raises UsageError, DiskError."""
    folder = data_folder() / name
    if (folder / "facts.json").is_file():
        say(f"{name} is ready in {folder}")
        return
    try:
        paths = _found(name, recipe)
    except UsageError:
        paths = _fetch(name, recipe.alternatives[0], say)
    say(f"converting {', '.join(path.name for path in paths)}")
    _convert(name, recipe, paths, folder)
    say(f"{name} is ready in {folder}")


def _found(name: str, recipe: Recipe) -> list[Path]:
    """The files of the first alternative that is there whole."""
    base = data_folder()
    for alternative in recipe.alternatives:
        paths = [base / archive.name for archive in alternative]
        if all(path.is_file() for path in paths):
            for path, archive in zip(paths, alternative, strict=True):
                _verify(path, archive)
            return paths
    choices = ", or ".join(" and ".join(archive.name for archive in alternative) for alternative in recipe.alternatives)
    raise UsageError(
        f"the data set {name} is not in {base}",
        f"`cafe data prepare {name}` fetches it. Without a network, put {choices} there.",
    )


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
            "Delete it and fetch it again.",
        )


def _fetch(name: str, archives: Sequence[Archive], say: Callable[[str], None]) -> list[Path]:
    import pooch  # 0.1 s that other data sets need not pay

    pooch.get_logger().setLevel("ERROR")
    base = data_folder()
    total = sum(archive.size for archive in archives)
    facts = DATA_FACTS[name]
    cache = (facts.pool + facts.test) * facts.channels * facts.size**2
    try:
        base.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(base).free
    except OSError as error:
        raise DiskError(f"{base}: cannot be made: {error.strerror}", ELSEWHERE) from None
    needed = f"{total / 1e6:.0f} MB to fetch, {cache / 1e6:.0f} MB for the cache"
    say(f"{name}: {needed}, {free / 1e6:,.0f} MB free in {base}")
    if free < total + cache + 64 * MEGABYTE:
        raise DiskError(f"{base}: not enough space for {name}", "Free some, or set CAFE_DATA to another folder.")
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

    def __init__(self, say: Callable[[str], None]) -> None:
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


def _convert(name: str, recipe: Recipe, paths: Sequence[Path], folder: Path) -> None:
    """Make the cache, complete or not at all."""
    with _readable(paths):
        (train_images, train_labels), (test_images, test_labels) = recipe.read(paths)
    facts = DATA_FACTS[name]
    for images, labels, count in ((train_images, train_labels, facts.pool), (test_images, test_labels, facts.test)):
        shape = (count, facts.channels, facts.size, facts.size)
        if images.shape != shape or labels.shape != (count,):
            raise UsageError(f"{paths[0]}: images of shape {images.shape}; needed: {shape}", "Fetch it again.")
        if labels.min() < 0 or labels.max() >= facts.classes:
            found = f"labels from {labels.min()} to {labels.max()}"
            raise UsageError(f"{paths[0]}: {found}; needed: 0 to {facts.classes - 1}")
    mean, std = statistics(train_images)
    hidden = folder.with_name(f".{name}.{os.getpid()}")
    try:
        hidden.mkdir(parents=True)
        for part, array in zip(PARTS, (train_images, train_labels, test_images, test_labels), strict=True):
            np.save(hidden / f"{part}.npy", np.ascontiguousarray(array), allow_pickle=False)
        known = {"mean": mean, "std": std, "from": [path.name for path in paths]}
        (hidden / "facts.json").write_text(json.dumps(known), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        hidden.rename(folder)
    except BaseException as error:
        shutil.rmtree(hidden, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        if not (folder / "facts.json").is_file():  # unless another process was quicker
            raise DiskError(f"{folder}: cannot be written: {error.strerror}", ELSEWHERE) from None


def statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel of images (N,C,H,W) uint8, as of images in [0,1]."""
    mean, std = [], []
    for channel in range(images.shape[1]):
        counts = np.bincount(images[:, channel].ravel(), minlength=256)
        levels = np.arange(256) / 255
        middle = float((counts * levels).sum() / counts.sum())
        mean.append(middle)
        std.append(float(np.sqrt((counts * (levels - middle) ** 2).sum() / counts.sum())))
    return mean, std


@contextmanager
def _readable(paths: Sequence[Path]) -> Iterator[None]:
    """Turns whatever a damaged or hostile archive makes of its reader into one message."""
    try:
        yield
    except DAMAGE as error:
        text = str(error).splitlines()[0][:200] if str(error) else ""
        raise UsageError(
            f"{paths[0]}: damaged, or not what it should be ({type(error).__name__}: {text})",
            "Delete it and fetch it again.",
        ) from None


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
