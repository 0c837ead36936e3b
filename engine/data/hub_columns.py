"""What is taken of a data set of the hub: its part to test on, its column of pictures, its column of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.contract.errors import UsageError
from engine.contract.profile.schema import Data

TESTS = ("test", "validation", "valid", "val")
"""What the part to test on may be called, the first that is there and has labels."""
LABELS = ("label", "labels", "cls", "class", "target")
"""What a column of classes is called where it is of plain numbers or words."""
MOST_NAMED = 20


@dataclass(frozen=True)
class Chosen:
    """The part to train on and the one to test on, their labels (N,) int64, and the column of pictures of both."""

    parts: tuple[Any, Any]
    labels: tuple[np.ndarray, np.ndarray]
    image: str
    class_names: tuple[str, ...]


def candidates(data: Data) -> Sequence[str]:
    """What the part to test on may be."""
    return TESTS if data.test is None else (data.test,)


def choose(data: Data, parts: Any, datasets: Any, say: Callable[[str], None]) -> Chosen:
    """What a profile asks for, or the only thing that it can mean. Raises UsageError that lists what there is."""
    there = [part for part in candidates(data) if part in parts and part != "train"]
    if "train" not in parts or not there:
        needed = " and ".join(["train", data.test or f"one of {', '.join(TESTS)}"])
        raise UsageError(
            f"{data.name} has the parts {', '.join(parts)}; needed are {needed}",
            "Name the part to test on: --test PART, and data.test in the profile.",
        )
    train = parts["train"]
    image = _column(data, "image", train, datasets)
    label = _column(data, "label", train, datasets)
    for name in there:
        known = [value for value in parts[name][label][:] if value not in (None, -1)]
        if known:
            break
        say(f"{data.name}: the part {name} has no labels")
    else:
        raise UsageError(
            f"{data.name}: no label in {', '.join(there)}: there is nothing to test on",
            f"It has the parts {', '.join(parts)}; name one with --test PART.",
        )
    class_names, labels = _classes(data.name, label, train, parts[name])
    return Chosen((train, parts[name]), labels, image, class_names)


def _column(data: Data, key: str, part: Any, datasets: Any) -> str:
    """The column that `key` names, image or label, or the only one that can be it. Raises UsageError."""
    features, wanted = part.features, getattr(data, key)
    if key == "image":
        what = "pictures (Image)"
        fit = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
        likely = fit
    else:
        what = "classes (ClassLabel)"
        likely = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
        plain = [column for column, feature in features.items() if column not in likely and _is_plain(feature)]
        fit = [*likely, *plain]
        likely = likely or [column for column in plain if column in LABELS]
        likely = ["label"] if "label" in likely else likely
    if wanted in fit:
        return str(wanted)
    if wanted is None and len(likely) == 1:
        return likely[0]
    there = ", ".join(f"{column}: {_kind(feature)}" for column, feature in features.items())
    if wanted is None:
        found = f"{data.name} has {len(likely)} columns of {what} ({there}); needed is one of them"
    else:
        found = f"{data.name}: {wanted} is no column of {what} ({there})"
    may = f" It may be: {', '.join(fit)}." if fit else ""
    raise UsageError(found, f"Choose one: --{key} COLUMN, and data.{key} in the profile.{may}")


def _is_plain(feature: Any) -> bool:
    """Whether a column is of whole numbers or of words."""
    return str(getattr(feature, "dtype", "")).startswith(("int", "uint", "string", "large_string", "bool"))


def _kind(feature: Any) -> str:
    kind = type(feature).__name__
    return f"{kind}({feature.dtype})" if kind == "Value" else kind


def _classes(name: str, column: str, train: Any, test: Any) -> tuple[tuple[str, ...], tuple[np.ndarray, np.ndarray]]:
    """The names of the classes, and the labels of both parts as their places among them. Raises UsageError."""
    values = [list(part[column][:]) for part in (train, test)]
    names = [list(getattr(part.features[column], "names", None) or ()) for part in (train, test)]
    if not names[0]:
        return _of_values(name, column, *values)
    if set(names[0]) != set(names[1]):
        only = [sorted(set(a) - set(b))[:3] for a, b in (names, names[::-1])]
        raise UsageError(
            f"{name}: the parts have other classes: only one of both has {', '.join([*only[0], *only[1]])}",
            "Choose another part to test on with --test PART.",
        )
    place = [names[0].index(label) for label in names[1]]
    held = [place[value] if value is not None and 0 <= value < len(place) else _missing(value) for value in values[1]]
    known = [_missing(value) for value in values[0]]
    return tuple(map(str, names[0])), (np.asarray(known, dtype=np.int64), np.asarray(held, dtype=np.int64))


def _missing(value: Any) -> int:
    """A label as it is; -1, which is refused, where there is none."""
    return -1 if value is None else int(value)


def _of_values(
    name: str, column: str, train: list[Any], test: list[Any]
) -> tuple[tuple[str, ...], tuple[np.ndarray, np.ndarray]]:
    """As `_classes`, of plain numbers or words: the classes are the values of train, sorted."""
    classes = sorted({value for value in train if value not in (None, -1)})
    other = sorted({value for value in test if value not in (None, -1)} - set(classes))
    if other or not 1 < len(classes) <= max(len(train) // 2, 2):
        why = f"the part to test on has {_few(other)}, and train has not" if other else f"{len(classes):,} values"
        raise UsageError(
            f"{name}: the column {column} does not tell classes: {why}", "Choose another column with --label COLUMN."
        )
    place = {value: i for i, value in enumerate(classes)} | {None: -1, -1: -1}
    arrays = [np.array([place[value] for value in values], dtype=np.int64) for values in (train, test)]
    return tuple(map(str, classes)), (arrays[0], arrays[1])


def _few(values: list[Any]) -> str:
    return ", ".join(map(str, values[:MOST_NAMED])) + (" ..." if len(values) > MOST_NAMED else "")
