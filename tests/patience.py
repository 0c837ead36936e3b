"""How tests wait: for what happens, however busy the machine is, and never longer than a hang."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil

PATIENCE = 300.0
"""Seconds until any wait gives up: only a hang reaches it."""


def wait_until(true: Callable[[], object]) -> None:
    """Return as soon as something holds."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def kill(process: subprocess.Popen[Any]) -> None:
    """End a process that may still be running, and its children with it, so that none is left to later tests."""
    if process.poll() is None:
        tree: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            tree = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for child in tree:
            with suppress(psutil.NoSuchProcess):
                child.kill()
    process.wait(PATIENCE)
