"""Everything that can go wrong for a reason a person can act on.

    CafeError                 message, hint, exit_code
    ├── UsageError      (2)   a bad option, path or combination
    │   ├── ProfileError      every problem of a profile at once
    │   └── RunNotFound       unknown, ambiguous or foreign run id
    ├── RunFailed       (1)   the engine cannot go on
    │   ├── DeviceError       the device asked for is not there
    │   ├── CheckpointError   missing, corrupt or of another network
    │   └── DiskError         the run directory cannot be written
    └── Stopped       (130)   asked to stop; a checkpoint was written

Anything else is a defect of the program: its traceback goes to engine.log and the run is `failed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class CafeError(Exception):
    """One clear message for the user, a hint on what to do next, and the exit code of the contract."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(CafeError):
    """The command, a path or a combination of options cannot work."""

    exit_code = 2


class ProfileError(UsageError):
    """A profile that cannot run; `problems` holds one sentence for each reason, all of them at once."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in problems)]))
        self.source = source
        self.problems = tuple(problems)


class RunNotFound(UsageError):
    """No run, or more than one, answers to the name given."""


class RunFailed(CafeError):
    """The engine cannot go on."""


class DeviceError(RunFailed):
    """The device asked for is not there or cannot do what the profile asks."""


class CheckpointError(RunFailed):
    """A checkpoint is missing, corrupt, or belongs to another network."""


class DiskError(RunFailed):
    """The run directory cannot be written (full, read-only, quota)."""


class Stopped(CafeError):
    """The run was asked to stop and has written a checkpoint."""

    exit_code = 130
