"""Opening what somebody else may have put in the place of a file: a pipe without end keeps no reader waiting."""

from __future__ import annotations

import errno
import os
from stat import S_ISDIR, S_ISREG


def regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Open a regular file, also as the `opener` of `open`. Raises OSError for a pipe, a device or a folder."""
    file = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(file).st_mode
        if S_ISREG(mode):
            return file
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    if S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
