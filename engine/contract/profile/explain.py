"""Where each value of a profile comes from: a file, a preset, a sweep, --set, or a default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import tomli_w

from engine.contract.profile.files import Loaded
from engine.contract.profile.tables import Tables, to_tables


def explain(loaded: Loaded) -> list[tuple[str, str]]:
    """The profile as lines of TOML, each with where its value comes from ("" for headers and blank lines)."""
    tables = to_tables(loaded.profile)
    stages = tables.pop("stage")
    entries = list(_entries(tables, "", "", loaded.origins))
    for i, stage in enumerate(stages):
        entries += _entries(stage, "[[stage]]", f"stage.{i}.", loaded.origins)
    return [(line, origin) for text, origin in entries for line in text.split("\n")]


def _entries(tables: Tables, header: str, path: str, origins: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """A section and those in it: each header and each key as TOML, which may be several lines, with its origin."""
    if header:
        yield "", ""
        yield header, ""
    for key, value in tables.items():
        if not isinstance(value, dict):
            yield tomli_w.dumps({key: value}, indent=2).strip(), origins.get(f"{path}{key}", "")
    name = header.strip("[]")
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from _entries(value, f"[{name}.{key}]" if name else f"[{key}]", f"{path}{key}.", origins)
