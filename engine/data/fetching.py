"""Getting a published file over a line that may break: what has come is kept, and gone on from."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.contract.archives import Archive, data_folder, judge
from engine.contract.errors import UsageError
from engine.data.cache import Say, first_line, unwritable

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try, counted anew when bytes have come; where none ever came there is no other try."""
SILENCE = 30
"""Seconds without a byte after which a line counts as broken."""


def part_of(archive: Archive) -> Path:
    """Where an archive lies until it is whole."""
    return data_folder() / f"{archive.name}.part"


def still_to_come(archive: Archive) -> int:
    """How many bytes of an archive are not here."""
    part = part_of(archive)
    return max(0, archive.size - (part.stat().st_size if part.is_file() else 0))


def fetch(archive: Archive, say: Say) -> None:
    """Have an archive in the data folder, as it was published; what lies there under its name stays until then.

    Raises UsageError, DiskError.
    """
    part = part_of(archive)
    if not still_to_come(archive) and judge(part, archive):
        part.unlink(missing_ok=True)
    if still_to_come(archive):
        _transfer(archive, say)
    if wrong := judge(part, archive):
        part.unlink(missing_ok=True)
        raise UsageError(
            f"{archive.url} cannot be fetched: {wrong}", "It is removed; the same command fetches it anew."
        )
    try:
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, data_folder() / archive.name)
    except OSError as error:
        raise unwritable(data_folder() / archive.name, error) from None


def _transfer(archive: Archive, say: Say) -> None:
    import pooch  # 0.1 s that other data sets need not pay

    part = _Part(archive, say)
    begun = furthest = part.size
    failures = 0
    say(f"fetching {archive.url}" + f", from {begun / 1e6:,.0f} MB on" * bool(begun))
    try:
        while part.size < archive.size:
            headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={part.size}-"} if part.size else {})}
            download = pooch.HTTPDownloader(timeout=SILENCE, headers=headers, hooks={"response": part.begin})
            reason = "the server ended it"
            try:
                download(archive.url, part, None)
            except OSError as error:  # of requests too
                reason = _reason(error)
            finally:
                part.hang_up()
            if part.size == archive.size:
                break
            failures = 0 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            if furthest == begun or failures == len(WAITS):
                kept = (
                    f"{part.size / 1e6:,.0f} of {archive.size / 1e6:,.0f} MB are kept; the same command goes on there."
                )
                raise UsageError(f"{archive.url} cannot be fetched: {reason}", kept * bool(part.size))
            say(f"broken off after {part.size / 1e6:,.0f} MB ({reason}); again in {WAITS[failures]:.0f} s")
            time.sleep(WAITS[failures])
    finally:
        part.close()


class _Part:
    """The file NAME.part of an archive, as what a downloader writes to. Raises DiskError."""

    def __init__(self, archive: Archive, say: Say) -> None:
        self._archive, self._say = archive, say
        self._path = part_of(archive)
        try:
            self._file = self._path.open("ab")
        except OSError as error:
            raise unwritable(self._path, error) from None
        self.size = self._file.tell()
        self._answer: Any = None
        self._tenth = self._tenths()

    def begin(self, response: Any, **_: Any) -> None:
        """See whether the server goes on where the file ends or sends all of it anew. Raises UsageError."""
        self._answer = response
        if response.status_code == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if span is None or int(span[1]) != self.size or span[2] not in ("*", str(self._archive.size)):
                self._refuse(f"bytes {response.headers.get('Content-Range')}")
        elif response.status_code == 200:
            length = response.headers.get("Content-Length")
            if length not in (None, str(self._archive.size)):
                self._refuse(f"{length} bytes")
            if self.size:
                self._file.truncate(0)
            self.size = self._tenth = 0

    def write(self, chunk: bytes) -> None:
        """Append, and tell every tenth. Raises UsageError if it becomes longer than published."""
        if self.size + len(chunk) > self._archive.size:
            self._file.truncate(0)
            self.size = 0
            self._refuse("more bytes")
        try:
            self._file.write(chunk)
            self._file.flush()
        except OSError as error:
            raise unwritable(self._path, error) from None
        self.size += len(chunk)
        if self._tenths() > self._tenth:
            self._tenth = self._tenths()
            self._say(f"{self.size / 1e6:,.0f} of {self._archive.size / 1e6:,.0f} MB")

    def flush(self) -> None:
        """Done by `write`."""

    def hang_up(self) -> None:
        """End the connection, which a downloader leaves open where it is interrupted."""
        if self._answer is not None:
            self._answer.close()

    def close(self) -> None:
        """Keep what has come, if anything has."""
        with suppress(OSError):  # a full disk has been met, and told, by `write`
            self._file.close()
        if not self.size:
            self._path.unlink(missing_ok=True)

    def _tenths(self) -> int:
        return 10 * self.size // self._archive.size

    def _refuse(self, offered: str) -> None:
        raise UsageError(
            f"{self._archive.url} cannot be fetched: not the published file: the server offers {offered}, published "
            f"are {self._archive.size:,}",
            "A page to sign in to the network may answer in its place.",
        )


def _reason(error: BaseException) -> str:
    """What the system said at the bottom of an error of requests, else its own first line."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return first_line(error)
