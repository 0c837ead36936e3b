"""Decode a long file of records with two processors: a helper process decodes parts further on while this one decodes,
and draws, what lies before them. The helper returns what this process would have read, in the same order.
"""

from __future__ import annotations

import os
import pickle
import select
import struct
import subprocess
import sys
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from cafe_tui.launch.spawn import python, talking
from engine.contract.run.columns import ColumnReader, Columns, Curve, Piece
from engine.contract.run.opening import regular

LONG: Final = 32 << 20
"""Bytes left to read from which on a helper is worth its start, which costs as much as reading a third of them."""
OWN_BYTES, HELPER_BYTES = 1 << 19, 1 << 20
"""Decoded in turn by this process and by its helper, which need not draw or add points to curves."""
AHEAD: Final = 2
"""Parts asked for in advance, so that the helper never waits."""
GRACE: Final = 0.003
"""Seconds to wait for a part: about what decoding it here takes, which is done where the helper is late."""
NICE: Final = 10
"""By how much the helper stands back: it is for processors that have nothing else to do, such as running an engine."""
PIPE: Final = 1 << 20
"""Bytes that the helper may have written and this process not yet read, where that can be chosen."""
PATIENCE: Final = 5.0
"""Seconds to wait for the rest of an answer that the helper has begun to write."""
_SIZE: Final = struct.Struct("<Q")


class ParallelReader(ColumnReader):
    """Takes over `reader` where it stands; call close(). For one thread at a time."""

    def __init__(self, reader: ColumnReader, command: Sequence[str] = ()) -> None:
        super().__init__(reader.path)
        vars(self).update(vars(reader))
        self._command = [*(command or python("-m", "cafe_tui.reading.parallel")), str(self.path)]
        self._helper: subprocess.Popen[bytes] | None = None
        self._failed = False
        self._size = 0
        self._asked: deque[tuple[int, int]] = deque()  # beginnings and ends of the parts that are the helper's
        self._due = 0  # answers still to come from it, which nobody waits for any more

    def call(self) -> None:
        """Start a helper if much is left to read and there is a second processor; returns at once."""
        if self._helper or self._failed or processors() < 2:
            return
        try:
            self._size = self.path.stat().st_size
            if self._size - self.offset < LONG:
                return
            self._helper = talking(self._command, PIPE)
        except OSError:
            self._failed = True
        self._due = 1  # that it is there

    def read_columns(self, max_bytes: int = 3 << 15) -> list[Piece]:
        while True:
            restarts = self.restarts
            self._ask()
            pieces = super().read_columns(max_bytes)
            if self.restarts != restarts:
                self.close()
            if pieces or self.limit is None:
                return pieces
            if self.offset == self.limit:
                pieces = self._receive()
            else:  # the file was cut off
                self.close()
            if pieces:
                return pieces

    def close(self) -> None:
        """End the helper, if there is one; reading goes on without it."""
        helper, self._helper, self.limit = self._helper, None, None
        self._asked.clear()
        if helper:
            for stream in (helper.stdin, helper.stdout):
                if stream:
                    with suppress(OSError):
                        stream.close()
            helper.kill()  # it holds nothing that could be lost
            helper.wait()

    def _ask(self) -> None:
        """Have the helper decode parts further on, unless it is late; end it if there are none."""
        if self._helper is None or self._helper.stdin is None:
            return
        try:
            self._listen(0.0)
            while not self._due and len(self._asked) < AHEAD:
                begin = self._next_line((self._asked[-1][1] if self._asked else self.offset) + OWN_BYTES)
                end = self._next_line(begin + HELPER_BYTES)
                if end > self._size:
                    if not self._asked:
                        self.close()
                    return
                self._helper.stdin.write(f"{begin} {end}\n".encode())
                self._helper.stdin.flush()
                self._asked.append((begin, end))
                self.limit = self._asked[0][0]
        except OSError:
            self._fail()

    def _next_line(self, offset: int) -> int:
        """Where the line after the one at this byte begins; beyond the file if none does."""
        with open(self.path, "rb", opener=regular) as file:
            file.seek(offset)
            return file.tell() if file.readline().endswith(b"\n") else self._size + 1

    def _receive(self) -> list[Piece]:
        """What the helper made of the part that is next; nothing if that is to be decoded here."""
        _, end = self._asked.popleft()
        self.limit = self._asked[0][0] if self._asked else None
        self._due += 1
        try:
            answer = self._listen(GRACE)
            if self._due:
                return []
            pieces, skipped = pickle.loads(answer)
        except Exception:  # whatever else writes to the output of the helper can make it say nearly anything
            self._fail()
            return []
        self.skipped += skipped
        self.offset, self.more = end, end < self._size
        return [_with_lists(piece) if isinstance(piece, Columns) else piece for piece in pieces]

    def _listen(self, seconds: float) -> bytes:
        """Read the answers that are due, waiting so long for each; the last one."""
        answer = b""
        while self._due and self._readable(seconds):
            (size,) = _SIZE.unpack(self._exactly(_SIZE.size))
            answer = self._exactly(size)
            self._due -= 1
        return answer

    def _fail(self) -> None:
        self._failed = True
        self.close()

    def _output(self) -> int:
        assert self._helper
        assert self._helper.stdout
        return self._helper.stdout.fileno()

    def _readable(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._output(), select.POLLIN)
        return bool(poll.poll(1000 * seconds))

    def _exactly(self, size: int) -> bytes:
        """The next `size` bytes from the helper; raises OSError if it ended or is silent."""
        parts = []
        while size:
            if not self._readable(PATIENCE):
                raise TimeoutError
            parts.append(os.read(self._output(), min(size, 1 << 20)))
            if not parts[-1]:
                raise ConnectionResetError
            size -= len(parts[-1])
        return b"".join(parts)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _with_arrays(columns: Columns) -> Columns:
    """The same, quick to send; steps and times that names share stay shared."""
    made: dict[int, array[Any]] = {}

    def packed(code: str, numbers: Sequence[float]) -> array[Any]:
        if id(numbers) not in made:
            made[id(numbers)] = array(code, numbers)
        return made[id(numbers)]

    curves = {
        n: Curve(packed("q", c.steps), packed("d", c.values), packed("d", c.times)) for n, c in columns.curves.items()
    }
    return columns._replace(curves=curves)


def _with_lists(columns: Columns) -> Columns:
    """The same, quick to add to curves, which look at steps and values one by one but not at times."""
    steps = {id(curve.steps): list(curve.steps) for curve in columns.curves.values()}
    curves = {n: Curve(steps[id(c.steps)], list(c.values), c.times) for n, c in columns.curves.items()}
    return columns._replace(curves=curves)


def _answer(reader: ColumnReader, begin: int, end: int) -> tuple[list[Piece], int] | None:
    """Pieces of these bytes, and how many of their lines are none; None if the file was cut off."""
    reader.offset, reader.limit, reader.skipped = begin, end, 0
    pieces: list[Piece] = []
    while part := reader.read_columns():
        pieces += [_with_arrays(piece) if isinstance(piece, Columns) else piece for piece in part]
    return (pieces, reader.skipped) if reader.offset == end and not reader.restarts else None


def _send(message: bytes) -> None:
    sys.stdout.buffer.write(_SIZE.pack(len(message)) + message)
    sys.stdout.buffer.flush()


def main() -> None:
    """Decode the parts of the file argv[1] that standard input asks for, a line each: first byte, byte behind it."""
    os.nice(NICE)
    reader = ColumnReader(Path(sys.argv[1]))
    _send(b"")  # that it is there
    for line in sys.stdin.buffer:
        begin, end = map(int, line.split())
        _send(pickle.dumps(_answer(reader, begin, end), pickle.HIGHEST_PROTOCOL))


if __name__ == "__main__":
    main()
