"""Does a value fit its key? Every value of a profile against the types of the schema, every misfit at once."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import inspect

from engine.contract.profile.schema import FRACTION_PATTERN
from engine.contract.profile.tables import Tables

KEYS_OF_A_FILE = ("extends", "set", "sweep")
"""What a profile's file may hold beside the keys of the profile."""


def parse_fraction(text: str) -> float | None:
    """The value of a text like "8/255"; None if it is no fraction."""
    if not re.match(FRACTION_PATTERN, text):
        return None
    numerator, denominator = (float(part) for part in text.split("/"))
    return numerator / denominator if denominator else None


def check(value: Any, kind: inspect.Type, path: str, problems: list[str]) -> Any:
    """`value` with fractions turned into numbers; what does not fit is added to `problems` and becomes UNSET."""
    plain = _plain(kind)
    if isinstance(plain, inspect.StructType):
        return _check_section(value, plain, path, problems)
    if isinstance(plain, inspect.UnionType):
        return _check_stage(value, plain.types, path, problems)
    if isinstance(value, list):
        kinds = _kinds_of_items(value, plain)
        if kinds is not None:
            pairs = zip(value, kinds, strict=True)
            items = [check(item, of_item, f"{path}.{i}", problems) for i, (item, of_item) in enumerate(pairs)]
            return msgspec.UNSET if msgspec.UNSET in items else items
    if isinstance(value, str) and _annotated(kind, "fraction"):
        number = parse_fraction(value)
        value = value if number is None else number
    if _fits(value, plain):
        return value
    problems.append(f"{path}: found {show(value)}; allowed: {describe(kind)}{_hint(value, kind)}")
    return msgspec.UNSET


def _plain(kind: inspect.Type) -> inspect.Type:
    """The type of a key beneath its annotations and beside None."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    inner = _inner(kind)
    return kind if inner is None else _plain(inner)


def _annotated(kind: inspect.Type, name: str) -> Any:
    """What the outermost annotation of this name says of a key; None if there is none."""
    layer: inspect.Type | None = kind
    while layer is not None:
        if isinstance(layer, inspect.Metadata) and layer.extra and name in layer.extra:
            return layer.extra[name]
        layer = _inner(layer)
    return None


def _inner(kind: inspect.Type) -> inspect.Type | None:
    """What is annotated, or may also be None. The union of the kinds of stages holds no such type."""
    if isinstance(kind, inspect.Metadata):
        return kind.type
    if isinstance(kind, inspect.UnionType):
        options = [option for option in kind.types if not isinstance(option, inspect.NoneType)]
        return options[0] if len(options) == 1 else None
    return None


def _kinds_of_items(value: list[Any], kind: inspect.Type) -> Sequence[inspect.Type] | None:
    """The type of each item of a list; None for a key that takes no list, or none of this length."""
    if isinstance(kind, inspect.ListType) and len(value) >= (kind.min_length or 0):
        return [kind.item_type] * len(value)
    if isinstance(kind, inspect.TupleType) and len(value) == len(kind.item_types):
        return kind.item_types
    return None


def _hint(value: Any, kind: inspect.Type) -> str:
    """What somebody may have meant who wrote a value that does not fit."""
    plain = _plain(kind)
    if isinstance(value, str):
        known = _choices(plain) if isinstance(plain, inspect.LiteralType) else _annotated(kind, "known") or ()
        near = get_close_matches(value, known, 1, 0.5)
        return f"; did you mean {show(near[0])}?" if near else ""
    if isinstance(value, int) and not isinstance(value, bool) and _fits(str(value), plain):
        return f"; as text, in quotes: {show(str(value))}"
    return ""


def _check_section(value: Any, kind: inspect.StructType, path: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{path}: found {show(value)}; allowed: a section with keys")
        return msgspec.UNSET
    dot = f"{path}." if path else ""
    fields = {field.encode_name: field for field in kind.fields}
    checked: Tables = {}
    for key, item in value.items():
        if key in fields:
            checked[key] = check(item, fields[key].type, f"{dot}{key}", problems)
        elif key == kind.tag_field:
            checked[key] = item
        else:
            problems.append(f"{dot}{key}: unknown key; {_hint_for_key(key, kind, () if path else KEYS_OF_A_FILE)}")
    for name, field in fields.items():
        if field.required and name not in value:
            problems.append(f"{dot}{name}: missing; needed: {describe(field.type)}")
    return {key: item for key, item in checked.items() if item is not msgspec.UNSET}


def _hint_for_key(key: str, section: inspect.StructType, others: Sequence[str]) -> str:
    """The key that may have been meant, in the section or among others; else all keys of the section."""
    known = [field.encode_name for field in section.fields]
    known += [section.tag_field] if section.tag_field else []
    near = get_close_matches(key, [*known, *others], 1, 0.5)
    return f"did you mean `{near[0]}`?" if near else f"allowed: {', '.join(known)}"


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


def describe(kind: inspect.Type) -> str:
    """What a key allows, in words: "a whole number >= 1", "one of linf, l2"."""
    words, plain = _annotated(kind, "words"), _plain(kind)
    if words:
        return str(words)
    if isinstance(plain, inspect.LiteralType):
        choices = sorted(_choices(plain))
        return f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    if isinstance(plain, inspect.BoolType):
        return "true or false"
    if isinstance(plain, inspect.ListType):
        return f"a list with at least {plain.min_length} of: {describe(plain.item_type)}"
    if isinstance(plain, inspect.TupleType):
        return f"a list of {len(plain.item_types)}: {describe(plain.item_types[0])}"
    if isinstance(plain, inspect.StrType):
        return "text in quotes"
    if isinstance(plain, inspect.IntType | inspect.FloatType):
        return _describe_number(plain) + (', or a fraction such as "8/255"' if _annotated(kind, "fraction") else "")
    return "a section with keys"


def _choices(kind: inspect.LiteralType) -> list[str]:
    return [str(value) for value in kind.values]


def _describe_number(kind: inspect.IntType | inspect.FloatType) -> str:
    bounds = [(">", kind.gt), (">=", kind.ge), ("<", kind.lt), ("<=", kind.le)]
    limits = " and ".join(f"{sign} {_bound(bound)}" for sign, bound in bounds if bound is not None)
    number = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
    return f"{number} {limits}".strip()


def _bound(bound: float) -> str:
    return str(int(bound)) if float(bound).is_integer() else str(bound)


def show(value: Any) -> str:
    """A value as a profile writes it, cut to 60 characters."""
    if isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
