"""Data sets as far as they are known without reading an image: facts, archives, folders, and where all of it lies."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.contract.errors import UsageError
from engine.contract.profile.catalogue import DATA_FACTS, DATA_SETS, HUB, HUGGING_FACE, DataFacts
from engine.contract.profile.schema import Data

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"))
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""As Pillow names those that only hold pixels; some that it knows beside them start programs."""
GREY = ("1", "L", "LA")
"""Pillow's modes of pictures without colour."""
COUNTED = ("classes", "channels", "train_images", "test_images")
"""Keys of [data] that a folder or a prepared data set answers; a resolved profile has them, for whoever reads it."""


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


def cache_folder(data: Data) -> Path:
    """Where the arrays of a data set lie once they are made."""
    if data.name in PUBLISHED:
        return data_folder() / data.name
    if data.name == "folder":
        path = Path(str(data.path))
        return data_folder() / f"folder-{path.name}-{data.size}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    return data_folder() / f"{data.name.replace(':', '-').replace('/', '--')}-{facts_size(data)}"


def facts_size(data: Data) -> int | None:
    """The side of the images."""
    return data.size or (DATA_FACTS[data.name].size if data.name in DATA_FACTS else None)


def is_cached(folder: Path) -> bool:
    """Whether the arrays are there, whole."""
    return (folder / "facts.json").is_file()


def facts(data: Data) -> DataFacts:
    """The facts of the data set of a resolved profile."""
    known = DATA_FACTS.get(data.name)
    if known is None:
        classes, channels, pool, test = (int(getattr(data, key)) for key in COUNTED)
        known = DataFacts(classes, channels, int(data.size or 0), pool, test, flip=False)
    return replace(known, size=data.size or known.size, flip=known.flip if data.flip is None else data.flip)


# --- checking --------------------------------------------------------------------------------------------------------


def fitting(data: Data) -> list[str]:
    """What [data] lacks, and what does not go with its name; makes its path absolute, in place."""
    problems = []
    if data.path is not None:
        data.path = str(Path(os.path.expanduser(data.path)).absolute())
    if data.name in DATA_FACTS:
        own = ("path", "size") if DATA_SETS[data.name].had == "folder" else ()
        for key in ("path", "size", *COUNTED):
            if getattr(data, key) is not None and key not in own:
                problems.append(f"data.{key}: found {getattr(data, key)!r}; {data.name} needs none, leave it out")
        if data.flip and not DATA_FACTS[data.name].flip:
            problems.append(f"data.flip: found true; allowed for {data.name}: false, a mirrored digit is none")
        return problems
    if data.size is None:
        problems.append(f"data.size: missing; needed for {data.name}: the side of the images in pixels, such as 64")
    if data.name == "folder" and data.path is None:
        problems.append("data.path: missing; needed: the folder that holds train and test (or val)")
    if data.name != "folder" and data.path is not None:
        problems.append(f"data.path: found {data.path!r}; {data.name} needs none, leave it out")
    return problems


def complete(data: Data) -> list[str]:
    """Fill, in place, what is open in [data]; the result tells what cannot be."""
    problems = fitting(data)
    if problems or data.name in DATA_FACTS or all(getattr(data, key) is not None for key in COUNTED):
        return problems
    try:
        found = _counted(str(data.path)) if data.name == "folder" else _prepared(data)
    except UsageError as error:
        return [f"data.{'path' if data.name == 'folder' else 'name'}: {error.message}; {error.hint}"]
    for key, value in zip(COUNTED, found, strict=True):
        if getattr(data, key) is None:
            setattr(data, key, value)
        elif getattr(data, key) != value:
            problems.append(f"data.{key}: found {getattr(data, key)}; the images have {value}, leave it out")
    return problems


def check_here(data: Data) -> None:
    """Raise UsageError if a run on this host could not have the data set of a resolved profile."""
    row = DATA_SETS.get(data.name, HUB)
    if row.had == "library":
        if row.library is not None and find_spec(row.library) is None:
            raise UsageError(
                f"the data set {data.name} needs the library {row.library}, which ships it",
                f"Install it with: pip install 'cafe-tui[{data.name}]'",
            )
    elif row.had == "archives":
        if not is_cached(cache_folder(data)):
            published_here(data.name, PUBLISHED[data.name])
            _check_writable(data)
    elif data.name == "folder":
        if not is_cached(cache_folder(data)):
            listing(Path(str(data.path)))
            _check_writable(data)
    elif not is_cached(cache_folder(data)):
        raise not_prepared(data)


def _check_writable(data: Data) -> None:
    folder = data_folder()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(
            f"{there} cannot be written, and the arrays of {data.name} are not made yet",
            "Set CAFE_DATA to a folder that can, or let its owner run `cafe data prepare`.",
        )


def is_here(data: Data) -> bool:
    """Whether a run on this host could have the data set of a resolved profile."""
    try:
        check_here(data)
    except UsageError:
        return False
    return True


def prepared() -> list[tuple[Data, DataFacts]]:
    """The data sets with a size of their own, ImageNet and those of others, whose arrays are in the data folder."""
    found = []
    for file in sorted(data_folder().glob("*/facts.json")):
        kind = file.parent.name.partition("-")[0]
        if kind != HUGGING_FACE.rstrip(":") and (kind not in DATA_SETS or DATA_SETS[kind].had != "folder"):
            continue
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
            known = DataFacts(**{field.name: said[field.name] for field in fields(DataFacts)})
            origin = str(said["from"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged: a run, and its preparation, tell how
        hub = origin.startswith(HUGGING_FACE)
        found.append((Data(name=origin if hub else kind, path=None if hub else origin, size=known.size), known))
    return found


def published_here(name: str, alternatives: Alternatives, say: Callable[[str], object] = str) -> list[Path]:
    """The files of the first alternative that is there as it was published; what is wrong with others is said.

    Raises UsageError, with what is wrong, where none is.
    """
    said: list[str] = []
    for alternative in alternatives:
        paths = [data_folder() / archive.name for archive in alternative]
        verdicts = list(map(judge, paths, alternative))
        if not any(verdicts):
            return paths
        for path, verdict in zip(paths, verdicts, strict=True):
            if verdict and path.exists():
                said.append(verdict)
                say(verdict)
    raise UsageError(
        "; ".join([f"the data set {name} is not in {data_folder()}", *said]),
        f"`cafe data prepare {name}` fetches it. {by_hand(alternatives)}",
    )


def judge(path: Path, archive: Archive) -> str:
    """What is wrong with a file that should be this archive; empty where nothing is."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return f"{path}: not a file"
        if found.st_size != archive.size:
            return f"{path}: not the published file: {found.st_size:,} of {archive.size:,} bytes"
        md5 = _md5(path, found.st_size, found.st_mtime_ns)
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
        told = [f"{archive.url} ({archive.size:,} bytes, MD5 {archive.md5})" for archive in missing]
        sets.append(" and ".join(told))
    return f"Without a network, put into {data_folder()}: {'; or '.join(sets)}"


def not_prepared(data: Data) -> UsageError:
    """What to say where a data set has to be prepared by hand, as that takes long."""
    options = f" --path {data.path or 'FOLDER'}" if DATA_SETS.get(data.name, HUB).had == "folder" else ""
    return UsageError(
        f"{data.name} is not prepared at {facts_size(data)} pixels in {data_folder()}",
        f"`cafe data prepare {data.name}{options} --size {facts_size(data)}` makes its arrays.",
    )


def _prepared(data: Data) -> tuple[int, int, int, int]:
    """The COUNTED facts of a data set that `cafe data prepare` has made. Raises UsageError."""
    folder = cache_folder(data)
    try:
        found: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        return int(found["classes"]), int(found["channels"]), int(found["pool"]), int(found["test"])
    except FileNotFoundError:
        raise not_prepared(data) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder}: the cache cannot be read ({error})", "delete that folder") from None


# --- folders ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder by class, in the order of the classes: their paths within it, sorted.

    `stamp` tells their names, sizes and times of change.
    """

    classes: tuple[str, ...]
    train: tuple[tuple[str, ...], ...]
    test: tuple[tuple[str, ...], ...]
    stamp: str


def listing(root: Path) -> Listing:
    """What lies in a folder train/CLASS/PICTURE and test (else val)/CLASS/PICTURE. Raises UsageError.

    Pictures in folders of a class count as those of the class.
    """
    parts: list[dict[str, tuple[str, ...]]] = []
    stamp = hashlib.sha256()
    wanted = "needed are train/CLASS/PICTURE and test/CLASS/PICTURE (or val)"
    try:
        with os.scandir(root) as entries:
            there = {entry.name for entry in entries if entry.is_dir()}
        names = ["train", *[name for name in ("test", "val") if name in there][:1]]
        if not set(names) <= there or len(names) < 2:
            raise UsageError(f"{root} holds no folders train and test (or val)", wanted)
        for name in names:
            with os.scandir(root / name) as entries:
                folders = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
            part: dict[str, tuple[str, ...]] = {}
            for folder in folders:
                pictures = sorted(_pictures(root, f"{name}/{folder}"))
                part[folder] = tuple(picture for picture, _, _ in pictures)
                stamp.update(str(pictures).encode())
            parts.append(part)
    except OSError as error:
        raise UsageError(f"{error.filename or root}: cannot be read: {error.strerror}", wanted) from None
    train, test = parts
    odd = sorted(set(train) ^ set(test))
    if odd or len(train) < 2:
        told = f"only one of both has {', '.join(odd[:3])}{' ...' * (len(odd) > 3)}" if odd else "there are too few"
        raise UsageError(f"{root}: the classes of train and {names[1]} must agree: {told}", wanted)
    for name, part in zip(names, parts, strict=True):
        empty = [folder for folder, pictures in part.items() if not pictures]
        if empty:
            raise UsageError(
                f"{root}: {name}/{empty[0]} holds no picture", f"allowed are {', '.join(sorted(SUFFIXES))}"
            )
    return Listing(tuple(train), tuple(train.values()), tuple(test[name] for name in train), stamp.hexdigest())


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
                found = entry.stat()
                yield inner, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=8)
def _counted(path: str) -> tuple[int, int, int, int]:
    """The COUNTED facts of a folder; three channels unless the first picture of every class is grey."""
    from PIL import Image  # 30 ms that other data sets need not pay

    found = listing(Path(path))
    channels = 1
    for pictures in found.train:
        try:
            with Image.open(Path(path) / pictures[0], formats=FORMATS) as picture:
                if picture.mode not in GREY:
                    channels = 3
                    break
        except Exception as error:  # Pillow raises many kinds for one meaning
            raise UsageError(f"{Path(path) / pictures[0]}: no picture ({error})", "remove or replace it") from None
    return len(found.classes), channels, sum(map(len, found.train)), sum(map(len, found.test))
