"""How much longer something takes, by its mean speed so far."""

from __future__ import annotations

from typing import Final

LEAST_PROGRESS: Final = 0.02
"""Share of a run or stage that must be done before a time to go is guessed from it."""
RESUMED_SECONDS: Final = 60.0
"""An engine that began so much later than its run was made is not its first."""


def seconds_to_go(spent: float, progress: float) -> float | None:
    """Seconds to go after `spent` seconds for a share `progress` of 0-1; None below LEAST_PROGRESS."""
    if progress < LEAST_PROGRESS:
        return None
    return max(spent * (1 - progress) / progress, 0.0)
