"""The profile of a run as flat settings, and where those of several runs differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from engine.contract.errors import CafeError
from engine.contract.run.rundir import RunDir

ASIDE: Final = ("name", "description")
"""Keys of a profile that change no result."""
SEED: Final = "seed"
NUMBERS_DEPEND_ON: Final = ("data.", "threat.")
"""Keys of a profile that say what an accuracy is measured on."""


@dataclass(frozen=True)
class Settings:
    """The resolved profile of a run by key path, its stages by their ids; `problem` says why it cannot be read.

    `tables` are stage, models and attacks of its tables, in order.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    tables: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = ()
    problem: str = ""

    @property
    def experiment(self) -> dict[str, Any]:
        """What runs must agree in to be repetitions of each other: everything but the seed, name and description."""
        return {key: value for key, value in self.values.items() if key not in (*ASIDE, SEED)}


def read_settings(run: RunDir) -> Settings:
    """The settings of a run, with the defaults of keys that its profile lacks."""
    from engine.contract.plan import columns
    from engine.contract.profile import files as profiles
    from engine.contract.profile.schema import Evaluate
    from engine.contract.profile.tables import leaves, to_tables

    try:
        profile = profiles.from_tables(profiles.read_toml(run.profile_file), "profile.toml")
    except CafeError as error:
        return Settings(problem=" ".join(error.message.split()))
    tables = to_tables(profile)
    stages = {stage["id"]: stage for stage in tables["stage"]}
    values = {"stages": list(stages), **dict(leaves({**tables, "stage": stages}))}
    values = {key: value for key, value in values.items() if not re.fullmatch(r"stage\.[^.]+\.id", key)}
    evaluations = [stage for stage in profile.stage if isinstance(stage, Evaluate)]
    return Settings(
        values,
        tuple(
            (str(stage.id), tuple(stage.models or ()), tuple(column.name for column in columns(profile, stage)))
            for stage in evaluations
        ),
    )


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that do not have the same value everywhere, in the order of the profiles."""
    keys = dict.fromkeys(key for values in settings for key in values)  # none where there are no settings
    return [key for key in keys if any(values.get(key) != settings[0].get(key) for values in settings)]


def value_text(value: Any) -> str:
    """A value of a profile in short, a dash where there is none."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    return ", ".join(map(value_text, value)) if isinstance(value, list | tuple) else str(value)
