"""Does a value fit its key? Every value of a profile against the types of the schema, every misfit at once."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Allowed:
    """What a key takes: a type without annotations and without None, and what the annotations say of it."""

    kind: inspect.Type
    fraction: bool
    """Whether a fraction in quotes stands for a number."""
    words: str
    """That describe the values, where the type does not."""
    known: Sequence[str]
    """Texts among others that it takes."""

    @property
    def texts(self) -> Sequence[str]:
        """The texts that it takes, as far as they are known: a typo may have meant one."""
        return [str(value) for value in self.kind.values] if isinstance(self.kind, inspect.LiteralType) else self.known


def _allowed(kind: inspect.Type) -> _Allowed:
    fraction, words, known = False, "", ()
    while isinstance(kind, inspect.Metadata) or _is_optional(kind):
        if isinstance(kind, inspect.Metadata):
            extra = kind.extra or {}
            fraction = fraction or bool(extra.get("fraction"))
            words = words or extra.get("words", "")
            known = known or extra.get("known", ())
            kind = kind.type
        elif isinstance(kind, inspect.UnionType):
            kind = next(option for option in kind.types if not isinstance(option, inspect.NoneType))
    return _Allowed(kind, fraction, words, known)


def _is_optional(kind: inspect.Type) -> bool:
    """Whether it is one type or None; the kinds of stages are several types."""
    return isinstance(kind, inspect.UnionType) and any(isinstance(option, inspect.NoneType) for option in kind.types)


def check(value: Any, kind: inspect.Type, path: str, problems: list[str]) -> Any:
    """`value` with fractions turned into numbers; what does not fit is added to `problems` and becomes UNSET."""
    allowed = _allowed(kind)
    if isinstance(allowed.kind, inspect.UnionType):
        return _check_stage(value, allowed.kind.types, path, problems)
    if isinstance(allowed.kind, inspect.StructType):
        return _check_section(value, allowed.kind, path, problems)
    kinds = _kinds_of_items(value, allowed.kind)
    if kinds is not None:
        pairs = zip(value, kinds, strict=True)
        items = [check(item, of_item, f"{path}.{i}", problems) for i, (item, of_item) in enumerate(pairs)]
        return msgspec.UNSET if msgspec.UNSET in items else items
    return _check_value(value, allowed, path, problems)


def _kinds_of_items(value: Any, kind: inspect.Type) -> Sequence[inspect.Type] | None:
    """The type of each item of a list; None for what is no list, or none of an allowed length."""
    if not isinstance(value, list):
        return None
    if isinstance(kind, inspect.ListType) and len(value) >= (kind.min_length or 0):
        return [kind.item_type] * len(value)
    if isinstance(kind, inspect.TupleType) and len(value) == len(kind.item_types):
        return kind.item_types
    return None


def _check_value(value: Any, allowed: _Allowed, path: str, problems: list[str]) -> Any:
    if allowed.fraction and isinstance(value, str):
        number = parse_fraction(value)
        value = value if number is None else number
    if _fits(value, allowed.kind):
        return value
    problems.append(f"{path}: found {show(value)}; allowed: {_describe(allowed)}{_hint(value, allowed)}")
    return msgspec.UNSET


def _hint(value: Any, allowed: _Allowed) -> str:
    """What somebody may have meant who wrote a value that does not fit."""
    if isinstance(value, str):
        near = get_close_matches(value, allowed.texts, 1, 0.5)
        return f"; did you mean {show(near[0])}?" if near else ""
    if isinstance(value, int) and not isinstance(value, bool) and _fits(str(value), allowed.kind):
        return f"; as text, in quotes: {show(str(value))}"
    return ""


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
            hint = _hint_for_key(key, known, () if path else KEYS_OF_A_FILE)
            problems.append(f"{dot}{key}: unknown key; {hint}")
    for name, field in fields.items():
        if field.required and name not in value:
            problems.append(f"{dot}{name}: missing; needed: {describe(field.type)}")
    return {key: item for key, item in checked.items() if item is not msgspec.UNSET}


def _hint_for_key(key: str, known: Sequence[str], others: Sequence[str]) -> str:
    """The key that may have been meant, or all those that are known."""
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
    return _describe(_allowed(kind))


def _describe(allowed: _Allowed) -> str:
    kind = allowed.kind
    if allowed.words:
        return allowed.words
    if isinstance(kind, inspect.LiteralType):
        return f"one of {', '.join(sorted(allowed.texts))}" if len(allowed.texts) > 1 else allowed.texts[0]
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.ListType):
        return f"a list with at least {kind.min_length} of: {describe(kind.item_type)}"
    if isinstance(kind, inspect.TupleType):
        return f"a list of {len(kind.item_types)}: {describe(kind.item_types[0])}"
    if isinstance(kind, inspect.StrType):
        return "text in quotes"
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        return _describe_number(kind) + (', or a fraction such as "8/255"' if allowed.fraction else "")
    return "a section with keys"


def _describe_number(kind: inspect.IntType | inspect.FloatType) -> str:
    bounds = [(">", kind.gt), (">=", kind.ge), ("<", kind.lt), ("<=", kind.le)]
    limits = " and ".join(f"{sign} {_plain(bound)}" for sign, bound in bounds if bound is not None)
    number = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
    return f"{number} {limits}".strip()


def _plain(bound: float) -> str:
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
