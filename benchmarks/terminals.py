"""Programs in pseudo-terminals: how long until they have painted something, and how many bytes it took."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

import pexpect
import psutil
import pyte

FIXED = ("PYTHONDONTWRITEBYTECODE", "COLUMNS", "LINES", "NO_COLOR", "COLORTERM", "TEXTUAL_THEME", "SSH_CONNECTION")
PATIENCE = 60.0
"""Seconds after which a text that was waited for is not coming."""


class Terminal:
    """A Python program in a pseudo-terminal of `columns` x `lines` cells, which takes what it writes at once."""

    def __init__(self, arguments: Sequence[str], columns: int = 120, lines: int = 40, **environment: str) -> None:
        self.raw = bytearray()
        self._screen, self._seen = pyte.Screen(columns, lines), 0
        self._stream = pyte.ByteStream(self._screen)
        inherited = {name: value for name, value in os.environ.items() if name not in FIXED}
        self.started = time.perf_counter()
        self.process = pexpect.spawn(
            sys.executable,
            list(arguments),
            dimensions=(lines, columns),
            env={**inherited, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment},
        )
        self.process.delaybeforesend = None

    def read(self, seconds: float) -> int:
        """Take what the program writes within so many seconds; the number of bytes."""
        before, end = len(self.raw), time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            try:
                self.raw += self.process.read_nonblocking(1 << 16, timeout=left)
            except (pexpect.TIMEOUT, pexpect.EOF):
                break
        return len(self.raw) - before

    def until(self, true: Callable[[bytes], bool], since: int = 0) -> float:
        """Read until what was written from byte `since` on fulfils a condition; seconds from the start until then."""
        while not true(bytes(self.raw[since:])):
            try:
                self.raw += self.process.read_nonblocking(1 << 16, timeout=PATIENCE)
            except (pexpect.TIMEOUT, pexpect.EOF):
                raise TimeoutError(f"not written: {bytes(self.raw[since:])[-2000:]!r}") from None
        return time.perf_counter() - self.started

    def text(self) -> str:
        """What the screen shows."""
        new, self._seen = bytes(self.raw[self._seen :]), len(self.raw)
        self._stream.feed(new)
        return "\n".join(self._screen.display)

    def shows(self, true: Callable[[str], bool], patience: float = PATIENCE) -> float:
        """Read until the screen fulfils a condition; seconds that it took from this call on."""
        start = time.perf_counter()
        while not true(self.text()):
            if time.perf_counter() - start > patience:
                raise TimeoutError(f"not shown:\n{self.text()}")
            with contextlib.suppress(pexpect.TIMEOUT):
                self.raw += self.process.read_nonblocking(1 << 16, timeout=0.05)
        return time.perf_counter() - start

    def memory(self) -> float:
        """Resident megabytes of the program."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6

    def processor(self, seconds: float) -> float:
        """Percent of a core that the program uses over so many seconds, its output being read."""
        process = psutil.Process(self.process.pid)
        before = sum(process.cpu_times()[:2])
        start = time.perf_counter()
        self.read(seconds)
        return float(100 * (sum(process.cpu_times()[:2]) - before) / (time.perf_counter() - start))

    def key(self, keys: str, quiet: float = 0.05) -> tuple[float, int]:
        """Press keys; seconds until the first byte of the answer, and the bytes until it has been quiet so long."""
        self.read(0)
        start, before = time.perf_counter(), len(self.raw)
        self.process.send(keys)
        while len(self.raw) == before:
            self.raw += self.process.read_nonblocking(1 << 16, timeout=PATIENCE)
        answered = time.perf_counter() - start
        while self.read(quiet):
            pass
        return answered, len(self.raw) - before

    def close(self) -> None:
        """End the program, which was started by us."""
        with contextlib.suppress(OSError):
            self.process.kill(signal.SIGKILL)  # at once: to ask it first would take longer than some measurements
            self.process.close(force=True)
