"""Child processes: whatever cafe starts, it starts here.

A child must never import what happens to lie in the folder where the user is: `python -m` and `python -c` would look
there first, and take an engine/, torch.py or numpy.py of the user for ours. Python's safe path forbids it, and since it
is a variable of the environment it holds for what the child starts as well: the engines of a queue, the ranks of a run.

On the lowest floor: nothing but the standard library is imported, so that every room may use it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

HOME = Path(__file__).resolve().parents[2]
"""The folder in which cafe_tui and engine lie: a checkout, or site-packages."""

_children: list[subprocess.Popen[bytes]] = []
"""What was started to outlive us: its parent must ask for its exit code, or it stays a zombie."""


def python(*arguments: str) -> list[str]:
    """The command that runs this Python with the arguments, such as "-m", "engine"."""
    return [sys.executable, *arguments]


def environment() -> dict[str, str]:
    """Ours for children: the safe path, GPUs counted as the driver does, a CAFE_DATA that is the same from any folder.

    A checkout, which may not be installed, comes before everything else on the path. Of a PYTHONPATH, entries that mean
    the working directory, as an empty one does, are left out; other relative ones are those of where the user is.
    """
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(HOME)] if (HOME / "pyproject.toml").exists() else []
    paths += [os.path.abspath(path) for path in given if path and os.path.normpath(path) != os.curdir]
    # As every list of GPUs that a person has seen.
    order = os.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    ours = {**os.environ, "CUDA_DEVICE_ORDER": order, "PYTHONSAFEPATH": "1"}
    ours["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    if data := ours.get("CAFE_DATA"):  # relative to where the user is, not to the folder that an engine works in
        ours["CAFE_DATA"] = os.path.abspath(os.path.expanduser(data))
    return ours


def outliving(command: Sequence[str], *, log: Path, folder: Path) -> subprocess.Popen[bytes]:
    """A process in a session of its own, at work in `folder`; all it says goes to the end of `log`. Raises OSError.

    The session is what lets it outlive the terminal. It gets no input.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=folder,
            env=environment() | {"PYTHONUNBUFFERED": "1"},
        )
    _children[:] = [*(each for each in _children if each.poll() is None), child]
    return child


def talking(command: Sequence[str], buffer: int = -1) -> subprocess.Popen[bytes]:
    """A process that is asked and answers over pipes, which hold `buffer` bytes where that can be chosen.

    What it says on stderr is dropped. The caller ends it and waits for its end. Raises OSError.
    """
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, pipesize=buffer, env=environment()
    )


async def serving(command: Sequence[str], variables: Mapping[str, str]) -> asyncio.subprocess.Process:
    """A process that is talked to over pipes from an event loop, with these variables. Raises OSError.

    The caller ends it and waits for its end.
    """
    import asyncio  # 20 ms that no other command need pay

    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=pipe, env={**environment(), **variables}
    )


def attached(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """A process in our terminal and session, which gets the signals of both. The caller waits for its end.

    Raises OSError.
    """
    return subprocess.Popen(command, env=environment())


def answer(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """What a process says until it ends, however it does. Raises subprocess.TimeoutExpired, and OSError."""
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, env=environment())
