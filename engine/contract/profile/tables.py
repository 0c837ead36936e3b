"""Profiles as plain tables, as TOML and --set know them: tables in tables, values by key path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from engine.contract.profile.schema import Profile

Tables = dict[str, Any]


def to_tables(profile: Profile) -> Tables:
    """Plain tables of a profile, open (None) keys left out, as TOML has no null."""
    tables = _without_none(msgspec.to_builtins(profile))
    assert isinstance(tables, dict)
    return tables


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value


def leaves(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its key path; items of a list of tables by index (`stage.0.epochs`)."""
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            yield from leaves({str(i): item for i, item in enumerate(value)}, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
