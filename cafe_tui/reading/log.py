"""Follow the log of a run line by line."""

from __future__ import annotations

from engine.contract.run.opening import regular
from engine.contract.run.rundir import RunDir


class LogFollower:
    """The tail of engine.log: at first at most `lines` lines from its end, then whatever is appended."""

    def __init__(self, run: RunDir, *, lines: int = 500) -> None:
        self.path = run.log_file
        self._lines = lines
        self._offset: int | None = None

    def poll(self, max_bytes: int = 1 << 18) -> list[str]:
        """New complete lines, without their newlines; a log that became shorter is read from its start."""
        try:
            with open(self.path, "rb", opener=regular) as file:
                size = file.seek(0, 2)
                first = self._offset is None
                start = max(size - max_bytes, 0) if self._offset is None else self._offset
                start = 0 if start > size else start
                file.seek(start)
                chunk = file.read(max_bytes)
        except OSError:
            return []
        end = chunk.rfind(b"\n") + 1 or (len(chunk) if len(chunk) == max_bytes else 0)
        self._offset = start + end
        lines = chunk[:end].decode("utf-8", "replace").splitlines()
        return lines[-self._lines :] if first else lines
