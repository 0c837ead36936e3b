"""Sets of the hub that are loose files: which of them are of which part.

The library finds the parts by words in the names of folders, so that a picture of a class named test_tube in the folder
train is put into both parts, and one of training_shoe twice into train.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from engine.contract.errors import UsageError

FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""By part: what a folder of it may be called."""


def disentangled(name: str, builder: Any) -> dict[str, list[str]]:
    """What to read as each part, where the library has put a file into two parts or twice into one; else nothing.

    A file belongs to the part that the first folder of its path names. Raises UsageError where none does.
    """
    files = getattr(getattr(builder, "config", None), "data_files", None)
    if not isinstance(files, Mapping):
        return {}
    parts = {str(part): [str(file) for file in some] for part, some in files.items()}
    every = [file for some in parts.values() for file in some]
    if len(set(every)) == len(every):
        return {}
    root = os.path.commonpath(every)
    patterns: dict[str, set[str]] = {}
    for file in set(every):
        folders = os.path.relpath(file, root).split("/")[:-1]
        place = next(((part, i) for i, folder in enumerate(folders) if (part := _named(folder))), None)
        if place is None:
            raise entangled(name, f"{os.path.relpath(file, root)} lies in no folder that names its part")
        part, depth = place
        patterns.setdefault(part, set()).add("/".join([_joined(root), *folders[: depth + 1], "**"]))
    return {part: sorted(some) for part, some in sorted(patterns.items())}


def _named(folder: str) -> str:
    """The part that a folder of this name holds; empty if it names none."""
    return next((part for part, names in FOLDERS.items() if folder.lower() in names), "")


def _joined(root: str) -> str:
    """A common path as an address again: two slashes after the protocol."""
    protocol, colon, rest = root.partition(":/")
    return f"{protocol}://{rest.lstrip('/')}" if colon else root


def entangled(name: str, why: str) -> UsageError:
    """What to say of files that cannot be told apart."""
    return UsageError(
        f"{name}: the library puts the same files into two parts, or twice into one ({why})",
        "Fetch the set, sort its pictures into train/CLASS and test/CLASS, and use `folder`.",
    )
