"""Problems of a profile: sentences that begin with the key path they are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.contract.datasets import CHOICE, COUNTED

_DEPENDS_ON = {
    "threat.eps": ("threat.norm",),
    "threat.eps_l2": ("threat.norm",),
    "model.name": ("data.name",),
    **{f"data.{key}": ("data.name",) for key in ("path", "size", "flip", *CHOICE, *COUNTED)},
    "gamma": ("threat.norm", "threat.eps"),
    "resolution": ("data.name", "data.size", "model.name"),
}
"""Keys whose values fit or do not fit by those of others; keys of a stage without its path."""
_REFERENCES = ("id", "start", "base", "game", "models")
"""Keys of a stage that name stages."""


def key_of(problem: str) -> str:
    """The key path that a problem is about."""
    return problem.split(":", 1)[0]


def without_consequences(conflicts: Sequence[str], problems: Sequence[str]) -> list[str]:
    """The conflicts between keys that cannot come from one of the problems.

    A key whose value does not fit has its default meanwhile, with which others may not go together.
    """
    wrong = [key_of(problem) for problem in problems]
    return [conflict for conflict in conflicts if not _may_follow(key_of(conflict), wrong)]


def _may_follow(key: str, wrong: Sequence[str]) -> bool:
    """Whether a conflict at `key` may come from a key that is wrong itself."""
    parts = key.split(".")
    own, name = (".".join(parts[:3]), parts[2]) if parts[0] == "stage" else (key, key)
    if any(other == own or other.startswith(f"{own}.") for other in wrong):
        return True
    if name in _REFERENCES:
        return any(other.endswith(".id") for other in wrong)
    if name == "warmup_epochs":
        return f"stage.{parts[1]}.epochs" in wrong
    return any(other in wrong for other in _DEPENDS_ON.get(name, ()))


def with_origin(problem: str, origins: Mapping[str, str]) -> str:
    """The problem and, unless it is of --set, where the value of its key came from."""
    origin = origins.get(key_of(problem))
    return problem if origin in (None, "--set") else f"{problem} (from {origin})"


def printable(text: str) -> str:
    """Text of a file, safe on a terminal: control characters as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
