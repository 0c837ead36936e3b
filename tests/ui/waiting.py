"""Waiting for an app under test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot


async def until(pilot: Pilot[Any], true: Callable[[], object]) -> None:
    """Let the app go on until something holds; fails after thirty seconds."""
    for _ in range(1500):
        await pilot.pause(0.02)
        if true():
            return
    raise AssertionError("did not happen within thirty seconds")
