"""A profile as a form: its keys and what they allow, edits as text, and what the loader says of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import tomli_w
from msgspec import inspect

from engine.contract.errors import ProfileError, UsageError
from engine.contract.plan import plan
from engine.contract.profile import files as profiles
from engine.contract.profile import schema
from engine.contract.profile.checking import describe
from engine.contract.profile.files import Loaded
from engine.contract.profile.sweeps import Sweep
from engine.contract.run import listing

EARLIER_RUNS: Final = 50
"""Of this folder, newest first, whose profiles are offered."""
BOOLEANS: Final = ("true", "false")


@dataclass(frozen=True)
class Choice:
    """A profile that can be picked: `reference` loads it, `origin` is shipped, local or run."""

    reference: str
    title: str
    origin: str
    purpose: str


@dataclass(frozen=True)
class Field:
    """A key of a resolved profile, its value as one types it, and what it means and allows.

    `choices` are the words it is limited to, if it is.
    """

    key: str
    label: str
    group: str
    text: str
    kind: Literal["text", "number", "list", "word"]
    meaning: str
    allowed: str
    choices: tuple[str, ...] = ()

    def value(self, text: str) -> object:
        """What `text` stands for, as TOML would have it; a text that is no such value stays text, for the loader."""
        if self.kind == "list":
            return [_number(part.strip()) for part in text.strip(" []").split(",") if part.strip()]
        if self.choices == BOOLEANS and text in BOOLEANS:
            return text == "true"
        return _number(text) if self.kind == "number" else text


@dataclass(frozen=True)
class Outcome:
    """What the loader says of a form: a profile that can run, the runs that one with a [sweep] means, or every problem.

    `changes` are (key, old, new) between the resolved profiles, keys that follow from edits included.
    """

    loaded: Loaded | None
    fields: tuple[Field, ...] = ()
    problems: tuple[str, ...] = ()
    changes: tuple[tuple[str, str, str], ...] = ()
    cost: str = ""
    sweep: Sweep[Loaded] | None = None


Edits = Mapping[str, tuple[Field, str]]
"""Key path to its field and the new text."""


def choices(runs: Path) -> list[Choice]:
    """Profiles by name, those of the newest runs under `runs`, then the grids in folders. Raises UsageError."""
    named = [
        Choice(entry.name, entry.name, "shipped" if entry.shipped else "local", entry.description)
        for entry in profiles.available()
    ]
    with_profile = (run for run in listing.newest_first(runs) if os.path.isfile(run.profile_file))
    earlier = [
        Choice(str(run.profile_file.absolute()), run.id, "run", run.info().description)
        for run in islice(with_profile, EARLIER_RUNS)
    ]
    grids = [choice for choice in named if "/" in choice.title]
    return [*(choice for choice in named if choice not in grids), *earlier, *grids]


def check(reference: str, edits: Edits, base: Loaded | None = None) -> Outcome:
    """Load the profile with these edits; against `base` the changes are told."""
    try:
        if base is None and (sweep := profiles.load_sweep(reference, overrides(edits))):
            return Outcome(None, sweep=sweep)
        loaded = profiles.load(reference, overrides(edits))
    except ProfileError as error:
        return Outcome(None, problems=error.problems)
    except UsageError as error:
        return Outcome(None, problems=tuple(str(error).splitlines()))
    changes = differences(base, loaded) if base else ()
    return Outcome(loaded, tuple(fields(loaded.profile)), changes=changes, cost=cost(loaded.profile))


def overrides(edits: Edits) -> list[str]:
    """The edits as KEY=VALUE, each value in the one notation that JSON and TOML share."""
    return [f"{key}={json.dumps(field.value(text), ensure_ascii=False)}" for key, (field, text) in edits.items()]


def differences(base: Loaded, loaded: Loaded) -> tuple[tuple[str, str, str], ...]:
    """(key, old, new) of every value that differs between two resolved profiles; an open one is shown as a dash."""
    old, new = ({field.key: field.text for field in fields(each.profile)} for each in (base, loaded))
    return tuple((key, old.get(key) or "-", text or "-") for key, text in new.items() if old.get(key) != text)


def cost(profile: schema.Profile) -> str:
    """Steps of each stage and the image passes of all: "train 360 steps, game 200 steps; 5.1M image passes"."""
    stages = plan(profile)
    steps = ", ".join(f"{stage.id} {stage.steps:,} step{'s' * (stage.steps != 1)}" for stage in stages)
    return f"{steps}; {_short(sum(stage.cost for stage in stages))} image passes"


def save(choice: Choice, name: str, edits: Edits) -> Path:
    """Write ./profiles/NAME.toml that extends `choice` by the edits; its path.

    Raises UsageError when the name is taken or not allowed, the profile has problems, or the file cannot be written.
    """
    named = profiles.load(choice.reference, [*overrides(edits), f"name={json.dumps(name)}"])
    if any(entry.name == name for entry in profiles.available()):
        raise UsageError(f"there is a profile {name} already", "Another name leaves it as it is.")
    path = Path("profiles") / f"{name}.toml"
    stages = [str(stage.id) for stage in profiles.load(choice.reference).profile.stage]
    changed = {_by_id(key, stages): field.value(text) for key, (field, text) in edits.items() if key != "name"}
    tables = {"extends": choice.reference, "name": named.profile.name, **({"set": changed} if changed else {})}
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(tomli_w.dumps(tables))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def _by_id(key: str, stages: list[str]) -> str:
    """The key path with the stage's id, which reads better; its own `id` by index, as it is about to be another."""
    section, *rest = key.split(".")
    if section != "stage" or rest[-1] == "id":
        return key
    return ".".join((section, stages[int(rest[0])], *rest[1:]))


# --- fields ----------------------------------------------------------------------------------------------------------


def fields(profile: schema.Profile) -> Iterator[Field]:
    """Every key of a resolved profile in the order of the schema, stages by index."""
    kind = inspect.type_info(schema.Profile)
    assert isinstance(kind, inspect.StructType)
    tables = msgspec.to_builtins(profile)
    yield from _section(kind, tables, "", "profile")
    for index, stage in enumerate(profile.stage):
        kind = inspect.type_info(type(stage))
        assert isinstance(kind, inspect.StructType)
        title = f"stage {index + 1}: {kind.tag}"
        yield from _section(kind, tables["stage"][index], f"stage.{index}.", title)


def _section(kind: inspect.StructType, table: Mapping[str, Any], prefix: str, group: str) -> Iterator[Field]:
    for item in kind.fields:
        key, bare = item.encode_name, _bare(item.type)
        if isinstance(bare, inspect.StructType):
            title = f"{group} · {key}" if prefix else key
            yield from _section(bare, table[key], f"{prefix}{key}.", title)
        elif key != "stage" or prefix:
            yield _field(item.type, bare, f"{prefix}{key}", group, table[key])


def _field(kind: inspect.Type, bare: inspect.Type, key: str, group: str, value: object) -> Field:
    words = tuple(sorted(map(str, bare.values))) if isinstance(bare, inspect.LiteralType) else ()
    if isinstance(bare, inspect.BoolType):
        words = BOOLEANS
    shape: Literal["text", "number", "list", "word"] = "text"
    if words:
        shape = "word"
    elif isinstance(bare, inspect.IntType | inspect.FloatType):
        shape = "number"
    elif isinstance(bare, inspect.ListType | inspect.TupleType):
        shape = "list"
    label = key.rsplit(".", 1)[-1]
    return Field(key, label, group, as_text(value), shape, _meaning(kind), describe(kind), words)


def as_text(value: object) -> str:
    """A value as one types it into a form; nothing for an open key."""
    if isinstance(value, bool):
        return BOOLEANS[not value]
    if isinstance(value, list | tuple):
        return ", ".join(map(as_text, value))
    return "" if value is None else str(value)


def _meaning(kind: inspect.Type) -> str:
    while isinstance(kind, inspect.Metadata):
        if description := (kind.extra_json_schema or {}).get("description"):
            return str(description)
        kind = kind.type
    return ""


def _bare(kind: inspect.Type) -> inspect.Type:
    """The type inside annotations and `| None`; the union of stages stays one."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        options = [option for option in kind.types if not isinstance(option, inspect.NoneType)]
        return _bare(options[0]) if len(options) == 1 else kind
    return kind


def _number(text: str) -> object:
    for parse in (int, float):
        try:
            return parse(text)
        except ValueError:
            continue
    return text


def _short(count: float) -> str:
    for unit in ("", "k", "M", "G"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}T"
