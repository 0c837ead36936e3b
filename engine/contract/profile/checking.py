"""Does a value fit its key? Every value of a profile against the types of the schema, every misfit told at once."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import inspect

from engine.contract.profile.schema import FRACTION_PATTERN

Tables = dict[str, Any]
KEYS_OF_A_FILE = ("extends", "set", "sweep")
"""What a profile's file may hold beside the keys of the profile."""


def parse_fraction(text: str) -> float | None:
    """The value of a text like "8/255"; None if it is no fraction."""
    if not re.match(FRACTION_PATTERN, text):
        return None
    numerator, denominator = (float(part) for part in text.split("/"))
    return numerator / denominator if denominator else None


def check(value: Any, kind: inspect.Type, path: str, problems: list[str], fraction: bool = False) -> Any:
    """`value` with fractions turned into numbers; what does not fit is told in `problems` and becomes UNSET."""
    whole = kind
    while isinstance(kind, inspect.Metadata):
        fraction = fraction or bool((kind.extra or {}).get("fraction"))
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        options = [option for option in kind.types if not isinstance(option, inspect.NoneType)]
        if all(isinstance(option, inspect.StructType) for option in options):
            return _check_stage(value, options, path, problems)
        return check(value, options[0], path, problems, fraction)
    if isinstance(kind, inspect.StructType):
        return _check_section(value, kind, path, problems)
    if isinstance(kind, inspect.ListType) and isinstance(value, list) and len(value) >= (kind.min_length or 0):
        return _whole(check(item, kind.item_type, f"{path}.{i}", problems) for i, item in enumerate(value))
    if isinstance(kind, inspect.TupleType) and isinstance(value, list) and len(value) == len(kind.item_types):
        return _whole(
            check(item, item_kind, f"{path}.{i}", problems)
            for i, (item, item_kind) in enumerate(zip(value, kind.item_types, strict=True))
        )
    if fraction and isinstance(value, str):
        value = parsed if (parsed := parse_fraction(value)) is not None else value
    if not _fits(value, kind):
        hint = ""
        if isinstance(value, str):
            near = get_close_matches(value, _choices(kind) or _known(whole), 1, 0.5)
            hint = f"; did you mean {show(near[0])}?" if near else ""
        elif isinstance(value, int) and not isinstance(value, bool) and _fits(str(value), kind):
            hint = f"; as text, in quotes: {show(str(value))}"
        problems.append(f"{path}: found {show(value)}; allowed: {describe(whole, fraction)}{hint}")
        return msgspec.UNSET
    return value


def _whole(items: Iterable[Any]) -> Any:
    """The list of checked items, or UNSET if one of them is."""
    checked = list(items)
    return msgspec.UNSET if msgspec.UNSET in checked else checked


def _check_section(value: Any, kind: inspect.StructType, path: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{path}: found {show(value)}; allowed: a section with keys")
        return msgspec.UNSET
    dot = f"{path}." if path else ""
    fields = {field.encode_name: field for field in kind.fields}
    known = [*fields, *([kind.tag_field] if kind.tag_field else [])]
    checked: Tables = {}
    for key, item in value.items():
        if key in fields:
            checked[key] = check(item, fields[key].type, f"{dot}{key}", problems)
        elif key == kind.tag_field:
            checked[key] = item
        else:
            near = get_close_matches(key, [*known, *(KEYS_OF_A_FILE if not path else ())], 1, 0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"allowed: {', '.join(known)}"
            problems.append(f"{dot}{key}: unknown key; {hint}")
    for name, field in fields.items():
        if field.required and name not in value:
            problems.append(f"{dot}{name}: missing; needed: {describe(field.type)}")
    return {key: item for key, item in checked.items() if item is not msgspec.UNSET}


def _check_stage(value: Any, options: Sequence[inspect.Type], path: str, problems: list[str]) -> Any:
    kinds = {str(option.tag): option for option in options if isinstance(option, inspect.StructType)}
    if not isinstance(value, dict):
        problems.append(f"{path}: found {show(value)}; allowed: a table with `kind`, written under [[stage]]")
        return msgspec.UNSET
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        near = get_close_matches(str(kind), list(kinds), 1, 0.5)
        hint = f"; did you mean {show(near[0])}?" if near else ""
        found = f"found {show(kind)}" if "kind" in value else "missing"
        problems.append(f"{path}.kind: {found}; allowed: {', '.join(kinds)}{hint}")
        return msgspec.UNSET
    return _check_section(value, kinds[kind], path, problems)


def _fits(value: Any, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.BoolType):
        return isinstance(value, bool)
    if isinstance(kind, inspect.LiteralType):
        return value in kind.values
    if isinstance(kind, inspect.StrType):
        return isinstance(value, str) and _is_text(value) and re.fullmatch(kind.pattern or "(?s:.*)", value) is not None
    if isinstance(kind, inspect.IntType):
        return isinstance(value, int) and not isinstance(value, bool) and _in_range(value, kind)
    if isinstance(kind, inspect.FloatType):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) <= sys.float_info.max and _in_range(value, kind)
    return False


def _is_text(value: str) -> bool:
    """Whether the text can be written as UTF-8; an argument of the command line may hold foreign bytes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_range(value: float, kind: inspect.IntType | inspect.FloatType) -> bool:
    return (
        (kind.gt is None or value > kind.gt)
        and (kind.ge is None or value >= kind.ge)
        and (kind.lt is None or value < kind.lt)
        and (kind.le is None or value <= kind.le)
    )


def _choices(kind: inspect.Type) -> list[str]:
    return [str(value) for value in kind.values] if isinstance(kind, inspect.LiteralType) else []


def _known(kind: inspect.Type) -> Sequence[str]:
    """The words that a text key knows, if it takes others as well."""
    while isinstance(kind, inspect.Metadata):
        if known := (kind.extra or {}).get("known"):
            return tuple(known)
        kind = kind.type
    return ()


def describe(kind: inspect.Type, fraction: bool = False) -> str:
    """What a key allows, in words: "a whole number >= 1", "one of linf, l2"."""
    while isinstance(kind, inspect.Metadata):
        if told := (kind.extra or {}).get("words"):
            return str(told)
        fraction = fraction or bool((kind.extra or {}).get("fraction"))
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        return describe(next(option for option in kind.types if not isinstance(option, inspect.NoneType)), fraction)
    if isinstance(kind, inspect.LiteralType):
        return f"one of {', '.join(sorted(_choices(kind)))}" if len(kind.values) > 1 else _choices(kind)[0]
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.ListType):
        return f"a list with at least {kind.min_length} of: {describe(kind.item_type)}"
    if isinstance(kind, inspect.TupleType):
        return f"a list of {len(kind.item_types)}: {describe(kind.item_types[0])}"
    if isinstance(kind, inspect.StrType):
        return "text in quotes"
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        bounds = [(">", kind.gt), (">=", kind.ge), ("<", kind.lt), ("<=", kind.le)]
        limits = " and ".join(f"{sign} {_plain(bound)}" for sign, bound in bounds if bound is not None)
        number = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
        return f"{number} {limits}".strip() + (', or a fraction such as "8/255"' if fraction else "")
    return "a section with keys"


def _plain(bound: float) -> str:
    return str(int(bound)) if float(bound).is_integer() else str(bound)


def show(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
