"""Writes docs/profile.md, the reference of profile keys, from the schema, and the tables of names in README.md from the
catalogue: `make schema`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from engine.contract.profile import schema
from engine.contract.profile.catalogue import (
    ATTACK_NAMES,
    ATTACKS,
    DATA_FORMS,
    DATA_SETS,
    DEFENCES,
    ENSEMBLES,
    HUB,
    L2,
    MODELS,
)
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


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Of Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _attacks() -> str:
    defaults = schema.Evaluate()
    rows = [
        (_both(name), attack.about, ", ".join(f"`{key}` = {getattr(defaults, key)}" for key in attack.keys))
        for name, attack in ATTACKS.items()
    ]
    for name, ensemble in ENSEMBLES.items():
        budget = f"those of its parts, `eot` = {defaults.eot}" if ensemble.averaged else "those of its parts"
        rows.append((_both(name), f"{ensemble.about}: {', '.join(ensemble.parts)} in turn on what is left", budget))
    return table(("attack", "what it is", "budget by default"), rows)


def _both(name: str) -> str:
    """The name of an attack, and that in an L2 ball if it has one."""
    return " ".join(f"`{one}`" for one in (name, name + L2) if one in ATTACK_NAMES)


def _defences() -> str:
    rows = [
        (f"`{name}`", defence.about, "" if defence.beta is None else f"{defence.beta:g}")
        for name, defence in DEFENCES.items()
    ]
    return table(("defence", "what it minimises", "`beta` by default"), rows)


def _models() -> str:
    rows = [
        (f"`{name}`", model.about, f"{model.smallest}x{model.smallest}", ", ".join(f"`{o}`" for o in model.options))
        for name, model in MODELS.items()
    ]
    return table(("`[model] name`", "what it is", "images of at least", "options"), rows)


def _data() -> str:
    rows = [(f"`{name}`", row.about, row.how) for name, row in DATA_SETS.items()]
    rows += [(f"`{form}`", HUB.about, HUB.how) for form in DATA_FORMS]
    return table(("`[data] name`", "what it is", "source"), rows)


TABLES = {"attacks": _attacks, "defences": _defences, "models": _models, "data": _data}


def readme(text: str) -> str:
    """A page with what lies between `<!-- KIND: made by make schema -->` and `<!-- end of KIND -->` made anew.

    Raises ValueError where a table has no place.
    """
    for kind, made in TABLES.items():
        begin, end = f"<!-- {kind}: made by make schema -->\n", f"\n<!-- end of {kind} -->"
        before, start, rest = text.partition(begin)
        _, stop, after = rest.partition(end)
        if not start or not stop:
            raise ValueError(f"there is no place for the table of {kind}")
        text = before + begin + made() + end + after
    return text


if __name__ == "__main__":
    docs = Path(__file__).resolve().parent
    (docs / "profile.md").write_text(reference(), encoding="utf-8")
    front = docs.parent / "README.md"
    front.write_text(readme(front.read_text(encoding="utf-8")), encoding="utf-8")
