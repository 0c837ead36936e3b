"""One curve as a bounded, append-only column of points.

Points are kept in buckets aligned to absolute steps: bucket k of width w covers steps [k*w, (k+1)*w) and holds its
lowest, highest, first and last value. The width starts at 1, where a bucket is exactly one point, and doubles by
merging neighbours when there are too many buckets. So a long run costs as much memory and time to draw as a short one,
and a dot that was drawn stays where it is.

The buckets of width w are one level of a pyramid over the steps: each bucket of width 2w is two of width w, those of
its two halves, of which one may be missing. Only the finest level that fits the capacity is kept. As buckets begin at
multiples of their width, wherever the run began, they depend on the steps alone.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice, pairwise, repeat
from math import exp2, inf, isfinite, nan
from operator import add, floordiv, lt, sub
from typing import Final, NamedTuple, TypeVar

CAPACITY: Final = 4096
"""Buckets of a series at most: eight for each dot column of a chart 250 cells wide."""


Number = TypeVar("Number", int, float)

# The columns of a series, each of shape (buckets,); `Series.__init__` says what an entry of each is.
_FIELDS: Final = (
    "_first_step",
    "_last_step",
    "_time",
    "_first",
    "_last",
    "_low",
    "_high",
    "_total",
    "_count",
    "_gaps",
)


class Column(NamedTuple):
    """The points of one column of a picture. A column with non-finite values only has `gap` set and NaN elsewhere."""

    low: float
    high: float
    first: float
    last: float
    gap: bool


class Trunk:
    """What a series shares with its copies until buckets are dropped or merged: all buckets but the newest.

    Whoever has looked at the buckets of one of them has seen those of the others, as far as both reach.
    """

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen: tuple[tuple[int, int, bool], int, int, float, float] | None = None
        """The last values that were asked for: of which steps, those of which buckets, their lowest and highest."""


class Series:
    """Values by step. Steps are 64-bit integers; values are any floats, of which NaN and infinities become gaps.

    `capacity` (at least 2) bounds the buckets; up to that many points are kept exactly.
    """

    __slots__ = (
        "_branch",
        "_capacity",
        "_end",
        "_seams",
        "_shared",
        "_step",
        "_width",
        "last",
        "last_time",
        "trunk",
        *_FIELDS,
    )

    def __init__(self, points: Iterable[tuple[int, float]] = (), *, capacity: int = CAPACITY) -> None:
        if capacity < 2:
            raise ValueError(f"capacity must be at least 2, not {capacity}")
        self._capacity = capacity
        self._width = 1
        self._step: int | None = None  # the newest step
        self._end = 0  # first step that needs a new bucket
        self._seams: list[int] = []
        self._shared = False  # whether a copy has the same arrays, so that they must not change
        self._branch = False  # whether it is a copy, which leaves the trunk when it grows
        self.trunk = Trunk()
        """Tells what it has in common with what it was, and with its copies."""
        # One entry a bucket. NaN, and infinities the wrong way round, stand in a bucket of gaps only.
        self._first_step = array("q")  # of its first finite value, or of its first gap if there is none
        self._last_step = array("q")  # of its last point, finite or not
        self._time = array("d")  # unix seconds of its first point, NaN when unknown
        self._first = array("d")
        self._last = array("d")
        self._low = array("d")
        self._high = array("d")
        self._total = array("d")  # sum of the finite values
        self._count = array("q")  # finite values
        self._gaps = array("q")  # the others
        self.last: float | None = None
        """The newest value as it was given, so possibly NaN; None before the first."""
        self.last_time = nan
        """Unix seconds of the newest value; NaN when unknown."""
        for step, value in points:
            self.append(step, value)

    # --- growing -----------------------------------------------------------------------------------------------------

    def append(self, step: int, value: float, t: float = nan) -> None:
        """Add the value of `step`, written at unix time `t`.

        A step not above the newest one is a resume: the points at or after it are dropped and a seam is recorded.
        """
        if self._shared:
            self._unshare()
        newest = self._step
        if newest is not None and step <= newest:
            self._rewind(step)  # may leave no bucket at all, and sets `_end` so that the step opens one
        finite = value - value == 0.0  # false for NaN and infinities
        if step >= self._end or newest is None:
            self._open(step, value, finite, t)
        else:  # within the newest bucket
            self._last_step[-1] = step
            if not finite:
                self._gaps[-1] += 1
            elif self._count[-1]:
                self._count[-1] += 1
                self._total[-1] += value
                self._last[-1] = value
                if value < self._low[-1]:
                    self._low[-1] = value
                elif value > self._high[-1]:
                    self._high[-1] = value
            else:  # the first finite value in a bucket of gaps, which has had the step of its first gap
                self._first_step[-1] = step
                self._be_one_value(value)
        self._step = step
        self.last = value
        self.last_time = t

    def extend(self, steps: Sequence[int], values: Sequence[float], times: Sequence[float]) -> None:
        """Append as many points at once: what a loop of `append` would leave, in a tenth of its time.

        Quick where steps rise and values are finite; other points are appended one by one.
        """
        if not steps:
            return
        newest = self._step
        if self._width == 1:  # where a step that is there twice shares a bucket
            rises = (newest is None or newest < steps[0]) and all(map(lt, steps, islice(steps, 1, None)))
        else:  # quicker, and all that wide buckets need
            rises = (newest is None or newest <= steps[0]) and sorted(steps) == list(steps)
        if not rises or not isfinite(sum(values)):
            for step, value, t in zip(steps, values, times, strict=True):
                self.append(step, value, t)
            return
        if self._shared:
            self._unshare()
        begin = 0
        while begin < len(steps):
            if self._first_step and steps[begin] < self._end:
                begin = self._fill(steps, values, times, begin)
            else:
                # One bucket more than there is room for, which makes `_reached` double the width.
                room = max(self._capacity + 1 - len(self._first_step), 1)
                begin = self._open_many(steps, values, times, begin, room)

    def _fill(self, steps: Sequence[int], values: Sequence[float], times: Sequence[float], begin: int) -> int:
        """Put the points from `begin` on that lie in the newest bucket into it; the index of the first one behind."""
        if not self._count[-1]:  # the first finite value after gaps
            self.append(steps[begin], values[begin], times[begin])
            return begin + 1
        end = bisect_left(steps, self._end, begin)
        new = values[begin:end]  # (points,), at least one
        self._last_step[-1], self._last[-1] = steps[end - 1], new[-1]
        self._low[-1], self._high[-1] = min(self._low[-1], *new), max(self._high[-1], *new)
        self._total[-1] += sum(new)
        self._count[-1] += len(new)
        return self._reached(steps, values, times, end)

    def _open_many(
        self, steps: Sequence[int], values: Sequence[float], times: Sequence[float], begin: int, most: int
    ) -> int:
        """Open at most `most` buckets for the points from `begin` on; the index of the first one that is left."""
        columns: tuple[Iterable[float], ...]
        if self._width == 1:  # a bucket a point, which is its own first, last, lowest, highest and sum
            end = min(begin + most, len(steps))
            part, new = slice(begin, end), values[begin:end]  # (buckets,)
            columns = steps[part], steps[part], times[part], new, new, new, new, new, repeat(1, len(new))
        else:
            # Bucket k of the new ones holds the points cuts[k] to cuts[k + 1]: (buckets + 1,) rising indices. The next
            # cut is the first step beyond the end of the bucket in which the step at this cut lies.
            cuts, end, width = [begin], begin, self._width
            while len(cuts) <= most and end < len(steps):
                end = bisect_left(steps, (steps[end] // width + 1) * width, end)
                cuts.append(end)
            parts = [values[start:stop] for start, stop in pairwise(cuts)]  # (buckets,) of (points of each,)
            starts, lasts = cuts[:-1], [stop - 1 for stop in cuts[1:]]  # (buckets,) each
            columns = (
                [steps[i] for i in starts],
                [steps[i] for i in lasts],
                [times[i] for i in starts],
                [values[i] for i in starts],
                [values[i] for i in lasts],
                map(min, parts),
                map(max, parts),
                map(sum, parts),
                map(len, parts),
            )
        # In the order of `_FIELDS`; all values are finite, so nothing is said of gaps but that there are none.
        for name, column in zip(_FIELDS, (*columns, ()), strict=True):
            getattr(self, name).extend(column)
        self._gaps.extend(repeat(0, len(self._first_step) - len(self._gaps)))
        return self._reached(steps, values, times, end)

    def _reached(self, steps: Sequence[int], values: Sequence[float], times: Sequence[float], end: int) -> int:
        """All points before index `end` have come; returns it."""
        self._step, self.last, self.last_time = steps[end - 1], values[end - 1], times[end - 1]
        self._end = (self._step // self._width + 1) * self._width
        if len(self._first_step) > self._capacity:
            self._coarsen()
        return end

    def _open(self, step: int, value: float, finite: bool, t: float) -> None:
        """Start a bucket with this point."""
        self._first_step.append(step)  # first, because a step beyond 64 bits fails here
        self._end = (step // self._width + 1) * self._width
        self._last_step.append(step)
        self._time.append(t)
        low = high = value
        if not finite:
            value, low, high = nan, inf, -inf
        self._first.append(value)
        self._last.append(value)
        self._low.append(low)
        self._high.append(high)
        self._total.append(value if finite else 0.0)
        self._count.append(finite)
        self._gaps.append(not finite)
        if len(self._first_step) > self._capacity:
            self._coarsen()

    def _be_one_value(self, value: float) -> None:
        """Make `value` the only finite one of the newest bucket."""
        self._first[-1] = self._last[-1] = self._low[-1] = self._high[-1] = self._total[-1] = value
        self._count[-1] = 1

    def _rewind(self, step: int) -> None:
        """Drop the points at or after `step`. Of a bucket across it only the first point is known to lie before."""
        self.trunk = Trunk()
        self._seams = [seam for seam in self._seams if seam < step] + [step]
        keep = bisect_left(self._first_step, step)
        for name in _FIELDS:
            del getattr(self, name)[keep:]
        if not keep:
            self._end = step  # which opens a bucket
            return
        self._end = (self._first_step[-1] // self._width + 1) * self._width
        if self._last_step[-1] >= step:
            self._last_step[-1] = self._first_step[-1]
            if self._count[-1]:
                self._gaps[-1] = 0
                self._be_one_value(self._first[-1])
            else:
                self._gaps[-1] = 1

    def _coarsen(self) -> None:
        """Double the width, and merge the pairs that then belong together, until the buckets are few enough."""
        self.trunk = Trunk()  # buckets that somebody has looked at are about to become others
        while len(self._first_step) > self._capacity:
            self._width *= 2
            # The numbers of the buckets in the new width, (buckets,), rising: two neighbours with the same number are
            # the halves of one. Steps that were skipped leave a bucket without its other half.
            keys = list(map(floordiv, self._first_step, repeat(self._width)))
            even = len(keys) & ~1  # the buckets but for an odd one at the end
            if keys[0:even:2] == keys[1:even:2] and not any(self._gaps):
                self._merge_neighbours(even)
                continue
            # Indices of the left and the right half of every new bucket, (new buckets,) each; the same where there is
            # one half only. A bucket begins where the number changes, and the one before ends there.
            lefts = [0, *(i for i in range(1, len(keys)) if keys[i] != keys[i - 1])]
            if len(lefts) < len(keys):  # else no two were neighbours: a wider bucket will have both
                self._merge(lefts, [i - 1 for i in lefts[1:]] + [len(keys) - 1])
        self._end = (self._first_step[-1] // self._width + 1) * self._width

    def _merge_neighbours(self, even: int) -> None:
        """Put each two of the first `even` buckets together, none of which has gaps: the usual case, and quick."""
        # Of (even,) the left halves are every second one from 0 on, the right halves from 1 on: (even / 2,) each.
        left, right = slice(0, even, 2), slice(1, even, 2)
        # What comes first is that of the left half, what comes last that of the right one. Without gaps there is
        # nothing to choose, and the count of gaps, 0, is that of either.
        kept = {"_first_step": left, "_last_step": right, "_time": left, "_first": left, "_last": right, "_gaps": left}
        lows, highs = (zip(column[left], column[right], strict=True) for column in (self._low, self._high))
        made = {  # written out, min and max would take twice as long
            "_low": [b if b < a else a for a, b in lows],
            "_high": [b if b > a else a for a, b in highs],
            "_total": map(add, self._total[left], self._total[right]),
            "_count": map(add, self._count[left], self._count[right]),
        }
        for name in _FIELDS:
            column = getattr(self, name)
            merged = column[kept[name]] if name in kept else array(column.typecode, made[name])
            setattr(self, name, merged + column[even:])  # (even / 2,) and the odd one, which waits for its right half

    def _merge(self, lefts: list[int], rights: list[int]) -> None:
        """Put each two buckets together; where left and right are the same, there is only one."""
        pairs = list(zip(lefts, rights, strict=True))  # (new buckets,) of the indices of their halves
        count = self._count  # (old buckets,)
        # The half with the first finite value, and the half with the last one. A half of gaps only has neither and
        # gives way to the other; where both are such, the left one stands, whose step is that of its first gap.
        firsts = [i if count[i] or not count[j] else j for i, j in pairs]  # (new buckets,) of old indices
        lasts = [j if count[j] else i for i, j in pairs]
        # Where a point lies: a bucket is drawn at its first finite value, so that gaps before it move no dot. Its last
        # point and the time of its first one count whether finite or not.
        self._first_step = array("q", [self._first_step[i] for i in firsts])
        self._last_step = array("q", [self._last_step[i] for i in rights])
        self._time = array("d", [self._time[i] for i in lefts])
        # What is seen of it. In a half of gaps the lowest is +inf and the highest -inf, which lose every comparison.
        self._first = array("d", [self._first[i] for i in firsts])
        self._last = array("d", [self._last[i] for i in lasts])
        self._low = array("d", map(min, [self._low[i] for i in lefts], [self._low[i] for i in rights]))
        self._high = array("d", map(max, [self._high[i] for i in lefts], [self._high[i] for i in rights]))
        # Sums over both halves, for the mean and the number of points; gaps add 0.0 to the total.
        self._total = array("d", _sums(self._total, pairs))
        self._count = array("q", _sums(self._count, pairs))
        self._gaps = array("q", _sums(self._gaps, pairs))

    # --- asking ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Points kept or summarised, gaps included."""
        return self.count + self.gaps

    def __bool__(self) -> bool:
        return bool(self._first_step)

    @property
    def count(self) -> int:
        """Finite values."""
        return sum(self._count)

    @property
    def gaps(self) -> int:
        """Values that were NaN or infinite."""
        return sum(self._gaps)

    @property
    def width(self) -> int:
        """Steps that a bucket covers, a power of two; 1 means that every point is kept as it was."""
        return self._width

    @property
    def seams(self) -> tuple[int, ...]:
        """Steps, ascending, at which the run was resumed and overwrote what it had written before."""
        return tuple(self._seams)

    @property
    def first_time(self) -> float:
        """Unix seconds of the oldest value whose time is known; NaN when none is."""
        return next((t for t in self._time if t == t), nan)

    @property
    def distance(self) -> int:
        """Steps from one bucket to the next, the median of all; 0 for fewer than two."""
        distances = sorted(map(sub, self._first_step[1:], self._first_step))
        return distances[(len(distances) - 1) // 2] if distances else 0

    @property
    def x_range(self) -> tuple[int, int] | None:
        """Lowest and highest step; None when empty."""
        return (self._first_step[0], self._last_step[-1]) if self._first_step else None

    @property
    def settled(self) -> int | None:
        """The step below which no later point changes anything, unless it brings a new trunk; None when empty."""
        return self._first_step[-1] if self._first_step else None

    def y_range(self, x0: int, x1: int, *, positive: bool = False) -> tuple[float, float] | None:
        """Lowest and highest value at steps in [x0, x1), of the positive ones only if wanted; None without any.

        Asked again for the same steps, it looks at new buckets only.
        """
        steps = self._first_step
        begin, end = bisect_left(steps, x0), bisect_left(steps, x1)
        settled = min(end, len(steps) - 1)
        asked, low, high, start = (x0, x1, positive), inf, -inf, begin
        if (seen := self.trunk.seen) and seen[0] == asked and seen[1] == begin and seen[2] <= settled:
            _, _, start, low, high = seen
        if start < settled:
            low, high = self._widened(low, high, slice(start, settled), positive)
            self.trunk.seen = (asked, begin, settled, low, high)
        low, high = self._widened(low, high, slice(max(start, settled), end), positive)
        return (low, high) if low <= high else None

    def _widened(self, low: float, high: float, part: slice, positive: bool) -> tuple[float, float]:
        """The lowest and highest of these two and of some buckets."""
        lows, highs = self._low[part], self._high[part]
        if positive:
            # A bucket that crosses zero tells its highest value, which is the best that is known of its positive ones.
            lows = array("d", [a if a > 0 else b for a, b in zip(lows, highs, strict=True) if b > 0])
        return min(low, min(lows, default=inf)), max(high, max(highs, default=-inf))

    def columns(self, x0: int, x1: int, n: int, start: int = 0, stop: int | None = None) -> list[Column | None]:
        """The steps [x0, x1) in `n` equal columns, None where there is no point; raises ValueError if x1 <= x0.

        Of these, the columns from `start` to `stop`. A bucket lies in the column of its first point, so more points
        leave it there until buckets merge.
        """
        if x1 <= x0:
            raise ValueError(f"no steps in [{x0}, {x1})")
        return list(self._cut(x0, x1, n, start, n if stop is None else stop))

    def _cut(self, x0: int, x1: int, n: int, start: int, stop: int) -> Iterator[Column | None]:
        steps, firsts, lasts, lows, highs = self._first_step, self._first, self._last, self._low, self._high
        # Column k begins at the step x0 + (x1 - x0) * k / n, rounded up in whole numbers.
        begin = bisect_left(steps, x0 - (x0 - x1) * start // n) if n else 0
        finite = not any(self._gaps[begin:])  # then nothing need be looked at one by one
        for column in range(start + 1, stop + 1):
            if begin == len(steps):
                yield from repeat(None, stop + 1 - column)
                return
            end = bisect_left(steps, x0 - (x0 - x1) * column // n, begin)
            if end == begin:
                yield None
            elif finite:
                low, high = min(lows[begin:end]), max(highs[begin:end])
                yield Column(low, high, firsts[begin], lasts[end - 1], False)
            else:
                yield self._summary(slice(begin, end))
            begin = end

    def _summary(self, part: slice) -> Column:
        """One column out of buckets of which any may have gaps."""
        gap = any(self._gaps[part])
        low, high = min(self._low[part]), max(self._high[part])
        if low > high:
            return Column(nan, nan, nan, nan, gap)
        return Column(low, high, _first_number(self._first[part]), _first_number(reversed(self._last[part])), gap)

    def copy(self) -> Series:
        """An independent copy; nothing is really copied until one of the two grows, and then buckets, not points."""
        self._shared = True
        twin = Series(capacity=self._capacity)
        for name in ("_width", "_step", "_end", "_seams", "_shared", "last", "last_time", "trunk", *_FIELDS):
            setattr(twin, name, getattr(self, name))
        twin._branch = True
        return twin

    def _unshare(self) -> None:
        for name in ("_seams", *_FIELDS):
            setattr(self, name, getattr(self, name)[:])
        self._shared = False
        if self._branch:
            self._branch, self.trunk = False, Trunk()

    def smoothed(self, half_life: float) -> Series:
        """The running mean with exponential weights, which halve every `half_life` steps (> 0), free of start-up bias.

        Every bucket becomes one value; gaps and seams stay.
        """
        if not half_life > 0:
            raise ValueError(f"half_life must be positive, not {half_life}")
        curve = self.copy()
        curve._unshare()
        # Over the buckets k <= i that have finite values, at the steps s_k of their first ones, with d the half-life:
        # total = sum of 2^((s_k - s_i) / d) * total_k, weight = the same of count_k; the mean is their quotient, which
        # is right from the first bucket on. Both are carried from bucket to bucket.
        total = weight = 0.0
        before = 0
        for i, (step, count) in enumerate(zip(self._first_step, self._count, strict=True)):
            if not count:
                continue
            decay = exp2((before - step) / half_life) if weight else 0.0
            total = decay * total + self._total[i]
            weight = decay * weight + count
            before = step
            curve.last = total / weight
            for column in (curve._first, curve._last, curve._low, curve._high):
                column[i] = curve.last
        return curve

    def part(self, low: int, high: int) -> Series:
        """What there is at steps in [low, high)."""
        curve = self.copy()
        curve._unshare()
        kept = slice(bisect_left(self._first_step, low), bisect_left(self._first_step, high))
        for name in _FIELDS:
            setattr(curve, name, getattr(self, name)[kept])
        curve._seams = [seam for seam in self._seams if low <= seam < high]
        return curve

    def by_time(self, origin: float) -> Series:
        """The same values over the milliseconds since unix time `origin`; points without a time are left out.

        A bucket lies where its first point does. A clock that was set back stands still until it is caught up.
        """
        curve = self.copy()
        curve._unshare()
        kept = [i for i, t in enumerate(self._time) if t == t]  # not NaN
        for name in _FIELDS:
            column = getattr(self, name)
            setattr(curve, name, array(column.typecode, [column[i] for i in kept]))
        # (kept,) milliseconds, none below the one before: the running maximum of a clock that may have been set back.
        moments = list(accumulate((max(round(1000 * (self._time[i] - origin)), 0) for i in kept), max))
        curve._first_step = array("q", moments)
        ends = [*moments[1:], max(moments[-1], round(1000 * (self.last_time - origin)))] if moments else []
        curve._last_step = array("q", ends)
        # A seam lies where the first bucket at or after it does, if that one is kept.
        places = [bisect_left(self._first_step, seam) for seam in self._seams]
        curve._seams = sorted({moments[kept.index(i)] for i in places if i in kept})
        return curve

    def means(self) -> list[tuple[int, float]]:
        """The mean of each bucket that has finite values, with the step of its first one; every point while there is
        room for all."""
        return [
            (step, total / count)
            for step, total, count in zip(self._first_step, self._total, self._count, strict=True)
            if count
        ]


def _sums(column: array[Number], pairs: list[tuple[int, int]]) -> list[Number]:
    """The sum of each pair of entries, an entry alone where both are the same: (pairs,)."""
    return [column[i] + column[j] if i != j else column[i] for i, j in pairs]


def _first_number(values: Iterable[float]) -> float:
    """The first value that is not NaN, which there must be."""
    return next(value for value in values if value == value)
