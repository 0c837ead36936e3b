"""Data sets of the Hugging Face hub, fetched by its library `datasets` and kept as arrays of ours."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from engine.contract.datasets import cache_folder, is_prepared, not_prepared
from engine.contract.errors import CafeError, UsageError
from engine.contract.profile.catalogue import HUGGING_FACE, DataFacts
from engine.contract.profile.schema import Data
from engine.data import cache
from engine.data.cache import Arrays, Say
from engine.data.pictures import Pictures, is_grey
from engine.data.source import Source

LOOKED_AT = 64
"""Pictures, spread over the training part, that must all be grey for the set to be taken as grey."""
TESTS = ("test", "validation", "valid", "val")
"""What the part to test on may be called, the first that is there."""


def load(data: Data) -> Source:
    """From the cache that `prepare` made; the library is not needed. Raises UsageError."""
    if not is_prepared(data):
        raise not_prepared(data)
    return cache.load(cache_folder(data))


def prepare(data: Data, say: Say) -> None:
    """Fetch the data set `hf:NAME` and make its cache, or verify it. Raises UsageError, DiskError."""
    folder = cache_folder(data)
    if not is_prepared(data):
        with cache.alone(folder, say):
            if not is_prepared(data):
                _make(data, folder, say)
                say(f"{data.name} is ready in {folder}")
                return
    cache.verify(folder)
    say(f"{data.name} is ready in {folder}, its checksums are right")


def _make(data: Data, folder: Path, say: Say) -> None:
    if find_spec("datasets") is None:
        raise UsageError(
            f"{data.name} needs the library datasets of Hugging Face", "Install it with: pip install 'cafe-tui[hf]'"
        )
    name, size = data.name.removeprefix(HUGGING_FACE), int(data.size or 0)
    if Path(name).exists():
        raise UsageError(
            f"{data.name}: there is a {name} in this folder, which the library would read in place of the hub's",
            "Give the command in another folder. A folder of pictures is prepared by `cafe data prepare folder`.",
        )
    import datasets

    say(f"looking for {name} on the Hugging Face hub")
    try:
        info = datasets.load_dataset_builder(name).info
        _announce(data, info, folder, say)
        parts = datasets.load_dataset(name)
    except CafeError:
        raise
    except Exception as error:  # of the network, of the hub, of the library
        raise UsageError(
            f"{data.name} cannot be fetched: {cache.first_line(error)}",
            "Without a network, copy the cache of Hugging Face (HF_HOME), or the folder "
            f"{folder}, from a host that has it.",
        ) from None
    test = _test_part(parts)
    if "train" not in parts or test is None:
        raise UsageError(
            f"{data.name} has the parts {', '.join(parts)}; needed are train and one of {', '.join(TESTS)}"
        )
    columns = _columns(data.name, parts["train"], datasets)
    origin = cache.Origin(data.name, "Choose another data set.")
    with origin.readable():
        facts, train, held = _arrays(parts["train"], parts[test], columns, size, datasets)
    say(f"{data.name}: {_room(folder, facts)}")
    cache.write(folder, train, held, facts, origin, say=say)


def _announce(data: Data, info: Any, folder: Path, say: Say) -> None:
    """Say, before it is fetched, what a data set takes, as far as the hub tells. Raises DiskError."""
    parts = info.splits or {}
    test = _test_part(parts)
    needs = [f"{info.download_size / 1e6:,.0f} MB to fetch"] if info.download_size else []
    if "train" in parts and test is not None:
        pool, held = int(parts["train"].num_examples or 0), int(parts[test].num_examples or 0)
        needs.append("at most " + _room(folder, DataFacts(0, 3, int(data.size or 0), pool, held, flip=False)))
    say(f"{data.name}: {', '.join(needs) or 'the hub does not tell its size'}")


def _room(folder: Path, facts: DataFacts) -> str:
    needed, free = cache.room(folder, facts)
    return f"{needed / 1e6:,.0f} MB for the cache, {free / 1e6:,.0f} MB free in {folder.parent}"


def _test_part(parts: Any) -> str | None:
    return next((part for part in TESTS if part in parts), None)


def _columns(name: str, part: Any, datasets: Any) -> tuple[str, str]:
    """The one column of pictures and the one of classes. Raises UsageError."""
    pair = []
    for what, kind in (("pictures (Image)", datasets.Image), ("classes (ClassLabel)", datasets.ClassLabel)):
        columns = [column for column, feature in part.features.items() if isinstance(feature, kind)]
        if "label" in columns:
            columns = ["label"]
        if len(columns) != 1:
            there = ", ".join(f"{column}: {type(feature).__name__}" for column, feature in part.features.items())
            raise UsageError(f"{name} has {len(columns)} columns of {what} ({there}); needed is one of them")
        pair.append(columns[0])
    return pair[0], pair[1]


def _arrays(
    train: Any, test: Any, columns: tuple[str, str], size: int, datasets: Any
) -> tuple[DataFacts, Arrays, Arrays]:
    picture, label = columns
    raw = [part.cast_column(picture, datasets.Image(decode=False)) for part in (train, test)]
    lock = Lock()  # nothing is said about threads by the library

    def reader(part: Any) -> Any:
        def read(row: str) -> bytes:
            with lock:
                content = part[int(row)][picture]
            if content["bytes"] is None:
                with open(content["path"], "rb") as file:
                    return file.read()
            return bytes(content["bytes"])

        return read

    reads = [reader(part) for part in raw]
    some = np.linspace(0, len(train) - 1, min(LOOKED_AT, len(train))).astype(int)
    channels = 1 if all(is_grey(reads[0](str(row))) for row in some) else 3
    facts = DataFacts(train.features[label].num_classes, channels, size, len(train), len(test), flip=False)
    arrays = [
        (
            Pictures([str(row) for row in range(len(part))], read, channels, size),
            np.asarray(part[label][:], dtype=np.int64),
        )
        for part, read in zip(raw, reads, strict=True)
    ]
    return facts, arrays[0], arrays[1]
