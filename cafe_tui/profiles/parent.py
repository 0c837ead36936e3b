"""The resolved profile of a run, beside that of the profile it was started from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cafe_tui.profiles import forms
from engine.contract.errors import CafeError
from engine.contract.profile import files as profiles
from engine.contract.profile.files import Loaded


@dataclass(frozen=True)
class ResolvedKey:
    """A key of a profile in its group; `parent` is the value there where it differs, else None."""

    group: str
    key: str
    text: str
    parent: str | None = None


@dataclass(frozen=True)
class Resolved:
    """All keys of a run's profile; `remark` says what they are compared with, or why they cannot be shown."""

    keys: tuple[ResolvedKey, ...]
    remark: str


def resolved(file: Path, reference: str) -> Resolved:
    """What a run was asked to do by the profile in its `file`, and where that differs from its parent as that is now.

    `reference` names the parent, the profile that the run was started from; empty when it is not known.
    """
    try:
        loaded = profiles.load(str(file))
    except CafeError as error:
        return Resolved((), str(error))
    changed: dict[str, str] = {}
    remark = "started from a profile that is not known"
    if reference:
        try:
            parent = _as_now(reference, loaded.profile.name)
            changed = {key: old for key, old, _ in forms.differences(parent, loaded)}
            count = f"{len(changed)} key{'s' * (len(changed) != 1)}"
            remark = f"{count} differ{'s' * (len(changed) == 1)} from {reference}" if changed else f"as in {reference}"
        except CafeError:
            remark = f"{reference}, which it was started from, cannot be read here"
    keys = tuple(
        ResolvedKey(field.group, field.key, field.text or "-", changed.get(field.key))
        for field in forms.fields(loaded.profile)
    )
    return Resolved(keys, remark)


def _as_now(reference: str, name: str) -> Loaded:
    """The profile that a command names, or that of its runs which has this name if it is a sweep. Raises UsageError."""
    sweep = profiles.load_sweep(reference)
    points = sweep.points if sweep else []
    return next((point for point in points if point.profile.name == name), None) or profiles.load(reference)
