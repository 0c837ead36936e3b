"""The cache of a data set: uint8 arrays with their checksums, written once and whole, mapped from then on."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import pickle
import shutil
import socket
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import numpy as np
import psutil

from engine.contract.errors import DiskError, UsageError
from engine.contract.folders import CONVERSION
from engine.contract.profile.catalogue import DataFacts
from engine.data.pictures import BLOCK, BadPictures, Pictures
from engine.data.source import Source, fingerprints, shared

PARTS = ("train_images", "train_labels", "test_images", "test_labels")
SLACK = 64 << 20
"""Bytes that must stay free on a disk."""
SAY_FROM = 20_000
"""Images from which on their conversion takes long enough to be told of."""
ELSEWHERE = "Free some, or set CAFE_DATA to another folder."
FULL = (errno.ENOSPC, errno.EDQUOT)
REPLACED = ".replaced"
LOCKS = ".locks"
"""Where the files lie that `alone` locks: for good, as those who wait for one must not get another."""
NAMED = 5
"""How many of the pictures that cannot be read are named."""
AGAIN = "Delete that folder; it is made again."

DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError, MemoryError, RuntimeError),
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, pickle.UnpicklingError),
    *(OverflowError, SyntaxError, tokenize.TokenError),
)
"""What readers make of damaged and hostile archives."""

Arrays = tuple[np.ndarray | Pictures, np.ndarray]
"""Images (N,C,H,W) uint8, or what they are decoded from, and labels (N,) int64."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Origin:
    """Where images come from, as messages name it, and what to do if they are damaged there."""

    name: str
    remedy: str

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Turns whatever a damaged or hostile file makes of its reader into one message."""
        try:
            yield
        except DAMAGE as error:
            raise self.damaged(f"{type(error).__name__}: {first_line(error)}") from None

    def damaged(self, how: str) -> UsageError:
        """What to say of images that cannot be read."""
        return UsageError(f"{self.name}: damaged, or not what it should be ({how})", self.remedy)


def load(folder: Path) -> Source:
    """The arrays, mapped. Raises UsageError."""
    facts, arrays = _open(folder)
    train_images, train_labels, test_images, test_labels = (arrays[part] for part in PARTS)
    return Source(
        train_images,
        np.array(train_labels),
        test_images,
        np.array(test_labels),
        tuple(facts["mean"]),
        tuple(facts["std"]),
        tuple(facts.get("class_names", ())),
        tuple(facts.get("sha256", {}).get(part, "") for part in PARTS),
        int(facts.get("shared", 0)),
    )


def stamp(folder: Path) -> str:
    """What `write` was given to keep as stamp. Raises UsageError."""
    return str(_open(folder)[0].get("stamp", ""))


def verify(folder: Path) -> None:
    """Read everything and hold it against the checksums. Raises UsageError."""
    facts, arrays = _open(folder)
    for part, array in arrays.items():
        digest = hashlib.sha256()
        for block in _blocks(array):
            digest.update(np.ascontiguousarray(block).data)
        if digest.hexdigest() != facts["sha256"].get(part):
            raise UsageError(f"{folder / part}.npy: not what was written there (SHA-256 differs)", AGAIN)


def _open(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        arrays = {part: np.load(folder / f"{part}.npy", mmap_mode="r", allow_pickle=False) for part in PARTS}
        for name in ("mean", "std"):
            facts[name] = [float(value) for value in facts[name]]
        facts["sha256"] = dict(facts.get("sha256", {}))
        _check_shapes(facts, arrays)
    except DAMAGE as error:
        raise UsageError(f"{folder}: the cache cannot be read ({first_line(error)})", AGAIN) from None
    return facts, arrays


def _check_shapes(facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Raise ValueError unless the arrays are images of one shape with a label each, and the facts fit them."""
    train_images, train_labels, test_images, test_labels = (arrays[part] for part in PARTS)
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        if images.dtype != np.uint8 or images.ndim != 4 or labels.dtype.kind not in "iu":
            raise ValueError(f"{images.dtype} {images.shape} are no images, or {labels.dtype} no labels")
        if labels.shape != images.shape[:1]:
            raise ValueError(f"labels of shape {labels.shape} for images of shape {images.shape}")
    channels = [len(facts[name]) for name in ("mean", "std")]
    if train_images.shape[1:] != test_images.shape[1:] or channels != 2 * [train_images.shape[1]]:
        raise ValueError("its parts do not fit each other")


def room(folder: Path, facts: DataFacts, fetched: int = 0) -> tuple[int, int]:
    """Bytes that the cache takes, and that are free where it goes, which is made. Raises DiskError if too few.

    `fetched` bytes more are needed there.
    """
    needed = (facts.pool + facts.test) * (facts.channels * facts.size**2 + 8)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
    except OSError as error:
        raise unwritable(folder.parent, error) from None
    if free < needed + fetched + SLACK:
        raise DiskError(
            f"{folder.parent}: not enough space: {(needed + fetched) / 1e6:,.0f} MB are needed, "
            f"{free / 1e6:,.0f} MB are free",
            ELSEWHERE,
        )
    return needed, free


def write(
    folder: Path,
    train: Arrays,
    test: Arrays,
    facts: DataFacts,
    origin: Origin,
    *,
    say: Say = print,
    kept: Mapping[str, Any] | None = None,
) -> None:
    """Make the cache of arrays, which must fit `facts`; what is to be `kept` beside them is: stamp, class_names.

    Says how many test images are in train too. Raises UsageError, DiskError.
    """
    room(folder, facts)
    for arrays, count in ((train, facts.pool), (test, facts.test)):
        _check_fit(arrays, count, facts, origin)
    hidden = _hidden(folder)
    replaced = hidden.with_name(f"{hidden.name}{REPLACED}")
    try:
        hidden.mkdir(parents=True)
        levels = np.zeros((facts.channels, 256), dtype=np.int64)
        seen: dict[str, list[np.ndarray]] = {}
        sums = _save_parts(hidden, (*train, *test), _Watched(levels, seen), origin, say)
        mean, std = _statistics(levels)
        both = shared(*(np.concatenate(seen[part]) for part in ("train_images", "test_images")))
        if both:
            say(f"{origin.name}: {both:,} of the {facts.test:,} test images are in train too, pixel for pixel")
        metadata = {
            **asdict(facts),
            "mean": mean,
            "std": std,
            "from": origin.name,
            "sha256": sums,
            "shared": both,
            "conversion": CONVERSION,
            **(kept or {}),
        }
        (hidden / "facts.json").write_text(json.dumps(metadata), encoding="utf-8")
        with suppress(FileNotFoundError):  # one that is damaged, or of other pictures
            folder.rename(replaced)
        hidden.rename(folder)
    except OSError as error:
        raise unwritable(folder, error) from None
    finally:
        for leftover in (hidden, replaced):
            shutil.rmtree(leftover, ignore_errors=True)


def _check_fit(arrays: Arrays, count: int, facts: DataFacts, origin: Origin) -> None:
    """Raise UsageError unless there are `count` images and labels as the facts say."""
    images, labels = arrays
    shape = (count, facts.channels, facts.size, facts.size)
    if images.shape != shape or labels.shape != (count,):
        raise UsageError(f"{origin.name}: images of shape {images.shape}; needed: {shape}", origin.remedy)
    if labels.min() < 0 or labels.max() >= facts.classes:
        extent = f"labels from {labels.min()} to {labels.max()}"
        raise UsageError(f"{origin.name}: {extent}; needed: 0 to {facts.classes - 1}")


class _Watched(NamedTuple):
    """What is seen of images on their way: counts (C,256) of the levels of those to train on; fingerprints by part."""

    levels: np.ndarray
    seen: dict[str, list[np.ndarray]]

    def images(self, part: str, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The blocks of images of a part, which are counted in."""
        for block in blocks:
            self.seen.setdefault(part, []).append(fingerprints(block))
            for channel, counts in enumerate(self.levels if part == "train_images" else ()):
                counts += np.bincount(block[:, channel].ravel(), minlength=256)
            yield block


def _save_parts(
    folder: Path, arrays: tuple[np.ndarray | Pictures, ...], watched: _Watched, origin: Origin, say: Say
) -> dict[str, str]:
    """Write PARTS and return their SHA-256.

    Raises UsageError that names the pictures, of all parts, that cannot be read.
    """
    sums: dict[str, str] = {}
    bad: list[str] = []
    for part, array in zip(PARTS, arrays, strict=True):
        blocks = _readable(_blocks(array), origin)
        if isinstance(array, Pictures) and len(array.names) >= SAY_FROM:
            blocks = _reported(blocks, len(array.names), say)
        if part.endswith("_images"):
            blocks = watched.images(part, blocks)
        try:
            sums[part] = _save(folder / f"{part}.npy", array, blocks)
        except BadPictures as error:
            bad += error.reasons
    if bad:
        more = f"; and {len(bad) - NAMED:,} more pictures" if len(bad) > NAMED else ""
        raise origin.damaged("; ".join(bad[:NAMED]) + more)
    return sums


@contextmanager
def alone(folder: Path, say: Say = print) -> Iterator[None]:
    """One process at a time makes a cache, and fetches what it is made of: the others wait, and find it made.

    Raises DiskError.
    """
    import filelock  # 60 ms that a cache which is there need not pay

    lock = filelock.FileLock(folder.parent / LOCKS / folder.name)
    try:
        (folder.parent / LOCKS).mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            say(f"another process is making {folder}; waiting for it")
            lock.acquire()
    except OSError as error:
        raise unwritable(folder, error) from None
    try:
        yield
    finally:
        lock.release()


def unwritable(path: Path, error: OSError) -> DiskError:
    """What to say where the system refuses to write."""
    hint = ELSEWHERE if error.errno in FULL else "Set CAFE_DATA to a folder that can be written."
    return DiskError(f"{path}: cannot be written: {error.strerror}", hint)


def first_line(error: BaseException) -> str:
    """The first line of what a library says, whole words of it."""
    return shorten((str(error).splitlines() or [type(error).__name__])[0], 400, placeholder=" ...")


def _hidden(folder: Path) -> Path:
    """Where this process makes a cache; what a process of this host that was killed left there is removed."""
    mine = f".{folder.name}.{socket.gethostname()}."
    for leftover in folder.parent.glob(f"{glob.escape(mine)}*"):
        pid = leftover.name.removeprefix(mine).removesuffix(REPLACED)
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)
    return folder.with_name(f"{mine}{os.getpid()}")


def _save(path: Path, array: np.ndarray | Pictures, blocks: Iterator[np.ndarray]) -> str:
    """Write an array as .npy, block by block, to the disk; the SHA-256 of its elements.

    Not through a map: a full disk would end the process there.
    """
    dtype = np.dtype(np.uint8) if isinstance(array, Pictures) else array.dtype
    digest = hashlib.sha256()
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            contiguous = np.ascontiguousarray(block)
            file.write(contiguous.data)
            digest.update(contiguous.data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _blocks(array: np.ndarray | Pictures) -> Iterator[np.ndarray]:
    if isinstance(array, Pictures):
        yield from array.blocks()
    else:
        for start in range(0, len(array), BLOCK):
            yield array[start : start + BLOCK]


def _readable(blocks: Iterator[np.ndarray], origin: Origin) -> Iterator[np.ndarray]:
    with origin.readable():
        yield from blocks


def _reported(blocks: Iterator[np.ndarray], total: int, say: Say) -> Iterator[np.ndarray]:
    """The blocks, with a line for every tenth of them."""
    done = 0
    for block in blocks:
        yield block
        before, done = done, done + len(block)
        if 10 * done // total > 10 * before // total:
            say(f"converted {done:,} of {total:,} images")


def _statistics(levels: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel, as of images in [0,1]."""
    scale, total = np.arange(256) / 255, levels.sum(1)
    mean = levels @ scale / total
    return mean.tolist(), np.sqrt((levels * (scale - mean[:, None]) ** 2).sum(1) / total).tolist()
