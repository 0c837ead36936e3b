"""Profiles: find, read, inherit, override, check whole, resolve, write.

    file --tomli--> tables --extends, [set], --set--> one table --check--> Profile --resolve--> complete Profile

With a table [sweep] the file stands for several runs: one table each, checked and resolved for itself.

Every problem of a profile is reported at once, in the words of the file. A resolved profile has no open default: run
again, it repeats the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import tomli
import tomli_w
from msgspec import inspect

from engine.contract.datasets import COUNTED
from engine.contract.errors import ProfileError, UsageError
from engine.contract.profile import presets
from engine.contract.profile.checking import Tables, check, show
from engine.contract.profile.resolving import resolve, stage_ids
from engine.contract.profile.schema import Profile
from engine.contract.profile.sweeps import Sweep, combine, merged_problems, nested, tag_of

DEFAULT = "default"
SWEPT = "sweep"
"""The origin of a value that a sweep gives."""
FOLLOWING = (("warmup_epochs",), ("beta",), ("gamma",), ("adversary", "attack"), ("adversary", "step_size"))
"""Keys of a stage whose values follow from those of others unless they are given."""


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
    engine = Path(__file__).resolve().parents[2]
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
    listed = ", ".join(name for name in known if "/" not in name)  # those in folders are grids of dozens
    raise UsageError(
        f"unknown profile: {shown}",
        f"{hint}`cafe profiles` lists all {len(known)}: {listed} and grids. "
        f"A file needs its path, such as ./{shown}.toml.",
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
        found = folder.glob(pattern) if folder.is_dir() else ()
        for path in sorted(found, key=lambda path: (len(path.parts), path)):  # grids in folders come last
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
    path, tables, origins, problems = _gather(name, overrides)
    if SWEPT in tables:
        raise UsageError(
            f"{_printable(name)} is a sweep: it stands for several runs, each with a profile of its own",
            f"`cafe run {_printable(name)} --dry-run` lists them, `cafe run` runs them one after another.",
        )
    return _loaded(tables, origins, problems, path)


def load_sweep(name: str, overrides: Sequence[str] = ()) -> Sweep[Loaded] | None:
    """Every run that the table [sweep] of the profile called `name` stands for; None for a profile without one.

    Raises as `load` does, with the problems of all runs at once.
    """
    path, tables, origins, problems = _gather(name, overrides)
    if SWEPT not in tables:
        return None
    tag = tag_of(tables)
    points = combine(tables.pop(SWEPT), problems)
    base = str(tables.get("name", "unnamed"))
    found: list[Loaded] = []
    told: list[Sequence[str]] = []
    for label, values in points:
        own, whence, wrong = deepcopy(tables), dict(origins), list(problems)
        for key, value in values.items():
            _override(own, key, value, SWEPT, whence, wrong)
        for key, origin in origins.items():
            if origin == "--set" and whence[key] == SWEPT:
                wrong.append(f"sweep.{key}: --set {key}=... gives one value; narrow it with --set 'sweep.{key}=[...]'")
        _override(own, "name", f"{base}-{label}"[:60], SWEPT, whence, wrong)
        try:
            found.append(_loaded(own, whence, wrong, path))
        except ProfileError as error:
            told.append(error.problems)
    if told or problems:
        raise ProfileError(str(path), merged_problems(told or [problems], len(points)))
    return Sweep(base, tag, [label for label, _ in points], found)


def _gather(name: str, overrides: Sequence[str]) -> tuple[Path, Tables, dict[str, str], list[str]]:
    """File, tables with everything inherited and overridden, where each value came from, and what is wrong so far."""
    path = find(name)
    origins: dict[str, str] = {}
    problems: list[str] = []
    tables = _inherit(path, origins, problems, seen=(), changed=bool(overrides))
    _override_all(tables, overrides, origins, problems)
    return path, tables, {key: o for key, o in origins.items() if not key.startswith(f"{SWEPT}.")}, problems


def from_tables(tables: Tables, source: str = "profile") -> Profile:
    """Check and resolve a profile that is already in memory."""
    return _build(tables, {}, [], Path(source))


def from_given(tables: Tables, source: str, overrides: Sequence[str] = ()) -> Loaded:
    """Override, check and resolve tables that a program made; `source` stands in messages for the file."""
    origins: dict[str, str] = {}
    problems: list[str] = []
    _override_all(tables, overrides, origins, problems)
    return _loaded(tables, origins, problems, Path(source))


def _loaded(tables: Tables, origins: dict[str, str], problems: list[str], path: Path) -> Loaded:
    profile = _build(tables, origins, problems, path)
    return Loaded(profile, path, {**{key: DEFAULT for key, _ in leaves(to_tables(profile))}, **origins})


def _override_all(tables: Tables, overrides: Sequence[str], origins: dict[str, str], problems: list[str]) -> None:
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            problems.append(f"--set {override}: needs the form KEY=VALUE, such as threat.eps=8/255")
        else:
            _override(tables, key.strip(), _parse_value(text.strip()), "--set", origins, problems)


def _build(tables: Tables, origins: dict[str, str], problems: list[str], path: Path) -> Profile:
    if "preset" in tables:
        tables = deepcopy(tables)
        presets.fill(tables, origins)
    where = {key: origin for key, origin in origins.items() if origin not in (str(path), DEFAULT)}
    checked = check(tables, keys(), "", problems)
    told = [_key(problem) for problem in problems]
    profile = _convert(checked)
    if profile is not None:
        problems += [problem for problem in resolve(profile) if not _may_follow(_key(problem), told)]
        if not problems:
            return profile
    raise ProfileError(str(path), [_printable(_with_origin(problem, where)) for problem in problems])


@cache
def keys() -> inspect.Type:
    """The keys of a profile with their types, which take 5 ms to find out, once."""
    return inspect.type_info(Profile)


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
    **{f"data.{key}": ("data.name",) for key in ("path", "size", "flip", *COUNTED)},
    "gamma": ("threat.norm", "threat.eps"),
    "resolution": ("data.name", "data.size", "model.name"),
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


def _inherit(path: Path, origins: dict[str, str], problems: list[str], seen: tuple[Path, ...], changed: bool) -> Tables:
    """The tables of a file with all that it inherits; `changed`: some of their values will be others."""
    if path.resolve() in seen:
        raise UsageError(f"{path}: `extends` goes round in a circle: {' -> '.join(p.name for p in (*seen, path))}")
    own = read_toml(path)
    if changed and _is_file(path.parent / "run.json"):
        own = _reopened(own)
    parent = own.pop("extends", None)
    changes = own.pop("set", {})
    if isinstance(own.get(SWEPT), dict):
        own[SWEPT] = nested(own[SWEPT])
    tables: Tables = {}
    if isinstance(parent, str):
        tables = _inherit(find(parent, beside=path.parent), origins, problems, (*seen, path.resolve()), changed=True)
    elif parent is not None:
        problems.append(f"extends: found {show(parent)}; allowed: the name or path of one profile, in quotes")
    _merge(tables, own, str(path), origins)
    if not isinstance(changes, dict):
        problems.append(f'set: found {show(changes)}; allowed: a table such as {{ "stage.train.epochs" = 3 }}')
        changes = {}
    for key, value in changes.items():
        if isinstance(value, dict):
            problems.append(f'set.{key}: write the whole key path in quotes, such as "stage.train.epochs" = 3')
        else:
            _override(tables, key, value, str(path), origins, problems)
    return tables


def _reopened(resolved: Tables) -> Tables:
    """The profile of a run without what follows from its other values, so that it follows from changed ones too.

    It names every value, and a step size for ten steps would stay when somebody asks for twenty.
    """
    bare = deepcopy(resolved)
    try:
        whole = to_tables(from_tables(resolved))
        for stage in bare["stage"]:
            for *section, key in FOLLOWING:
                (stage.get(section[0], {}) if section else stage).pop(key, None)
        open_ones = to_tables(from_tables(bare))
    except ProfileError:
        return resolved  # edited by hand, or by another version; what is wrong is told elsewhere
    for stage, kept, followed in zip(bare["stage"], whole["stage"], open_ones["stage"], strict=True):
        for *section, key in FOLLOWING:
            own, other = (each.get(section[0], {}) if section else each for each in (kept, followed))
            if key in own and own[key] != other.get(key):
                (stage.setdefault(section[0], {}) if section else stage)[key] = own[key]
    return bare


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
            ids = ", ".join(stage_ids(tables.get("stage"))) or "none"
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


def _stage_index(stages: Any, name: str) -> int | None:
    ids = stage_ids(stages)
    if name in ids:
        return ids.index(name)
    return int(name) if name.isdecimal() and int(name) < len(ids) else None


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
