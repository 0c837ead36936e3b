"""Axes that stay where they are: they grow in steps, shrink late, and carry short labels.

An axis that follows every new value moves every dot of the picture, which over SSH is the whole cost of a live chart.
These change seldom, and what they change to depends only on their state and the range they are shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil, floor, isfinite, log10
from typing import Final

SMALLEST_SPAN: Final = 16
"""Steps that a step axis covers at least."""
SHRINK_BELOW: Final = 0.5
"""Share of a value axis under which the data have to fall before it shrinks."""
SHRINK_TO: Final = 0.75
"""It does so only if that much of its span is enough: a smaller change is not worth a new picture."""
LEAST_ROOM: Final = 0.01
"""Span of a value axis at least, as a share of its largest value: less is rounding noise and needs endless labels."""
LARGEST: Final = 1e300
"""Values beyond (or below its inverse, on a logarithmic axis) are cut off, so that differences stay finite."""
TINY: Final = 1e-9
"""Relative error of a number that counts as a round one."""
PREFIXES: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))

Bounds = tuple[float, float]


@dataclass
class StepAxis:
    """Shows the steps [low, high). The span is a power of two; `window` (steps, > 0) keeps to the newest ones instead.

    With a window the axis moves by a quarter of it at a time, so at least that many of the newest steps are in view.
    """

    window: int | None = None
    low: int = 0
    high: int = SMALLEST_SPAN

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least one step, not {self.window}")

    def update(self, first: int, last: int) -> bool:
        """Show the steps from `first` to `last`; tells whether the axis had to change."""
        before = (self.low, self.high)
        if self.window is not None and last - first >= self.window:
            # The end is the next multiple of a quarter of the window, and one quarter more than the window is shown:
            # up to a quarter at the right is still empty, and a whole window of steps is in view all the same.
            jump = max(1, self.window // 4)
            self.high = (last // jump + 1) * jump
            self.low = self.high - self.window - jump
        elif not self._fits(first, last):
            self.low, self.high = _dyadic(first, last)
        return (self.low, self.high) != before

    def _fits(self, first: int, last: int) -> bool:
        span = self.high - self.low
        used = last + 1 - first  # steps; an axis is too large for a quarter of its span
        return self.low <= first and last < self.high and (span <= SMALLEST_SPAN or used * 4 > span)

    def ticks(self, most: int) -> list[int]:
        """At most `most` (>= 1) round steps in [low, high), at 1, 2 or 5 times a power of ten."""
        jump = max(1, round(_nice((self.high - self.low) / max(most, 1))))
        start = -(-self.low // jump) * jump
        return list(range(start, self.high, jump))[: max(most, 1)]

    def label(self, tick: int, jump: int) -> str:
        """A step in as few characters as tell it from one `jump` away."""
        return label(tick, jump)


class TimeAxis(StepAxis):
    """The same over milliseconds; its labels are lengths of time."""

    def ticks(self, most: int) -> list[int]:
        """At most `most` (>= 1) round moments in [low, high)."""
        least = (self.high - self.low) / max(most, 1)
        days = DAY * round(_nice(max(least / DAY, 1)))
        jump = next((jump for jump in JUMPS if jump >= least), days)
        start = -(-self.low // jump) * jump
        return list(range(start, self.high, jump))[: max(most, 1)]

    def label(self, tick: int, jump: int) -> str:
        """`0s`, `1m30s`, `2h05m`, `3d`, or `0.25s` where the jump is short."""
        if jump < 1000:
            return f"{_strip(f'{tick / 1000:.3f}')}s"
        seconds = tick // 1000
        days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
        parts = [(days, "d"), (hours, "h"), (minutes, "m"), (seconds % 60, "s")]
        while len(parts) > 1 and not parts[0][0]:
            del parts[0]
        while len(parts) > 1 and not parts[-1][0]:
            del parts[-1]
        return "".join(f"{count:02}{unit}" if place else f"{count}{unit}" for place, (count, unit) in enumerate(parts))


RADIUS_UNITS: Final = 100_000
"""Steps of an axis of radii for a radius of 1."""


class RadiusAxis(StepAxis):
    """The same over radii of a ball, in RADIUS_UNITS."""

    def label(self, tick: int, jump: int) -> str:
        """`0.03`."""
        return f"{tick / RADIUS_UNITS:g}"


DAY: Final = 86_400_000
JUMPS: Final = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(1000 * seconds for seconds in (1, 2, 5, 10, 15, 30)),
    *(60_000 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(3_600_000 * hours for hours in (1, 2, 3, 6, 12, 24)),
)
"""Round lengths of time in milliseconds."""


def _dyadic(first: int, last: int) -> tuple[int, int]:
    """The smallest span of 2**k steps, starting at a multiple of a quarter of it, that holds both."""
    span = SMALLEST_SPAN
    while True:
        quarter = span // 4  # a finer grid for the start would fit sooner, but move the picture more often
        low = first // quarter * quarter
        if last < low + span:
            return low, low + span
        span *= 2


@dataclass
class ValueAxis:
    """Shows the values [low, high], which are round numbers. Logarithmic if `log`: then both are positive."""

    log: bool = False
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        self.low, self.high = (0.1, 1.0) if self.log else (0.0, 1.0)
        self._shown = False

    def update(self, low: float, high: float) -> bool:
        """Show the finite values from `low` to `high`; tells whether the axis had to change.

        It grows at once when the values leave it, and shrinks when they use less than half of it. A logarithmic axis
        raises ValueError for a value that is not positive.
        """
        if self.log and low <= 0:
            raise ValueError(f"no place for {low} on a logarithmic axis")
        low, high = _cut_off(low), _cut_off(high)
        wanted = _log_bounds(low, high) if self.log else _bounds(low, high)
        if self._shown and self.low <= low and high <= self.high and not self._too_large((low, high), wanted):
            return False
        before, self._shown = (self.low, self.high), True
        self.low, self.high = wanted
        return wanted != before

    def _too_large(self, used: Bounds, wanted: Bounds) -> bool:
        present = self._length((self.low, self.high))
        return self._length(used) < SHRINK_BELOW * present and self._length(wanted) <= SHRINK_TO * present

    def _length(self, bounds: Bounds) -> float:
        return log10(bounds[1]) - log10(bounds[0]) if self.log else bounds[1] - bounds[0]

    def place(self, value: float) -> float:
        """Where the value lies, from 0 at the bottom to 1 at the top; beyond the ends it is put there."""
        if value <= self.low:
            return 0.0
        return min(self._length((self.low, value)) / self._length((self.low, self.high)), 1.0)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """At most `most` round values with their labels, ascending."""
        if most < 1:
            return []
        if self.log:
            return [(value, label(value, value)) for value in _log_ticks(self.low, self.high, most)]
        jump = _nice((self.high - self.low) / max(most - 1, 1))
        start, end = ceil(self.low / jump - TINY), floor(self.high / jump + TINY)
        values = [_clean(i * jump) for i in range(start, end + 1)]
        return [(value, label(value, jump)) for value in values[:most]]


def _cut_off(value: float) -> float:
    return min(max(value, -LARGEST), LARGEST)


def _bounds(low: float, high: float) -> Bounds:
    """Round numbers around the values, which use at least half of the span between them or are too close together."""
    # A curve that hardly varies is shown in the middle of a span that rounding noise cannot fill. Around 0, where a
    # share of the value would be 0, too, the span is 1.
    largest = max(abs(low), abs(high))
    room = LEAST_ROOM * largest if largest > 1 / LARGEST else 1.0
    if high - low < room:
        middle = low / 2 + high / 2  # their sum may overflow
        low, high = middle - room / 2, middle + room / 2
    jump = _nice((high - low) / 8)  # up to 2.5 eighths, so rounding outwards leaves more than half of the span in use
    bottom, top = _clean(floor(low / jump + TINY) * jump), _clean(ceil(high / jump - TINY) * jump)
    # Where TINY rounded inwards, past the value, one jump more holds it.
    return (bottom if bottom <= low else _clean(bottom - jump)), (top if top >= high else _clean(top + jump))


def _log_bounds(low: float, high: float) -> Bounds:
    """The numbers with the digit 1, 2 or 5 around these positive values, and at least two different ones."""
    low, high = max(low, 1 / LARGEST), max(high, 1 / LARGEST)
    bottom = list(_round_values(low / 10, low))[-1]  # a decade has three of them, so there is one
    above = [value for value in _round_values(low, high * 10) if value > bottom]
    return bottom, next(value for value in above if value >= high * (1 - TINY))


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """Digits 1, 2 and 5 if they fit, else powers of ten, else some of those."""
    values = list(_round_values(low, high))
    if len(values) > most:
        powers = list(_round_values(low, high, (1,)))
        values = powers if len(powers) > 1 else values
    return values[:: -(-len(values) // most)]


def _round_values(low: float, high: float, digits: tuple[int, ...] = (1, 2, 5)) -> Iterator[float]:
    """The numbers in [low, high] that are one of the digits times a power of ten, ascending."""
    for power in range(floor(log10(low)), ceil(log10(high)) + 1):
        for digit in digits:
            value = _clean(digit * 10.0**power)
            if low * (1 - TINY) <= value <= high * (1 + TINY):
                yield value


def _nice(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least this positive number."""
    power = 10.0 ** floor(log10(least))
    return next(_clean(digit * power) for digit in (1, 2, 5, 10) if digit * power >= least * (1 - TINY))


def _clean(value: float) -> float:
    """The value without the noise of binary fractions in its last digits."""
    return float(f"{value:.12g}")


# --- labels ----------------------------------------------------------------------------------------------------------


def label(value: float, jump: float) -> str:
    """A tick's value, with the digits that tell ticks `jump` (> 0) apart: `0.25`, `1.2k`, `3e-4`."""
    if value == 0:
        return "0"
    size = abs(value)
    exponent = floor(log10(jump) + TINY)
    if size >= 1e15 or (exponent < -3 and size < 1):
        return _scientific(value, max(floor(log10(size) + TINY) - exponent, 0))
    for scale, prefix in PREFIXES:
        if size >= scale:
            digits = max(floor(log10(scale) + TINY) - exponent, 0)
            return _strip(f"{value / scale:.{min(digits, 6)}f}") + prefix
    return f"{value:.{max(-exponent, 0)}f}"


def short(value: float) -> str:
    """Any value in three digits: `0.412`, `-1.20k`, `3.00e-4`, `nan`."""
    size = abs(value)
    if not isfinite(value) or size == 0:
        return f"{value:.3g}"
    if size < 1e-3 or size >= 1e15:
        return _scientific(value, 2)
    scale, prefix = next((pair for pair in PREFIXES if size >= pair[0]), (1.0, ""))
    return f"{value / scale:.{max(2 - floor(log10(size / scale)), 0)}f}{prefix}"


def _scientific(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{min(digits, 6)}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _strip(number: str) -> str:
    return number.rstrip("0").rstrip(".") if "." in number else number
