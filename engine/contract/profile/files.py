"""Profiles in files: find, read, inherit, override, load, dump.

    file --tomli--> tables --extends, [set], --set--> Draft --check, resolve--> Profile

With a table [sweep] the file stands for several runs: one draft each, checked and resolved for itself.

Every problem of a profile is reported at once, in the words of the file. A resolved profile has no open default: run
again, it repeats the run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import tomli
import tomli_w

from engine.contract.errors import ProfileError, UsageError
from engine.contract.profile.checking import show
from engine.contract.profile.draft import COMMAND_LINE, Draft
from engine.contract.profile.problems import printable
from engine.contract.profile.reopening import reopened
from engine.contract.profile.schema import Profile
from engine.contract.profile.sweeps import Sweep, combine, merged_problems, nested, tag_of
from engine.contract.profile.tables import Tables, to_tables
from engine.contract.run.opening import regular

SWEPT = "sweep"
"""The table of a sweep, and the origin of a value that it gives."""


MOST_BYTES = 16 << 20
"""Of a profile that comes out of a stream."""


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
    """The file of a profile given by name or path, looked for first in the folder `beside`.

    Raises UsageError, with the nearest name.
    """
    for candidate in _candidates(name, beside):
        if (candidate.suffix == ".toml" and _is_file(candidate)) or streamed(candidate):
            return candidate
    shown = printable(name)
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


def _candidates(name: str, beside: Path | None) -> list[Path]:
    """The files that a name or path may mean, in order."""
    with suppress(RuntimeError):  # ~ of a user that there is not
        name = str(Path(name).expanduser()) if name.startswith("~") else name
    nearest = [beside] if beside else []
    folders = [*nearest, *search_folders()]
    return [
        *(folder / name for folder in nearest),
        Path(name),
        *(folder / f"{name}.toml" for folder in folders),
        *(folder / name for folder in folders),
    ]


def streamed(path: Path) -> bool:
    """Whether a path is a way to an open file of this process, such as /dev/stdin or what `<(...)` of a shell gives."""
    return re.fullmatch(r"/dev/stdin|/(dev|proc/[^/]+)/fd/\d+", str(path)) is not None


@cache
def _stream(path: Path, device: int, inode: int) -> bytes:
    """What comes out of the stream that is there. It can be read once, and a profile is looked at more than once."""
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES >> 20} MiB")
    return data


def _file(path: Path) -> bytes:
    with open(path, "rb", opener=regular) as file:
        return file.read()


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


# --- reading and inheriting ------------------------------------------------------------------------------------------


def read_toml(path: Path) -> Tables:
    """The tables of a TOML file; a mistake is reported with file, line and column."""
    try:
        data = _stream(path, path.stat().st_dev, path.stat().st_ino) if streamed(path) else _file(path)
        return tomli.loads(data.decode("utf-8-sig"))  # editors on Windows begin a file with a mark of its encoding
    except tomli.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, hundreds of nested brackets
        raise UsageError(f"{path}: not readable as TOML: {error}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def _inherit(draft: Draft, path: Path, seen: tuple[Path, ...], changed: bool) -> None:
    """Merge a file into the draft, what it inherits first; `changed`: some of their values will be others."""
    if path.resolve() in seen:
        raise UsageError(f"{path}: `extends` goes round in a circle: {' -> '.join(p.name for p in (*seen, path))}")
    own = read_toml(path)
    if changed and _is_file(path.parent / "run.json"):
        own = reopened(own)
    parent = own.pop("extends", None)
    changes = own.pop("set", {})
    if isinstance(own.get(SWEPT), dict):
        own[SWEPT] = nested(own[SWEPT])
    if isinstance(parent, str):
        _inherit(draft, find(parent, beside=path.parent), (*seen, path.resolve()), changed=True)
    elif parent is not None:
        draft.problems.append(f"extends: found {show(parent)}; allowed: the name or path of one profile, in quotes")
    draft.merge(own, str(path))
    _set(draft, changes, str(path))


def _set(draft: Draft, changes: Any, origin: str) -> None:
    """Override what a table [set] changes."""
    if not isinstance(changes, dict):
        draft.problems.append(f'set: found {show(changes)}; allowed: a table such as {{ "stage.train.epochs" = 3 }}')
        return
    for key, value in changes.items():
        if isinstance(value, dict):
            draft.problems.append(f'set.{key}: write the whole key path in quotes, such as "stage.train.epochs" = 3')
        else:
            draft.override(key, value, origin)


# --- loading ---------------------------------------------------------------------------------------------------------


def load(name: str, overrides: Sequence[str] = ()) -> Loaded:
    """Read, inherit, override, check and resolve the profile called `name`.

    `overrides` are KEY=VALUE texts as given to --set. Raises UsageError when a file cannot be read and ProfileError
    with every problem found otherwise.
    """
    draft = _draft(name, overrides)
    if SWEPT in draft.tables:
        raise UsageError(
            f"{printable(name)} is a sweep: it stands for several runs, each with a profile of its own",
            f"`cafe run {printable(name)} --dry-run` lists them, `cafe run` runs them one after another.",
        )
    return _loaded(draft)


def load_sweep(name: str, overrides: Sequence[str] = ()) -> Sweep[Loaded] | None:
    """Every run that the table [sweep] of the profile called `name` stands for; None for a profile without one.

    Raises as `load` does, with the problems of all runs at once.
    """
    draft = _draft(name, overrides)
    if SWEPT not in draft.tables:
        return None
    tag = tag_of(draft.tables)
    points = combine(draft.tables.pop(SWEPT), draft.problems)
    base = str(draft.tables.get("name", "unnamed"))
    runs: list[Loaded] = []
    failures: list[Sequence[str]] = []
    for label, values in points:
        try:
            runs.append(_loaded(_point(draft, f"{base}-{label}"[:60], values)))
        except ProfileError as error:
            failures.append(error.problems)
    if failures or draft.problems:
        raise ProfileError(str(draft.path), merged_problems(failures or [draft.problems], len(points)))
    return Sweep(base, tag, [label for label, _ in points], runs)


def from_tables(tables: Tables, source: str = "profile") -> Profile:
    """Check and resolve a profile that is already in memory."""
    return Draft(Path(source), tables).build()


def from_given(tables: Tables, source: str, overrides: Sequence[str] = ()) -> Loaded:
    """Override, check and resolve tables that a program made; `source` stands in messages for the file."""
    draft = Draft(Path(source), tables)
    draft.override_all(overrides)
    return _loaded(draft)


def _draft(name: str, overrides: Sequence[str]) -> Draft:
    """The profile called `name` with everything inherited and overridden; values of a sweep have no origin yet."""
    draft = Draft(find(name))
    _inherit(draft, draft.path, seen=(), changed=bool(overrides))
    draft.override_all(overrides)
    draft.origins = {key: origin for key, origin in draft.origins.items() if not key.startswith(f"{SWEPT}.")}
    return draft


def _point(draft: Draft, name: str, values: dict[str, Any]) -> Draft:
    """One run of a sweep: the draft that all have in common, with its values by key path."""
    own = draft.copy()
    for key, value in values.items():
        own.override(key, value, SWEPT)
    for key, origin in draft.origins.items():
        if origin == COMMAND_LINE and own.origins[key] == SWEPT:
            own.problems.append(
                f"sweep.{key}: --set {key}=... gives one value; narrow it with --set 'sweep.{key}=[...]'"
            )
    own.override("name", name, SWEPT)
    return own


def _loaded(draft: Draft) -> Loaded:
    profile = draft.build()
    return Loaded(profile, draft.path, draft.all_origins(profile))


# --- writing ---------------------------------------------------------------------------------------------------------


def dumps(profile: Profile) -> str:
    """The profile as TOML; `load` reads it back to an equal profile."""
    return tomli_w.dumps(to_tables(profile))
