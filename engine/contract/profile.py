"""Profiles: find, read, inherit, override, check whole, resolve, write.

    file --tomli--> tables --extends, [set], --set--> one table --check--> Profile --resolve--> complete Profile

Every problem of a profile is reported at once, in the words of the file. A resolved profile has no open default: run
again, it repeats the run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import tomli
import tomli_w
from msgspec import inspect

from engine.contract import schema
from engine.contract.catalogue import DATA_FACTS, SMALLEST_IMAGE
from engine.contract.errors import ProfileError, UsageError
from engine.contract.schema import (
    FRACTION_PATTERN,
    Adversary,
    Evaluate,
    Game,
    Inoculate,
    Profile,
    Stage,
    Train,
)

Tables = dict[str, Any]
KEYS_OF_A_FILE = ("extends", "set")
DEFAULT = "default"


@dataclass(frozen=True)
class Loaded:
    """A resolved profile, the file it came from, and for every key path where its value came from."""

    profile: Profile
    path: Path
    origins: dict[str, str]


@dataclass(frozen=True)
class Entry:
    """A profile that can be named: shipped with the program or local to the working directory."""

    name: str
    path: Path
    shipped: bool
    description: str


# --- finding ---------------------------------------------------------------------------------------------------------


def shipped_folder() -> Path:
    """Where the profiles of the distribution are: beside the packages in a checkout, inside them when installed."""
    engine = Path(__file__).resolve().parents[1]
    installed = engine / "profiles"
    return installed if installed.is_dir() else engine.parent / "profiles"


def search_folders() -> list[Path]:
    """Folders in which a bare profile name is looked up, first match wins."""
    return [Path.cwd(), Path.cwd() / "profiles", shipped_folder()]


def find(name: str, beside: Path | None = None) -> Path:
    """The file of a profile given by name or path; raises UsageError with the nearest names otherwise."""
    folders = [*([beside] if beside else []), *search_folders()]
    candidates = [
        *([beside / name] if beside else []),
        Path(name),
        *(folder / f"{name}.toml" for folder in folders),
        *(folder / name for folder in folders),
    ]
    for candidate in candidates:
        if candidate.suffix == ".toml" and _is_file(candidate):
            return candidate
    shown = _printable(name)
    if name.endswith(".toml") or "/" in name:
        raise UsageError(f"profile file not found: {shown}", "`cafe profiles` lists the profiles that have a name.")
    known = [entry.name for entry in available()]
    near = get_close_matches(name, known, 1, 0.5)
    hint = f"Did you mean `{near[0]}`? " if near else ""
    raise UsageError(
        f"unknown profile: {shown}",
        f"{hint}Known: {', '.join(known)}. A file needs its path, such as ./{shown}.toml.",
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long, a folder that cannot be searched
        return False


def available() -> list[Entry]:
    """All profiles that can be named, shipped ones last, each name once (the one `find` would take)."""
    entries: dict[str, Entry] = {}
    shipped = shipped_folder()
    for folder in search_folders():
        pattern = "*.toml" if folder == Path.cwd() else "**/*.toml"
        for path in sorted(folder.glob(pattern)) if folder.is_dir() else []:
            name = path.relative_to(folder).with_suffix("").as_posix()
            try:
                tables = read_toml(path)
            except UsageError:
                continue
            if name not in entries and ("stage" in tables or "extends" in tables):
                description = str(tables.get("description", ""))
                entries[name] = Entry(name, path, folder.resolve() == shipped.resolve(), description)
    return list(entries.values())


# --- reading and merging ---------------------------------------------------------------------------------------------


def read_toml(path: Path) -> Tables:
    """The tables of a TOML file; a mistake is reported with file, line and column."""
    try:
        return tomli.loads(path.read_bytes().decode("utf-8"))
    except tomli.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, hundreds of nested brackets
        raise UsageError(f"{path}: not readable as TOML: {error}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def load(name: str, overrides: Sequence[str] = ()) -> Loaded:
    """Read, inherit, override, check and resolve the profile called `name`.

    `overrides` are KEY=VALUE texts as given to --set. Raises UsageError when a file cannot be read and ProfileError
    with every problem found otherwise.
    """
    path = find(name)
    origins: dict[str, str] = {}
    problems: list[str] = []
    tables = _inherit(path, origins, problems, seen=())
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            problems.append(f"--set {override}: needs the form KEY=VALUE, such as threat.eps=8/255")
        else:
            _override(tables, key.strip(), _parse_value(text.strip()), "--set", origins, problems)
    profile = _build(tables, origins, problems, path)
    return Loaded(profile, path, {**{key: DEFAULT for key, _ in leaves(to_tables(profile))}, **origins})


def from_tables(tables: Tables, source: str = "profile") -> Profile:
    """Check and resolve a profile that is already in memory."""
    return _build(tables, {}, [], Path(source))


def _build(tables: Tables, origins: Mapping[str, str], problems: list[str], path: Path) -> Profile:
    where = {key: origin for key, origin in origins.items() if origin not in (str(path), DEFAULT)}
    checked = _check(tables, inspect.type_info(Profile), "", problems)
    told = [_key(problem) for problem in problems]
    profile = _convert(checked)
    if profile is not None:
        problems += [problem for problem in _resolve(profile) if not _may_follow(_key(problem), told)]
        if not problems:
            return profile
    raise ProfileError(str(path), [_printable(_with_origin(problem, where)) for problem in problems])


def _convert(checked: Any) -> Profile | None:
    """The profile as far as its keys fit; None where too much is missing to look for conflicts between keys."""
    try:
        return msgspec.convert({"name": "unnamed", **checked}, Profile)
    except msgspec.ValidationError:
        return None


_DEPENDS_ON = {
    "threat.eps": ("threat.norm",),
    "threat.eps_l2": ("threat.norm",),
    "model.name": ("data.name",),
    "gamma": ("threat.norm", "threat.eps"),
}


def _may_follow(key: str, told: Sequence[str]) -> bool:
    """Whether a conflict found at `key` may come from a mistake already told, whose key has its default meanwhile."""
    parts = key.split(".")
    own, name = (".".join(parts[:3]), parts[2]) if parts[0] == "stage" else (key, key)
    if any(other == own or other.startswith(f"{own}.") for other in told):
        return True
    if name in ("id", "start", "base", "game", "models"):
        return any(other.endswith(".id") for other in told)
    if name == "warmup_epochs":
        return f"stage.{parts[1]}.epochs" in told
    return any(other in told for other in _DEPENDS_ON.get(name, ()))


def _key(problem: str) -> str:
    return problem.split(":", 1)[0]


def _printable(text: str) -> str:
    """Text of a file, safe on a terminal: control characters as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _with_origin(problem: str, origins: Mapping[str, str]) -> str:
    key = _key(problem)
    return f"{problem} (from {origins[key]})" if key in origins and origins[key] != "--set" else problem


def _inherit(path: Path, origins: dict[str, str], problems: list[str], seen: tuple[Path, ...]) -> Tables:
    if path.resolve() in seen:
        raise UsageError(f"{path}: `extends` goes round in a circle: {' -> '.join(p.name for p in (*seen, path))}")
    own = read_toml(path)
    parent = own.pop("extends", None)
    changes = own.pop("set", {})
    tables: Tables = {}
    if isinstance(parent, str):
        tables = _inherit(find(parent, beside=path.parent), origins, problems, (*seen, path.resolve()))
    elif parent is not None:
        problems.append(f"extends: found {_show(parent)}; allowed: the name or path of one profile, in quotes")
    _merge(tables, own, str(path), origins)
    if not isinstance(changes, dict):
        problems.append(f'set: found {_show(changes)}; allowed: a table such as {{ "stage.train.epochs" = 3 }}')
        changes = {}
    for key, value in changes.items():
        if isinstance(value, dict):
            problems.append(f'set.{key}: write the whole key path in quotes, such as "stage.train.epochs" = 3')
        else:
            _override(tables, key, value, str(path), origins, problems)
    return tables


def _merge(base: Tables, new: Tables, source: str, origins: dict[str, str], prefix: str = "") -> None:
    for key, value in new.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value, source, origins, f"{path}.")
        else:
            for old in [old for old in origins if old == path or old.startswith(f"{path}.")]:
                del origins[old]
            base[key] = value
            origins.update((leaf, source) for leaf, _ in leaves({key: value}, prefix))


def leaves(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its key path; items of a list of tables by index (`stage.0.epochs`)."""
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            yield from leaves({str(i): item for i, item in enumerate(value)}, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _parse_value(text: str) -> Any:
    """A value as TOML reads it; anything else is text, so that --set threat.eps=8/255 needs no quotes."""
    try:
        return tomli.loads(f"value = {text}")["value"] if "\n" not in text else text
    except (ValueError, RecursionError):
        return text


def _override(tables: Tables, key: str, value: Any, source: str, origins: dict[str, str], problems: list[str]) -> None:
    parts = key.split(".")
    if parts[0] == "stage" and len(parts) == 2:
        problems.append(f"{key}: names a whole stage; needed: one of its keys, such as {key}.epochs")
        return
    if parts[0] == "stage" and len(parts) > 2:
        index = _stage_index(tables.get("stage"), parts[1])
        if index is None:
            ids = ", ".join(_stage_ids(tables.get("stage"))) or "none"
            problems.append(f"{key}: no stage {parts[1]!r}; allowed: an index from 0 or one of {ids}")
            return
        parts[1] = str(index)
        table: Any = tables["stage"][index]
        rest = parts[2:]
    else:
        table, rest = tables, parts
    for part in rest[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            problems.append(f"{key}: {part!r} is a value, not a section")
            return
    table[rest[-1]] = value
    origins[".".join(parts)] = source


def _stage_ids(stages: Any) -> list[str]:
    """Ids of raw stage tables: their own, or the kind, numbered from its second use."""
    ids: list[str] = []
    taken: set[str] = set()
    for stage in stages if isinstance(stages, list) else []:
        own = stage.get("id") if isinstance(stage, dict) else None
        kind = stage.get("kind") if isinstance(stage, dict) else None
        ids.append(str(own) if own is not None else _free_id(str(kind), taken))
        taken.add(ids[-1])
    return ids


def _free_id(kind: str, taken: Set[str]) -> str:
    return kind if kind not in taken else next(f"{kind}-{n}" for n in count(2) if f"{kind}-{n}" not in taken)


def _stage_index(stages: Any, name: str) -> int | None:
    ids = _stage_ids(stages)
    if name in ids:
        return ids.index(name)
    return int(name) if name.isdecimal() and int(name) < len(ids) else None


# --- checking --------------------------------------------------------------------------------------------------------


def parse_fraction(text: str) -> float | None:
    """The value of a text like "8/255"; None if it is no fraction."""
    if not re.match(FRACTION_PATTERN, text):
        return None
    numerator, denominator = (float(part) for part in text.split("/"))
    return numerator / denominator if denominator else None


def _check(value: Any, kind: inspect.Type, path: str, problems: list[str], fraction: bool = False) -> Any:
    """`value` with fractions turned into numbers; what does not fit is told in `problems` and becomes UNSET."""
    while isinstance(kind, inspect.Metadata):
        fraction = fraction or bool((kind.extra or {}).get("fraction"))
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        options = [option for option in kind.types if not isinstance(option, inspect.NoneType)]
        if all(isinstance(option, inspect.StructType) for option in options):
            return _check_stage(value, options, path, problems)
        return _check(value, options[0], path, problems, fraction)
    if isinstance(kind, inspect.StructType):
        return _check_section(value, kind, path, problems)
    if isinstance(kind, inspect.ListType) and isinstance(value, list) and len(value) >= (kind.min_length or 0):
        return _whole(_check(item, kind.item_type, f"{path}.{i}", problems) for i, item in enumerate(value))
    if isinstance(kind, inspect.TupleType) and isinstance(value, list) and len(value) == len(kind.item_types):
        return _whole(
            _check(item, item_kind, f"{path}.{i}", problems)
            for i, (item, item_kind) in enumerate(zip(value, kind.item_types, strict=True))
        )
    if fraction and isinstance(value, str):
        value = parsed if (parsed := parse_fraction(value)) is not None else value
    if not _fits(value, kind):
        near = get_close_matches(str(value), _choices(kind), 1, 0.5) if isinstance(value, str) else []
        hint = f"; did you mean {_show(near[0])}?" if near else ""
        problems.append(f"{path}: found {_show(value)}; allowed: {describe(kind, fraction)}{hint}")
        return msgspec.UNSET
    return value


def _whole(items: Iterable[Any]) -> Any:
    """The list of checked items, or UNSET if one of them is."""
    checked = list(items)
    return msgspec.UNSET if msgspec.UNSET in checked else checked


def _check_section(value: Any, kind: inspect.StructType, path: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{path}: found {_show(value)}; allowed: a section with keys")
        return msgspec.UNSET
    dot = f"{path}." if path else ""
    fields = {field.encode_name: field for field in kind.fields}
    known = [*fields, *([kind.tag_field] if kind.tag_field else [])]
    checked: Tables = {}
    for key, item in value.items():
        if key in fields:
            checked[key] = _check(item, fields[key].type, f"{dot}{key}", problems)
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
        problems.append(f"{path}: found {_show(value)}; allowed: a table with `kind`, written under [[stage]]")
        return msgspec.UNSET
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        near = get_close_matches(str(kind), list(kinds), 1, 0.5)
        hint = f"; did you mean {_show(near[0])}?" if near else ""
        found = f"found {_show(kind)}" if "kind" in value else "missing"
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


def _bare(kind: inspect.Type) -> inspect.Type:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        return _bare(next(option for option in kind.types if not isinstance(option, inspect.NoneType)))
    return kind


def _choices(kind: inspect.Type) -> list[str]:
    return [str(value) for value in kind.values] if isinstance(kind, inspect.LiteralType) else []


def describe(kind: inspect.Type, fraction: bool = False) -> str:
    """What a key allows, in words: "a whole number >= 1", "one of linf, l2"."""
    while isinstance(kind, inspect.Metadata):
        fraction = fraction or bool((kind.extra or {}).get("fraction"))
        kind = kind.type
    kind = _bare(kind)
    if isinstance(kind, inspect.LiteralType):
        return f"one of {', '.join(sorted(_choices(kind)))}" if len(kind.values) > 1 else _choices(kind)[0]
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.ListType):
        return f"a list with at least {kind.min_length} of: {describe(kind.item_type)}"
    if isinstance(kind, inspect.TupleType):
        return f"a list of {len(kind.item_types)}: {describe(kind.item_types[0])}"
    if isinstance(kind, inspect.StrType):
        return f"text matching {kind.pattern}" if kind.pattern else "text in quotes"
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        bounds = [(">", kind.gt), (">=", kind.ge), ("<", kind.lt), ("<=", kind.le)]
        limits = " and ".join(f"{sign} {_plain(bound)}" for sign, bound in bounds if bound is not None)
        number = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
        return f"{number} {limits}".strip() + (', or a fraction such as "8/255"' if fraction else "")
    return "a section with keys"


def _plain(bound: float) -> str:
    return str(int(bound)) if float(bound).is_integer() else str(bound)


def _show(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- resolving -------------------------------------------------------------------------------------------------------


def _resolve(profile: Profile) -> list[str]:
    """Fill, in place, the defaults that depend on other keys; the result tells what cannot work together."""
    problems: list[str] = []
    ids = _stage_ids([{"id": stage.id, "kind": kind_of(stage)} for stage in profile.stage])
    for i, (stage, stage_id) in enumerate(zip(profile.stage, ids, strict=True)):
        if stage_id in ids[:i]:
            problems.append(f'stage.{i}.id: "{stage_id}" is taken by stage {ids.index(stage_id)}; ids must differ')
        stage.id = stage_id
    problems += _resolve_threat(profile)
    for i, stage in enumerate(profile.stage):
        earlier = profile.stage[:i]
        if isinstance(stage, Train):
            problems += _resolve_training(stage, f"stage.{i}", rise=1 / 6)
            if stage.start is not None:
                problems += _refer(f"stage.{i}.start", stage.start, earlier, (Train, Inoculate), "trains a network")
        elif isinstance(stage, Game):
            _resolve_adversary(stage.adversary)
            stage.base = stage.base or _latest(earlier, Train)
            problems += _refer(f"stage.{i}.base", stage.base, earlier, (Train, Inoculate), "trains a network")
        elif isinstance(stage, Inoculate):
            problems += _resolve_training(stage, f"stage.{i}", rise=1 / 2)
            problems += _resolve_inoculation(stage, f"stage.{i}", earlier, profile)
        else:
            problems += _resolve_evaluation(stage, f"stage.{i}", earlier, profile)
    return problems


def _resolve_threat(profile: Profile) -> list[str]:
    problems: list[str] = []
    if profile.threat.norm == "linf" and profile.threat.eps > 1:
        problems.append(f"threat.eps: found {profile.threat.eps}; allowed: at most 1 for linf, images lie in [0,1]")
    facts = DATA_FACTS[profile.data.name]
    needed = SMALLEST_IMAGE.get(profile.model.name, 8)
    if facts.size < needed:
        problems.append(
            f"model.name: {profile.model.name} needs images of at least {needed}x{needed}; "
            f"{profile.data.name} has {facts.size}x{facts.size}; `small` fits"
        )
    return problems


def _resolve_adversary(adversary: Adversary) -> None:
    if adversary.step_size is None:
        adversary.step_size = 2.3 / adversary.steps if adversary.attack == "pgd" else 1.25


def _resolve_training(stage: Train | Inoculate, path: str, rise: float) -> list[str]:
    _resolve_adversary(stage.adversary)
    if stage.warmup_epochs is None:
        stage.warmup_epochs = stage.epochs * rise
    if stage.warmup_epochs > stage.epochs:
        return [f"{path}.warmup_epochs: found {stage.warmup_epochs}; allowed: at most epochs = {stage.epochs}"]
    return []


def _resolve_inoculation(stage: Inoculate, path: str, earlier: Sequence[Stage], profile: Profile) -> list[str]:
    problems: list[str] = []
    stage.game = stage.game or _latest(earlier, Game)
    problems += _refer(f"{path}.game", stage.game, earlier, (Game,), "plays the game")
    if stage.start is not None:
        problems += _refer(f"{path}.start", stage.start, earlier, (Train, Inoculate), "trains a network")
    else:  # the base of the game has been checked there
        stage.start = next((game.base for game in earlier if isinstance(game, Game) and game.id == stage.game), None)
    if stage.gamma is None and profile.threat.norm == "linf":
        stage.gamma = profile.threat.eps / 4
    if stage.gamma is None:
        problems.append(f"{path}.gamma: missing; needed: the Linf radius of the inversion, as threat.norm is l2")
    elif stage.gamma > 1:
        problems.append(f"{path}.gamma: found {stage.gamma}; allowed: at most 1, images lie in [0,1]")
    return problems


def _resolve_evaluation(stage: Evaluate, path: str, earlier: Sequence[Stage], profile: Profile) -> list[str]:
    trained = [str(other.id) for other in earlier if isinstance(other, Train | Inoculate)]
    if stage.models is None and not trained:
        return [f"{path}.models: no earlier stage trains a network; add a [[stage]] of kind train before it"]
    stage.models = stage.models or trained
    problems: list[str] = []
    for i, model in enumerate(stage.models):
        problems += _refer(f"{path}.models.{i}", model, earlier, (Train, Inoculate), "trains a network")
    for key, values in (("models", stage.models), ("attacks", stage.attacks)):
        if len(set(values)) < len(values):
            problems.append(f"{path}.{key}: a name occurs twice; each may occur once")
    in_l2 = [attack for attack in stage.attacks if attack.endswith("-l2")]
    if in_l2 and profile.threat.norm == "linf" and profile.threat.eps_l2 is None:
        problems.append(f"threat.eps_l2: missing; needed: the L2 radius of {', '.join(in_l2)}")
    if "cw" in stage.attacks and profile.threat.norm != "linf":
        problems.append(f"{path}.attacks: cw is an Linf attack, and threat.norm is {profile.threat.norm}")
    return problems


def _latest(earlier: Sequence[Stage], kind: type[Stage]) -> str | None:
    return next((stage.id for stage in reversed(earlier) if isinstance(stage, kind)), None)


def _refer(
    path: str, name: str | None, earlier: Sequence[Stage], kinds: tuple[type[Stage], ...], what: str
) -> list[str]:
    allowed = [str(stage.id) for stage in earlier if isinstance(stage, kinds)]
    if name in allowed:
        return []
    if not allowed:
        words = " or ".join(kind_name(kind) for kind in kinds)
        found = f'found "{name}"; ' if name else ""
        return [f"{path}: {found}no earlier stage {what}; add a [[stage]] of kind {words} before this one"]
    return [f'{path}: found "{name}"; allowed: an earlier stage that {what}: {", ".join(allowed)}']


def kind_name(kind: type[Stage]) -> str:
    """The word for a kind of stage in a profile: train, game, inoculate, evaluate."""
    return next(name for name, known in schema.STAGES.items() if known is kind)


def kind_of(stage: Stage) -> str:
    """The kind of a stage, as its profile writes it."""
    return kind_name(type(stage))


# --- writing ---------------------------------------------------------------------------------------------------------


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


def dumps(profile: Profile) -> str:
    """The profile as TOML; `load` reads it back to an equal profile."""
    return tomli_w.dumps(to_tables(profile))


def explain(loaded: Loaded) -> list[tuple[str, str]]:
    """The profile as lines of TOML, each with where its value comes from ("" for headers and blank lines)."""
    lines: list[tuple[str, str]] = []

    def section(tables: Tables, header: str, path: str) -> None:
        if header:
            lines.extend([("", ""), (header, "")])
        nested = {key: item for key, item in tables.items() if isinstance(item, dict)}
        for key, item in tables.items():
            if key not in nested and not _is_stage_list(item):
                lines.append((tomli_w.dumps({key: item}, indent=2).strip(), loaded.origins.get(f"{path}{key}", "")))
        for key, item in nested.items():
            inner = header.strip("[]")
            section(item, f"[{inner}.{key}]" if inner else f"[{key}]", f"{path}{key}.")

    tables = to_tables(loaded.profile)
    stages = tables.pop("stage")
    section(tables, "", "")
    for i, stage in enumerate(stages):
        section(stage, "[[stage]]", f"stage.{i}.")
    return [(part, origin) for text, origin in lines for part in text.split("\n")]


def _is_stage_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
