"""Image folders: which pictures lie in train/CLASS/PICTURE and test/CLASS/PICTURE, known without decoding them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from engine.contract.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"))
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""As Pillow names those that only hold pixels; some that it knows beside them start programs."""
CONVERSION = 2
"""Counts the ways in which pictures have become arrays; a cache that was made in an earlier one is made again.

2: turned as their EXIF says, transparent pixels over white, 16 bits a channel cut to 8.
"""
GREY = ("1", "L", "LA", "I;16", "I;16L", "I;16B", "I")
"""Pillow's modes of pictures without colour."""


def has_no_colour(picture: Image.Image) -> bool:
    """Whether an opened picture is grey. Pillow calls one of 16 bits with transparency a colour picture."""
    return picture.mode in GREY or stored_as(picture).startswith("LA;16")


def stored_as(picture: Image.Image) -> str:
    """How the file of an opened picture holds its pixels, as Pillow says before it loads them: RGB;16B for 16 bits."""
    tiles = getattr(picture, "tile", ())
    return str(tiles[0][3]) if tiles else ""


class Listing(NamedTuple):
    """The pictures of a folder by class, in the order of the classes: their paths within it, sorted.

    `stamp` tells their names, sizes and times of change, and how they become arrays.
    """

    classes: tuple[str, ...]
    train: tuple[tuple[str, ...], ...]
    test: tuple[tuple[str, ...], ...]
    stamp: str


_NEEDED = "needed are train/CLASS/PICTURE and test/CLASS/PICTURE (or val)"
Part = dict[str, list[tuple[str, int, int]]]
"""The pictures of train or of test by class: path within the folder, size in bytes, time of change; sorted."""


def listing(root: Path) -> Listing:
    """What lies in a folder train/CLASS/PICTURE and test (else val)/CLASS/PICTURE. Raises UsageError.

    Pictures in folders of a class count as those of the class.
    """
    try:
        held_out = _test_folder(root)
        train, test = _part(root, "train"), _part(root, held_out)
    except OSError as error:
        raise UsageError(f"{error.filename or root}: cannot be read: {error.strerror}", _NEEDED) from None
    _check_classes(root, train, test, held_out)
    _check_filled(root, "train", train)
    _check_filled(root, held_out, test)
    stamp = hashlib.sha256(f"conversion {CONVERSION}".encode())
    for pictures in (*train.values(), *test.values()):
        stamp.update(str(pictures).encode())
    classes = tuple(train)
    return Listing(classes, _paths(train, classes), _paths(test, classes), stamp.hexdigest())


def _paths(part: Part, classes: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(path for path, _, _ in part[label]) for label in classes)


def _test_folder(root: Path) -> str:
    """The name of the folder beside train: test, else val. Raises UsageError, OSError."""
    with os.scandir(root) as entries:
        folders = {entry.name for entry in entries if entry.is_dir()}
    if "train" in folders and "test" in folders:
        return "test"
    if "train" in folders and "val" in folders:
        return "val"
    raise UsageError(f"{root} holds no folders train and test (or val)", _NEEDED)


def _part(root: Path, name: str) -> Part:
    """Raises OSError."""
    with os.scandir(root / name) as entries:
        classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    return {label: sorted(_pictures(root, f"{name}/{label}")) for label in classes}


def _check_classes(root: Path, train: Part, test: Part, held_out: str) -> None:
    """Raise UsageError unless both parts have the same classes, at least two."""
    odd = sorted(set(train) ^ set(test))
    if odd:
        reason = f"only one of both has {', '.join(odd[:3])}{' ...' if len(odd) > 3 else ''}"
    elif len(train) < 2:
        reason = "there are too few"
    else:
        return
    raise UsageError(f"{root}: the classes of train and {held_out} must agree: {reason}", _NEEDED)


def _check_filled(root: Path, name: str, part: Part) -> None:
    """Raise UsageError if a class of train or of test has no picture."""
    for label, pictures in part.items():
        if not pictures:
            raise UsageError(f"{root}: {name}/{label} holds no picture", f"allowed are {', '.join(sorted(SUFFIXES))}")


def _pictures(root: Path, folder: str) -> Iterator[tuple[str, int, int]]:
    """Path within `root`, size and time of change of each picture below a folder, hidden ones aside. Raises OSError."""
    with os.scandir(root / folder) as entries:
        for entry in entries:
            inner = f"{folder}/{entry.name}"
            if entry.name.startswith("."):  # as what macOS puts beside each file: ._NAME
                continue
            if entry.is_dir():
                yield from _pictures(root, inner)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                status = entry.stat()
                yield inner, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=8)
def counted(path: str) -> tuple[int, int, int, int]:
    """Classes, channels, training and test images; three channels unless the first picture of every class is grey.

    Raises UsageError.
    """
    from PIL import Image  # 30 ms that other data sets need not pay

    folder = listing(Path(path))
    channels = 1
    for pictures in folder.train:
        try:
            with Image.open(Path(path) / pictures[0], formats=FORMATS) as picture:
                if not has_no_colour(picture):
                    channels = 3
                    break
        except Exception as error:  # Pillow raises many kinds for one meaning
            raise UsageError(f"{Path(path) / pictures[0]}: no picture ({error})", "remove or replace it") from None
    return len(folder.classes), channels, sum(map(len, folder.train)), sum(map(len, folder.test))
