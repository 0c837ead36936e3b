"""The profile of a run, to be run again with changes: what followed from its other values follows from the new ones."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from engine.contract.errors import ProfileError
from engine.contract.profile.draft import Draft
from engine.contract.profile.tables import Tables, to_tables

_FOLLOWING = ("warmup_epochs", "beta", "gamma", "adversary.attack", "adversary.step_size")
"""Keys of a stage whose values follow from those of others unless they are given."""


def reopened(resolved: Tables) -> Tables:
    """The tables of a resolved profile without the values that follow from its others.

    It names every value, and a step size for ten steps would stay when somebody asks for twenty.
    """
    bare = deepcopy(resolved)
    try:
        kept = _resolved(resolved)
        for stage in bare["stage"]:
            for key in _FOLLOWING:
                _remove(stage, key)
        derived = _resolved(bare)
    except ProfileError:
        return resolved  # edited by hand, or by another version; what is wrong is told elsewhere
    for stage, own, other in zip(bare["stage"], kept["stage"], derived["stage"], strict=True):
        for key in _FOLLOWING:
            value = _value(own, key)
            if value is not None and value != _value(other, key):
                _set(stage, key, value)
    return bare


def _resolved(tables: Tables) -> Tables:
    return to_tables(Draft(Path("profile"), tables).build())


def _value(stage: Tables, path: str) -> Any:
    section, _, key = path.rpartition(".")
    return (stage.get(section, {}) if section else stage).get(key)


def _remove(stage: Tables, path: str) -> None:
    section, _, key = path.rpartition(".")
    (stage.get(section, {}) if section else stage).pop(key, None)


def _set(stage: Tables, path: str, value: Any) -> None:
    section, _, key = path.rpartition(".")
    (stage.setdefault(section, {}) if section else stage)[key] = value
