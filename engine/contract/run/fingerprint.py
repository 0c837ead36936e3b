"""What the numbers of a stage depend on: the keys of a profile that must not change while its files are of use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.contract.plan import Column
from engine.contract.profile.schema import Profile

_COMPUTE = ("precision", "sync_bn")
"""Of [compute], the keys that change what is computed, not merely where and how fast."""
_FREE = {
    "data": ("residency",),
    "threat": ("eps_l2",),
    "game": ("bank",),
    "evaluate": ("batch_size", "channels_last", "compile", "samples", "models", "attacks", "eps"),
}
"""By section or kind of stage, keys that may change. A cell does not depend on the others, and knows its own radius."""
_OTHERS = ("start", "helper", "base", "game", "source")
"""Keys that name an earlier stage."""

IMAGES = "checksum of the "
"""How the keys begin that tell the images of a run, which are no keys of its profile."""

Settings = dict[str, Any]
"""Values as in a file, by key path such as stage.train.lr."""


def settings(profile: Profile, stage_id: str) -> Settings:
    """Those of a stage of a resolved profile and of all stages that it starts from."""
    return _settings(profile, [stage_id])


def cell_settings(profile: Profile, stage_id: str, model: str, column: Column) -> Settings:
    """Those of one cell of a table."""
    return _settings(profile, [stage_id, model]) | {f"the radius of {column.name}": column.eps}


def image_settings(sums: Mapping[str, str]) -> Settings:
    """The images of a run, from their checksums by part."""
    return {f"{IMAGES}{part} images": value for part, value in sums.items()}


def _settings(profile: Profile, wanted: list[str]) -> Settings:
    tables = msgspec.json.decode(msgspec.json.encode(profile))
    found = {"seed": profile.seed}
    for section in ("data", "model", "threat"):
        found |= _flat(section, tables[section], _FREE.get(section, ()))
    found |= {f"compute.{key}": tables["compute"][key] for key in _COMPUTE}
    stages, seen = {table["id"]: table for table in tables["stage"]}, set[str]()
    while wanted:
        name = wanted.pop()
        if name in seen or name not in stages:  # [model] checkpoint is no stage
            continue
        seen.add(name)
        found |= _flat(f"stage.{name}", stages[name], _FREE.get(stages[name]["kind"], ()))
        wanted += [stages[name][key] for key in _OTHERS if stages[name].get(key)]
    return found


def _flat(path: str, table: Settings, free: tuple[str, ...]) -> Settings:
    found: Settings = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= _flat(f"{path}.{key}", value, ())
        elif key not in free:
            found[f"{path}.{key}"] = value
    return found


def changed(then: Settings, now: Settings) -> str:
    """What is not as it was, in words; empty if nothing is. A key that only one side knows came with a release."""
    apart = [key for key in then if key in now and then[key] != now[key]]
    told = [f"{key} was {_shown(then[key])} and is {_shown(now[key])}" for key in apart[:3]]
    return ", ".join([*told, f"{len(apart) - 3} more keys differ"] if len(apart) > 3 else told)


def _shown(value: Any) -> str:
    return "not set" if value is None else msgspec.json.encode(value).decode()
