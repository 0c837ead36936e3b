"""Writes docs/profile.md, the reference of profile keys, from the schema: `make schema`."""

from __future__ import annotations

from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from engine.contract.profile import schema
from engine.contract.profile.checking import describe

HEADER = """# Profile keys

Made from `engine/contract/schema.py` by `make schema`. Every key may be given in a profile, in the `[set]` table of a
profile that inherits, or on the command line as `--set KEY=VALUE`. `cafe profile NAME` shows all, with their values.

A table `[sweep]` makes a profile stand for several runs. Its keys are key paths, each with a list of values, and every
combination of them is a run. Tables `[[sweep.case]]` hold values that go together; every combination is run in every
case. `--set 'sweep.seed=[0,1,2]'` runs any profile with three seeds. `cafe run NAME --dry-run` lists the runs and says
what they will cost.

```toml
[sweep]
seed = [0, 1, 2]

[[sweep.case]]
"data.name" = "digits"
"threat.eps" = 0.15

[[sweep.case]]
"data.name" = "mnist5k"
"threat.eps" = 0.2
```
"""
SECTIONS: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("(top)", schema.Profile),
    ("[data]", schema.Data),
    ("[model]", schema.Model),
    ("[threat]", schema.Threat),
    ("[compute]", schema.Compute),
    ("[checkpoint]", schema.Checkpoint),
    *((f'[[stage]] kind = "{name}"', kind) for name, kind in schema.STAGES.items()),
    ("[stage.adversary]", schema.Adversary),
)


def reference() -> str:
    """The page."""
    parts = [HEADER]
    for title, section in SECTIONS:
        info = inspect.type_info(section)
        assert isinstance(info, inspect.StructType)
        parts += [f"## `{title}`", "", cleandoc(section.__doc__ or ""), ""]
        parts += ["| key | allowed | default | meaning |", "|:--|:--|:--|:--|"]
        parts += [_row(field) for field in info.fields if not _is_section(field.type)]
        parts.append("")
    return "\n".join(parts)


def _row(field: inspect.Field) -> str:
    allowed = describe(field.type).replace("|", "\\|")
    return f"| `{field.encode_name}` | {allowed} | {_default(field)} | {_meaning(field.type)} |"


def _is_section(kind: inspect.Type) -> bool:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.ListType):
        return _is_section(kind.item_type)
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return any(isinstance(option, inspect.StructType) for option in kinds)


def _meaning(kind: inspect.Type) -> str:
    while isinstance(kind, inspect.Metadata):
        if text := (kind.extra_json_schema or {}).get("description"):
            return str(text)
        kind = kind.type
    return ""


def _default(field: inspect.Field) -> str:
    value: Any = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is msgspec.NODEFAULT:
        return "needed"
    return "" if value is None else f"`{msgspec.json.encode(value).decode()}`"


if __name__ == "__main__":
    (Path(__file__).resolve().parent / "profile.md").write_text(reference(), encoding="utf-8")
