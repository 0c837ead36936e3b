"""Data sets of the Hugging Face hub, fetched by its library `datasets` and kept as arrays of ours."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from engine.contract.datasets import cache_folder, choice, is_prepared, not_prepared
from engine.contract.errors import CafeError, UsageError
from engine.contract.profile.catalogue import HUGGING_FACE, DataFacts
from engine.contract.profile.schema import Data
from engine.data import cache, hub_files
from engine.data import hub_columns as columns
from engine.data.cache import Arrays, Say
from engine.data.hub_columns import Chosen
from engine.data.pictures import Pictures, is_grey
from engine.data.source import Source

LOOKED_AT = 64
"""Pictures, spread over the training part, that must all be grey for the set to be taken as grey."""


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
    name = data.name.removeprefix(HUGGING_FACE)
    if Path(name).exists():
        raise UsageError(
            f"{data.name}: there is a {name} in this folder, which the library would read in place of the hub's",
            "Give the command in another folder. A folder of pictures is prepared by `cafe data prepare folder`.",
        )
    import datasets

    say(f"looking for {name} on the Hugging Face hub")
    parts = _fetch(data, folder, say, datasets)
    chosen = columns.choose(data, parts, datasets, say)
    origin = cache.Origin(data.name, "Choose another data set.")
    with origin.readable():
        facts, train, held = _arrays(chosen, int(data.size or 0), datasets)
    say(f"{data.name}: {_room(folder, facts)}")
    kept = {"class_names": chosen.class_names, "choice": choice(data)}
    cache.write(folder, train, held, facts, origin, say=say, kept=kept)


def _fetch(data: Data, folder: Path, say: Say, datasets: Any) -> Any:
    """The parts of a data set by their names. Raises UsageError, DiskError."""
    name = data.name.removeprefix(HUGGING_FACE)
    try:
        builder = datasets.load_dataset_builder(name, data.config)
        _announce(data, builder.info, folder, say)
        if patterns := hub_files.disentangled(data.name, builder):
            say(f"{data.name}: files that the library puts into two parts, or twice into one, go by their folder")
            builder = datasets.load_dataset_builder(name, data.config, data_files=patterns)
            if hub_files.disentangled(data.name, builder):
                raise hub_files.entangled(data.name, "again")
            return datasets.load_dataset(name, data.config, data_files=patterns)
        return datasets.load_dataset(name, data.config)
    except CafeError:
        raise
    except Exception as error:  # of the network, of the hub, of the library
        if configs := _other_configs(name, data.config, datasets):
            found = f"none is {data.config}" if data.config else "none was chosen"
            raise UsageError(
                f"{data.name} has the configurations {', '.join(configs)}; {found}",
                "Choose one: --config NAME, and data.config in the profile.",
            ) from None
        raise UsageError(
            f"{data.name} cannot be fetched: {cache.first_line(error)}",
            "Without a network, copy the cache of Hugging Face (HF_HOME), or the folder "
            f"{folder}, from a host that has it.",
        ) from None


def _other_configs(name: str, wanted: str | None, datasets: Any) -> list[str]:
    """The configurations of a data set, if that may be why it could not be fetched."""
    try:
        configs = [str(config) for config in datasets.get_dataset_config_names(name)]
    except Exception:  # the reason is another one, which is told
        return []
    return configs if wanted not in configs and (wanted or len(configs) > 1) else []


def _announce(data: Data, info: Any, folder: Path, say: Say) -> None:
    """Say, before it is fetched, what a data set takes, as far as the hub tells. Raises DiskError."""
    parts = info.splits or {}
    test = next((part for part in columns.candidates(data) if part in parts), None)
    needs = [f"{info.download_size / 1e6:,.0f} MB to fetch"] if info.download_size else []
    if "train" in parts and test is not None:
        pool, held = int(parts["train"].num_examples or 0), int(parts[test].num_examples or 0)
        needs.append("at most " + _room(folder, DataFacts(0, 3, int(data.size or 0), pool, held, flip=False)))
    say(f"{data.name}: {', '.join(needs) or 'the hub does not tell its size'}")


def _room(folder: Path, facts: DataFacts) -> str:
    needed, free = cache.room(folder, facts)
    return f"{needed / 1e6:,.0f} MB for the cache, {free / 1e6:,.0f} MB free in {folder.parent}"


def _arrays(chosen: Chosen, size: int, datasets: Any) -> tuple[DataFacts, Arrays, Arrays]:
    picture = chosen.image
    raw = [part.cast_column(picture, datasets.Image(decode=False)) for part in chosen.parts]
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
    some = np.linspace(0, len(raw[0]) - 1, min(LOOKED_AT, len(raw[0]))).astype(int)
    channels = 1 if all(is_grey(reads[0](str(row))) for row in some) else 3
    facts = DataFacts(len(chosen.class_names), channels, size, len(raw[0]), len(raw[1]), flip=False)
    train, test = (
        (Pictures([str(row) for row in range(len(part))], read, channels, size), labels)
        for part, read, labels in zip(raw, reads, chosen.labels, strict=True)
    )
    return facts, train, test
