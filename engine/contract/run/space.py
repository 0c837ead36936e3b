"""Room for the last words of a run, and why a disk refuses, in words.

A full disk must not silence the run that it ends. A small reserve file is made with the run; freeing it gives room for
the last state, the last record and the last lines of the log.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from engine.contract.errors import DiskError

RESERVE_BYTES = 64 * 1024
"""Enough for a state, a record, a traceback and the line of the log. Freed when a run ends, however it ends."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says where nothing more fits."""
_LEAST_BYTES = 1_000_000
RUN_FILES = 16
"""So many files and folders a new run has. One that could not be made has given back those that it got."""


def reserve(file: Path) -> None:
    """Make the reserve where it is missing. Raises OSError where there is no room even for that."""
    if file.exists():
        return
    try:
        with file.open("wb") as out:
            out.write(os.urandom(RESERVE_BYTES))  # zeros may take no room on a disk that compresses
            out.flush()
            os.fsync(out.fileno())
    except OSError:
        with suppress(OSError):
            file.unlink()
        raise


def release(file: Path) -> bool:
    """Give the reserve free; whether there was one."""
    try:
        file.unlink()
    except OSError:
        return False
    return True


def disk_error(what: str, path: Path, error: OSError) -> DiskError:
    """The error to raise where `what` failed at `path`: permission, missing folder, no inodes, full, and the rest."""
    why, hint = refusal(error, path)
    return DiskError(f"{what}: {why}", hint)


def refusal(error: OSError, path: Path) -> tuple[str, str]:
    """Why the system refused to write `path`, and what to do."""
    folder = _nearest(path.parent)
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"Permission denied; {folder} belongs to {_owner(folder)}",
            "Ask its owner, or choose another --runs folder.",
        )
    if error.errno == errno.ENOENT and not os.path.exists(path.parent):
        return f"the folder {path.parent} does not exist", "It was moved or deleted. Put it back, or name another."
    if error.errno == errno.EROFS:
        return "the disk is mounted read-only", "Choose another --runs folder."
    if error.errno == errno.EDQUOT:
        return "your disk quota is used up", "Free some space or choose another --runs folder."
    if error.errno == errno.ENOSPC:
        if no_inodes(folder, RUN_FILES if free_megabytes(folder) >= 10 else 0):
            return (
                "no inodes are left: the disk holds as many files as it can",
                "Delete files there; free space does not help. Or choose another --runs folder.",
            )
        free = free_megabytes(folder)
        why = (
            f"the disk is full, {free} MB free" if free < 10 else f"No space left, though {free} MB are free: a limit?"
        )
        return why, "Free some space or choose another --runs folder."
    return str(error.strerror or error), "Check the disk, its free space and limits, or choose another --runs folder."


def full(path: Path) -> str:
    """That the disk of `path` has no room, in words; empty if it has."""
    try:
        if no_inodes(path):
            return "the disk has no inodes left"
        disk = os.statvfs(path)
    except OSError:
        return ""
    free = disk.f_bavail * disk.f_frsize
    return f"the disk is full, {free // 1_000_000} MB free" if free < _LEAST_BYTES else ""


def no_inodes(folder: Path, needed: int = 0) -> bool:
    """Whether a disk that counts files can take no more, or no more than `needed`."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_files > 0 and disk.f_favail <= needed


def free_megabytes(folder: Path) -> int:
    """What is free for this user."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return 0
    return disk.f_bavail * disk.f_frsize // 1_000_000


def _nearest(folder: Path) -> Path:
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def _owner(folder: Path) -> str:
    try:
        return folder.owner()
    except (KeyError, OSError):
        return "another user"
