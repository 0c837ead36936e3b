"""What [data] of a profile says: does it fit the data set, what is left to count, and could a run here have it?

Nothing here reads an image. The facts of a data set are `schema.Data.facts`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.contract.archives import PUBLISHED, data_folder, published_here
from engine.contract.errors import UsageError
from engine.contract.folders import CONVERSION, counted, listing
from engine.contract.profile.catalogue import DATA_FACTS, DATA_SETS, HUB, HUGGING_FACE, DataFacts, is_any_folder
from engine.contract.profile.schema import Data

CHOICE = ("config", "image", "label", "test")
"""Keys of [data] that choose among what a data set of the hub holds."""
COUNTED = ("classes", "channels", "train_images", "test_images")
"""Keys of [data] that a folder or a prepared data set answers; a resolved profile has them, for whoever reads it."""


def cache_folder(data: Data) -> Path:
    """Where the arrays of a data set lie once they are made."""
    if data.name in PUBLISHED:
        return data_folder() / data.name
    if is_any_folder(data.name):
        path = Path(str(data.path))
        return (
            data_folder() / f"{data.name}-{path.name}-{data.size}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
        )
    name, chosen = data.name.replace(":", "-").replace("/", "--"), choice(data)
    digest = f"-{hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:8]}" if chosen else ""
    return data_folder() / f"{name}-{_image_size(data)}{digest}"


def choice(data: Data) -> dict[str, str]:
    """What is chosen of a data set of the hub, by the keys in CHOICE that are given."""
    return {key: value for key in CHOICE if (value := getattr(data, key)) is not None}


def _image_size(data: Data) -> int | None:
    """The side of the images."""
    return data.size or (DATA_FACTS[data.name].size if data.name in DATA_FACTS else None)


def is_cached(folder: Path) -> bool:
    """Whether the arrays are there, whole."""
    return (folder / "facts.json").is_file()


def is_prepared(data: Data) -> bool:
    """Whether the arrays are there, made as this release makes them of pictures.

    Published archives hold pixels, or pictures without EXIF; a folder is looked at before each run.
    """
    folder = cache_folder(data)
    if not is_cached(folder) or data.name in PUBLISHED or is_any_folder(data.name):
        return is_cached(folder)
    try:
        return int(json.loads((folder / "facts.json").read_text(encoding="utf-8")).get("conversion", 1)) >= CONVERSION
    except (OSError, ValueError, TypeError, AttributeError):
        return True  # damaged: a run, and its preparation, tell how


def fitting(data: Data) -> list[str]:
    """What [data] lacks, and what does not go with its name; makes its path absolute, in place."""
    if data.path is not None:
        data.path = str(Path(os.path.expanduser(data.path)).absolute())
    return _superfluous(data) if data.name in DATA_FACTS else _missing(data)


def _superfluous(data: Data) -> list[str]:
    """What does not go with a data set whose facts are known."""
    problems = []
    own = ("path", "size") if DATA_SETS[data.name].had == "folder" else ()
    for key in ("path", "size", *CHOICE, *COUNTED):
        if getattr(data, key) is not None and key not in own:
            problems.append(f"data.{key}: found {getattr(data, key)!r}; {data.name} needs none, leave it out")
    return problems


def _missing(data: Data) -> list[str]:
    """What a folder or a data set of the hub lacks, and a path that it has no use for."""
    problems = []
    if data.size is None:
        problems.append(f"data.size: missing; needed for {data.name}: the side of the images in pixels, such as 64")
    if is_any_folder(data.name) and data.path is None:
        problems.append("data.path: missing; needed: the folder that holds train and test (or val)")
    if is_any_folder(data.name):
        for key, value in choice(data).items():
            problems.append(f"data.{key}: found {value!r}; folder needs none, leave it out")
    if not is_any_folder(data.name) and data.path is not None:
        problems.append(f"data.path: found {data.path!r}; {data.name} needs none, leave it out")
    return problems


def complete(data: Data) -> list[str]:
    """Fill, in place, what is open in [data]; the result tells what cannot be."""
    problems = fitting(data)
    if problems or data.name in DATA_FACTS or all(getattr(data, key) is not None for key in COUNTED):
        return problems
    try:
        values = counted(str(data.path)) if is_any_folder(data.name) else _prepared(data)
    except UsageError as error:
        return [f"data.{'path' if data.name == 'folder' else 'name'}: {error.message}; {error.hint}"]
    for key, value in zip(COUNTED, values, strict=True):
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
    elif is_any_folder(data.name):
        if not is_cached(cache_folder(data)):
            listing(Path(str(data.path)))
            _check_writable(data)
    elif not is_prepared(data):
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
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # damaged: a run, and its preparation, tell how
        hub = origin.startswith(HUGGING_FACE)
        chosen = said.get("choice") if hub else None
        chosen = {key: str(chosen[key]) for key in CHOICE if key in chosen} if isinstance(chosen, dict) else {}
        name, path = (origin, None) if hub else (kind, origin)
        found.append((Data(name=name, path=path, size=known.size, **chosen), known))
    return found


def not_prepared(data: Data) -> UsageError:
    """What to say where a data set has to be prepared by hand, as that takes long."""
    options = f" --path {data.path or 'FOLDER'}" if DATA_SETS.get(data.name, HUB).had == "folder" else ""
    options += "".join(f" --{key} {shlex.quote(value)}" for key, value in choice(data).items())
    how = f"is not prepared at {_image_size(data)} pixels in {data_folder()}"
    if is_cached(cache_folder(data)):
        how = f"was prepared by an earlier release, which turned no picture as its EXIF says ({cache_folder(data)})"
    return UsageError(
        f"{data.name} {how}",
        f"`cafe data prepare {data.name}{options} --size {_image_size(data)}` makes its arrays.",
    )


def _prepared(data: Data) -> tuple[int, int, int, int]:
    """The COUNTED facts of a data set that `cafe data prepare` has made. Raises UsageError."""
    folder = cache_folder(data)
    if not is_prepared(data):
        raise not_prepared(data)
    try:
        found: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        return int(found["classes"]), int(found["channels"]), int(found["pool"]), int(found["test"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UsageError(f"{folder}: the cache cannot be read ({error})", "delete that folder") from None
