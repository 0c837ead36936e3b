"""The runs of a folder: which there are, in which order, and the one that somebody names.

Their order is that of run.json's `created`, in UTC. The local time at the front of an id is not asked: hosts in two
time zones, or the hour that autumn repeats, would turn it round. An entry that cannot be read keeps no other one from
the list; it is left out, and the reason handed on.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path

from engine.contract.errors import RunNotFound, UsageError
from engine.contract.run.rundir import ID, Info, RunDir

NAMED = 3
"""Of the entries that cannot be read so many are named."""


@dataclass(frozen=True)
class Scan:
    """The runs of a folder in no order, and by its name each entry that is none though it should be, and why."""

    runs: tuple[RunDir, ...]
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class Listing:
    """The runs of a folder with their run.json, newest first, and what is wrong, by the name of the entry."""

    known: tuple[tuple[RunDir, Info], ...]
    troubles: Mapping[str, str]


def scan(runs: Path) -> Scan:
    """Which entries of a folder are runs; their files are not opened. A folder that does not exist has none.

    Foreign folders are left out. Raises UsageError when the folder itself cannot be read.
    """
    found: list[RunDir] = []
    skipped: dict[str, str] = {}
    try:
        with os.scandir(runs) as entries:
            for entry in entries:
                try:
                    if _is_run(entry):
                        found.append(RunDir(runs / entry.name))
                except OSError as error:
                    skipped[entry.name] = reason(error)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(f"cannot read the runs folder {runs}: {reason(error)}") from None
    return Scan(tuple(found), skipped)


def _is_run(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a run, or the rest of one. Raises OSError for what should be one and is not."""
    if not entry.name.startswith(".") and entry.is_dir():
        named = ID.fullmatch(entry.name) or RunDir(Path(entry.path)).partly_removed
        return bool(named) or os.path.exists(os.path.join(entry.path, "run.json"))
    if entry.name.startswith("."):
        return RunDir(Path(entry.path)).partly_removed
    if ID.fullmatch(entry.name):
        raise NotADirectoryError(errno.ENOTDIR, "a link to nothing" if entry.is_symlink() else "a file, not a folder")
    return False


def reason(error: OSError) -> str:
    """Why something cannot be read, in the words of the system."""
    return error.strerror or type(error).__name__


def complaint(runs: Path, troubles: Mapping[str, str]) -> str:
    """One sentence about the entries that cannot be read; empty if there are none."""
    if not troubles:
        return ""
    count = f"{len(troubles)} entries" if len(troubles) > 1 else "an entry"
    named = ", ".join(f"{name} ({why})" for name, why in sorted(troubles.items())[:NAMED])
    more = f" and {len(troubles) - NAMED} more" if len(troubles) > NAMED else ""
    return f"cannot read {count} of {runs}: {named}{more}"


def place(created: float, run_id: str) -> tuple[float, str]:
    """By this runs are in order, oldest first; those of one moment by id, so that no two looks differ."""
    return created, run_id


def read(runs: Path, among: Iterable[RunDir] | None = None) -> Listing:
    """All runs of a folder, or those `among` them, newest first. Raises UsageError when the folder is unreadable."""
    scanned = scan(runs) if among is None else Scan(tuple(among), {})
    troubles, known = dict(scanned.skipped), []
    for run in scanned.runs:
        try:
            info, trouble = run.look()
        except FileNotFoundError:
            continue  # it was deleted between the two looks
        except OSError as error:
            troubles[run.id] = reason(error)
            continue
        known.append((run, info))
        if trouble:
            troubles[run.id] = trouble
    known.sort(key=lambda one: place(one[1].created, one[0].id), reverse=True)
    return Listing(tuple(known), troubles)


def likely_newest(scanned: Scan, count: int) -> list[RunDir]:
    """So many runs, the newest by their ids: for a first picture, or a look that is repeated and must cost little.

    Ids may be hours off, see above. Runs under another name than their id come first.
    """
    return nlargest(count, scanned.runs, key=lambda run: run.id)


def newest_first(runs: Path) -> list[RunDir]:
    """The runs of a folder; those that cannot be read are left out. Raises UsageError."""
    return [run for run, _ in read(runs).known]


def tagged(runs: Path, tag: str) -> list[RunDir]:
    """The runs with a tag, oldest first, without rests of removed ones. Raises UsageError."""
    return [run for run, info in reversed(read(runs).known) if tag in info.tags and not run.partly_removed]


def find(runs: Path, reference: str) -> RunDir:
    """The run that `reference` names: an id, a unique prefix of one, or `last`. Raises RunNotFound otherwise."""
    scanned = scan(runs)
    if reference == "last":
        return _newest(runs, scanned)
    matches = [run for run in scanned.runs if run.id.startswith(reference)] if reference else []
    exact = [run for run in matches if run.id == reference]
    if len(exact or matches) == 1:
        return _readable(runs, (exact or matches)[0])
    if matches:
        shown = ", ".join(run.id for run, _ in read(runs, matches).known[:5]) + (", ..." if len(matches) > 5 else "")
        raise RunNotFound(f"{len(matches)} runs begin with {reference!r}: {shown}", "Type a few more characters.")
    if reference in scanned.skipped:
        raise RunNotFound(f"cannot read {reference} in {runs}: {scanned.skipped[reference]}")
    if not scanned.runs:
        raise _no_runs(runs)
    raise RunNotFound(f"no run {reference!r} in {runs}", "`cafe ls` lists the runs.")


def _newest(runs: Path, scanned: Scan) -> RunDir:
    listed = read(runs, [run for run in scanned.runs if not run.partly_removed])
    if listed.known:
        return listed.known[0][0]
    if troubles := {**scanned.skipped, **listed.troubles}:
        raise RunNotFound(complaint(runs, troubles))
    raise _no_runs(runs)


def _readable(runs: Path, run: RunDir) -> RunDir:
    try:
        run.look()
    except OSError as error:
        raise RunNotFound(f"cannot read {run.id} in {runs}: {reason(error)}") from None
    return run


def _no_runs(runs: Path) -> RunNotFound:
    return RunNotFound(f"no runs in {runs}", "Start one with `cafe run quickstart`, or point --runs elsewhere.")
