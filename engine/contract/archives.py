"""Published archives of data sets: their addresses and sums, and whether they lie in the data folder as published."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from engine.contract.errors import UsageError


@dataclass(frozen=True)
class Archive:
    """A file of a data set: its name, where it is published, its MD5 as published, its size in bytes."""

    name: str
    url: str
    md5: str
    size: int


Alternatives = tuple[tuple[Archive, ...], ...]
"""Sets of files, of which one must be there whole."""
MEGABYTE = 1 << 20


def _cifar(name: str, md5: str, size: int) -> tuple[Archive, ...]:
    return (Archive(name, f"https://www.cs.toronto.edu/~kriz/{name}", md5, size),)


_NUMBERS = "http://ufldl.stanford.edu/housenumbers"
PUBLISHED: dict[str, Alternatives] = {
    "cifar10": (
        _cifar("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", 170_052_171),
        _cifar("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", 170_498_071),
    ),
    "cifar100": (
        _cifar("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", 168_513_733),
        _cifar("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", 169_001_437),
    ),
    "svhn": (
        (
            Archive("train_32x32.mat", f"{_NUMBERS}/train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373", 182_040_794),
            Archive("test_32x32.mat", f"{_NUMBERS}/test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3", 64_275_384),
        ),
    ),
    "tiny-imagenet": (
        (
            Archive(
                "tiny-imagenet-200.zip",
                "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
                "90528d7ca1a48142e341f4ef8d21d0de",
                248_100_043,
            ),
        ),
    ),
}
"""Data sets that must be fetched; the one to fetch first."""


def data_folder() -> Path:
    """Where archives and caches lie: $CAFE_DATA, else ~/.cache/cafe/data. Raises UsageError."""
    given = os.environ.get("CAFE_DATA") or "~/.cache/cafe/data"
    try:
        return Path(given).expanduser().absolute()
    except RuntimeError:  # no such user, or no home
        raise UsageError(
            f"there is no folder for data: no home is known for {given}",
            "Set CAFE_DATA to a folder, such as /data/cafe.",
        ) from None


def published_here(name: str, alternatives: Alternatives, say: Callable[[str], object] = str) -> list[Path]:
    """The files of the first alternative that is there as it was published; what is wrong with others is said.

    Raises UsageError, with what is wrong, where none is.
    """
    verdicts: list[str] = []
    for alternative in alternatives:
        paths = [data_folder() / archive.name for archive in alternative]
        judged = list(map(judge, paths, alternative))
        if not any(judged):
            return paths
        for path, verdict in zip(paths, judged, strict=True):
            if verdict and path.exists():
                verdicts.append(verdict)
                say(verdict)
    raise UsageError(
        "; ".join([f"the data set {name} is not in {data_folder()}", *verdicts]),
        f"`cafe data prepare {name}` fetches it. {by_hand(alternatives)}",
    )


def judge(path: Path, archive: Archive) -> str:
    """What is wrong with a file that should be this archive; empty where nothing is."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return f"{path}: not a file"
        if status.st_size != archive.size:
            return f"{path}: not the published file: {status.st_size:,} of {archive.size:,} bytes"
        md5 = _md5(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror}"
    return "" if md5 == archive.md5 else f"{path}: not the published file: its MD5 is {md5}, not {archive.md5}"


@lru_cache(maxsize=64)
def _md5(path: Path, size: int, changed: int) -> str:
    """Of a file of this size and time of change. Raises OSError."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(MEGABYTE):
            digest.update(chunk)
    return digest.hexdigest()


def by_hand(alternatives: Alternatives) -> str:
    """How to have archives without a network: all files that are missing, and where they are published."""
    sets = []
    for alternative in alternatives:
        missing = [archive for archive in alternative if judge(data_folder() / archive.name, archive)]
        sources = [f"{archive.url} ({archive.size:,} bytes, MD5 {archive.md5})" for archive in missing]
        sets.append(" and ".join(sources))
    return f"Without a network, put into {data_folder()}: {'; or '.join(sets)}"
