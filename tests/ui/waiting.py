"""Waiting for an app under test."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot

from tests.patience import PATIENCE


async def until(pilot: Pilot[Any], true: Callable[[], object]) -> None:
    """Let the app go on until something holds."""
    deadline = time.monotonic() + PATIENCE
    await pilot.pause(0.02)
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        await pilot.pause(0.02)


async def quiet(pilot: Pilot[Any], value: Callable[[], object], seconds: float) -> None:
    """Let the app go on until something stays the same for so long."""
    deadline = time.monotonic() + PATIENCE
    while True:
        before = value()
        await pilot.pause(seconds)
        if value() == before:
            return
        assert time.monotonic() < deadline, "goes on and on"
