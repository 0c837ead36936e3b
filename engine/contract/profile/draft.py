"""A profile in the making: tables that are merged and overridden, and become a resolved profile."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import tomli

from engine.contract.errors import ProfileError
from engine.contract.profile import presets
from engine.contract.profile.checking import check
from engine.contract.profile.problems import printable, with_origin, without_consequences
from engine.contract.profile.resolving import resolve, stage_ids
from engine.contract.profile.schema import Profile, keys
from engine.contract.profile.tables import Tables, leaves, to_tables

DEFAULT = "default"
"""The origin of a value that no file and no option gives."""
COMMAND_LINE = "--set"


@dataclass
class Draft:
    """The tables of a profile so far, for every key path in them where its value came from, and what is wrong.

    `path` is the file that messages name.
    """

    path: Path
    tables: Tables = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def copy(self) -> Draft:
        """A draft that can be changed without this one."""
        return Draft(self.path, deepcopy(self.tables), dict(self.origins), list(self.problems))

    def merge(self, tables: Tables, origin: str) -> None:
        """Put tables over those so far: values replace values, sections are merged key by key."""
        self._merge(self.tables, tables, origin, "")

    def _merge(self, base: Tables, new: Tables, origin: str, prefix: str) -> None:
        for key, value in new.items():
            path = f"{prefix}{key}"
            if isinstance(value, dict) and isinstance(base.get(key), dict):
                self._merge(base[key], value, origin, f"{path}.")
            else:
                self._forget_origins(path)
                base[key] = value
                self.origins.update((leaf, origin) for leaf, _ in leaves({key: value}, prefix))

    def _forget_origins(self, path: str) -> None:
        for key in [key for key in self.origins if key == path or key.startswith(f"{path}.")]:
            del self.origins[key]

    def override(self, key: str, value: Any, origin: str) -> None:
        """Set the value at a key path, in which a stage goes by its id or index."""
        parts = key.split(".")
        table, sections = self.tables, parts[:-1]
        if parts[0] == "stage" and len(parts) == 2:
            self.problems.append(f"{key}: names a whole stage; needed: one of its keys, such as {key}.epochs")
            return
        if parts[0] == "stage" and len(parts) > 2:
            index = _stage_index(self.tables.get("stage"), parts[1])
            if index is None:
                ids = ", ".join(stage_ids(self.tables.get("stage"))) or "none"
                self.problems.append(f"{key}: no stage {parts[1]!r}; allowed: an index from 0 or one of {ids}")
                return
            parts[1] = str(index)
            table, sections = self.tables["stage"][index], parts[2:-1]
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                self.problems.append(f"{key}: {section!r} is a value, not a section")
                return
        table[parts[-1]] = value
        self.origins[".".join(parts)] = origin

    def override_all(self, overrides: Sequence[str]) -> None:
        """Set values by texts KEY=VALUE as given to --set."""
        for override in overrides:
            key, separator, text = override.partition("=")
            if separator and key.strip():
                self.override(key.strip(), _parse_value(text.strip()), COMMAND_LINE)
            else:
                self.problems.append(f"--set {override}: needs the form KEY=VALUE, such as threat.eps=8/255")

    def build(self) -> Profile:
        """The resolved profile; raises ProfileError with everything that is wrong.

        What a preset fills in gets its origin here.
        """
        tables = self.tables
        if "preset" in tables:
            tables = deepcopy(tables)
            presets.fill(tables, self.origins)
        checked = check(tables, keys(), "", self.problems)
        profile = _convert(checked)
        if profile is not None:
            self.problems += without_consequences(resolve(profile), self.problems)
            if not self.problems:
                return profile
        elsewhere = {key: origin for key, origin in self.origins.items() if origin not in (str(self.path), DEFAULT)}
        problems = [printable(with_origin(problem, elsewhere)) for problem in self.problems]
        raise ProfileError(str(self.path), problems)

    def all_origins(self, profile: Profile) -> dict[str, str]:
        """Where each value of the profile that was built came from."""
        return {**{key: DEFAULT for key, _ in leaves(to_tables(profile))}, **self.origins}


def _convert(checked: Any) -> Profile | None:
    """The profile as far as its keys fit; None where too much is missing to look for conflicts between keys."""
    try:
        return msgspec.convert({"name": "unnamed", **checked}, Profile)
    except msgspec.ValidationError:
        return None


def _stage_index(stages: Any, name: str) -> int | None:
    ids = stage_ids(stages)
    if name in ids:
        return ids.index(name)
    return int(name) if name.isdecimal() and int(name) < len(ids) else None


def _parse_value(text: str) -> Any:
    """A value as TOML reads it; anything else is text, so that --set threat.eps=8/255 needs no quotes."""
    try:
        return tomli.loads(f"value = {text}")["value"] if "\n" not in text else text
    except (ValueError, RecursionError):
        return text
