"""The bounded column of points against a plain list of all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cafe_tui.charts.series import CAPACITY, Column, Series

VALUES = st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf])
JUMPS = st.integers(-40, 6) | st.just(1) | st.integers(0, 3000)
APPENDS = st.lists(st.tuples(JUMPS, VALUES), max_size=120)


@dataclass
class Plain:
    """What a series is, said simply: buckets are lists of points, and everything is computed from those."""

    capacity: int
    width: int = 1
    newest: int | None = None
    buckets: dict[int, list[tuple[int, float]]] = field(default_factory=dict)

    def append(self, step: int, value: float) -> None:
        if self.newest is not None and step <= self.newest:
            self.buckets = {
                key: _finite_first(points)[:1] if points[-1][0] >= step else points
                for key, points in self.buckets.items()
                if _finite_first(points)[0][0] < step
            }
        self.newest = step
        self.buckets.setdefault(step // self.width, []).append((step, value))
        while len(self.buckets) > self.capacity:
            self.width *= 2
            merged: dict[int, list[tuple[int, float]]] = {}
            for key, points in self.buckets.items():
                merged.setdefault(key // 2, []).extend(points)
            self.buckets = merged

    def columns(self, x0: int, x1: int, n: int) -> list[Column | None]:
        held: list[list[float]] = [[] for _ in range(n)]
        for points in self.buckets.values():
            step = _finite_first(points)[0][0]
            if x0 <= step < x1:
                held[(step - x0) * n // (x1 - x0)] += [value for _, value in points]
        return [_column(values) if values else None for values in held]


def _finite_first(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Points from the first finite one on, which places a bucket, unless all are gaps."""
    start = next((i for i, (_, value) in enumerate(points) if math.isfinite(value)), 0)
    return points[start:]


def _column(values: list[float]) -> Column:
    finite = [value for value in values if math.isfinite(value)]
    gap = len(finite) < len(values)
    if not finite:
        return Column(math.nan, math.nan, math.nan, math.nan, gap)
    return Column(min(finite), max(finite), finite[0], finite[-1], gap)


@settings(max_examples=300)
@given(APPENDS, st.integers(2, 130), st.integers(-50, 50), st.integers(1, 5000), st.integers(1, 60))
def test_columns_are_those_of_all_points(
    appends: list[tuple[int, float]], capacity: int, x0: int, span: int, n: int
) -> None:
    series, plain, step = Series(capacity=capacity), Plain(capacity), 0
    for jump, value in appends:
        step += jump
        series.append(step, value)
        plain.append(step, value)
    assert series.width == plain.width
    # The representation of a float tells -0.0 and NaN apart as comparing does not.
    assert repr(series.columns(x0, x0 + span, n)) == repr(plain.columns(x0, x0 + span, n))


@given(st.lists(VALUES, min_size=1, max_size=200), st.integers(2, 50))
def test_coarse_columns_lose_no_extreme(values: list[float], capacity: int) -> None:
    series = Series(enumerate(values), capacity=capacity)
    finite = [value for value in values if math.isfinite(value)]
    assert series.y_range(0, len(values)) == ((min(finite), max(finite)) if finite else None)
    assert series.count == len(finite)
    assert series.gaps == len(values) - len(finite)
    assert len(series) == len(values)
    assert series.x_range is not None
    assert series.x_range[1] == len(values) - 1


def test_few_points_are_kept_exactly_and_many_within_bounds() -> None:
    series = Series((step, float(step)) for step in range(CAPACITY))
    assert series.width == 1
    for step in range(CAPACITY, 3 * CAPACITY):
        series.append(step, float(step))
    assert series.width == 4
    assert series.columns(0, 8, 2) == [Column(0, 3, 0, 3, False), Column(4, 7, 4, 7, False)]


def test_sparse_steps_stay_exact() -> None:
    series = Series(((step * 1000, 1.0) for step in range(100)), capacity=100)
    assert series.width == 1


def test_more_points_leave_drawn_columns_alone() -> None:
    series = Series(((step, math.sin(step)) for step in range(5000)), capacity=64)
    before = series.columns(0, 8192, 40)
    for step in range(5000, 5100):
        series.append(step, 9.0)
    full = 5000 * 40 // 8192
    assert series.columns(0, 8192, 40)[:full] == before[:full]


def test_a_resume_overwrites_and_leaves_a_seam() -> None:
    series = Series([(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0), (2, 7.0)])
    assert series.seams == (2,)
    assert [column and column.last for column in series.columns(0, 4, 4)] == [1.0, 2.0, 7.0, None]
    series.append(1, 5.0)
    assert series.seams == (1,)
    assert series.x_range == (0, 1)
    series.append(-5, 0.0)
    assert series.x_range == (-5, -5)


def test_of_a_repeated_step_the_last_value_counts() -> None:
    series = Series([(0, 1.0), (1, 2.0), (1, 3.0)])
    assert series.seams == (1,)
    assert series.means() == [(0, 1.0), (1, 3.0)]


def test_newest_value_and_time() -> None:
    series = Series()
    assert series.last is None
    assert math.isnan(series.last_time)
    series.append(3, 0.5, 1_700_000_000.0)
    series.append(4, math.nan, 1_700_000_001.0)
    assert math.isnan(series.last)
    assert series.last_time == 1_700_000_001.0


def test_positive_range_skips_what_a_logarithm_cannot_take() -> None:
    series = Series(enumerate([-1.0, 0.5, 0.0, 8.0]))
    assert series.y_range(0, 4, positive=True) == (0.5, 8.0)
    assert series.y_range(0, 1, positive=True) is None
    assert Series().y_range(0, 9) is None


def test_a_copy_is_independent() -> None:
    series = Series([(0, 1.0), (5, 2.0), (3, 4.0)])
    twin = series.copy()
    series.append(9, 9.0)
    assert twin.x_range == (0, 3)
    assert twin.seams == (3,)
    twin.append(4, 0.0)
    assert twin.last == 0.0
    assert series.last == 9.0


def test_smoothing_has_no_bias_at_the_start_and_halves_in_the_half_life() -> None:
    constant = Series((step, 3.0) for step in range(50)).smoothed(10)
    assert constant.y_range(0, 50) == pytest.approx((3.0, 3.0))
    values = [5.0, 1.0, 4.0]
    smooth = Series(enumerate(values)).smoothed(1)
    assert smooth.last == pytest.approx((4.0 + 1.0 / 2 + 5.0 / 4) / (1 + 1 / 2 + 1 / 4))


def test_smoothing_keeps_gaps_and_seams() -> None:
    smooth = Series([(0, 1.0), (1, math.nan), (3, 2.0), (2, 2.0)]).smoothed(4)
    assert smooth.gaps == 1
    assert smooth.seams == (2,)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Series(capacity=1),
        lambda: Series().columns(3, 3, 5),
        lambda: Series().smoothed(0),
        lambda: Series().smoothed(math.nan),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"capacity|no steps|half_life"):
        wrong()  # type: ignore[operator]


def test_a_step_beyond_64_bits_changes_nothing() -> None:
    series = Series([(0, 1.0)])
    with pytest.raises(OverflowError):
        series.append(2**64, 2.0)
    assert series.x_range == (0, 0)
    assert series.last == 1.0


BATCHES = st.lists(st.lists(st.tuples(st.integers(1, 50), VALUES), max_size=60), max_size=8)


@settings(deadline=None)
@given(batches=BATCHES, start=st.integers(-5, 5), capacity=st.integers(2, 40), rewind=st.integers(0, 200))
def test_points_added_at_once_leave_what_points_added_one_by_one_leave(
    batches: list[list[tuple[int, float]]], start: int, capacity: int, rewind: int
) -> None:
    single, bulk, step = Series(capacity=capacity), Series(capacity=capacity), start
    for number, batch in enumerate(batches):
        steps, values = [], []
        step -= rewind if number == 3 else 0
        for jump, value in batch:
            step += jump
            steps.append(step)
            values.append(value)
            single.append(step, value, 10.0 * step)
        bulk.extend(steps, values, [10.0 * each for each in steps])
        copy = bulk.copy()
    if not len(single):
        assert not len(bulk)
        return
    low, high = single.x_range or (0, 0)
    assert (bulk.x_range, bulk.width, bulk.seams) == (single.x_range, single.width, single.seams)
    assert (bulk.count, bulk.gaps, bulk.last_time) == (single.count, single.gaps, single.last_time)
    for series in (bulk, copy):
        assert repr(series.columns(low, high + 1, 37)) == repr(single.columns(low, high + 1, 37))
        smooth, expected = (each.smoothed(7).columns(low, high + 1, 11) for each in (series, single))
        for mine, theirs in zip(smooth, expected, strict=True):
            assert (mine is None) == (theirs is None)
            if mine and theirs:
                assert mine.low == pytest.approx(theirs.low, rel=1e-9, abs=1e-6, nan_ok=True)


def test_a_copy_and_its_original_go_their_own_ways() -> None:
    original = Series((step, float(step)) for step in range(10))
    copy = original.copy()
    original.append(10, 100.0)
    copy.append(3, -7.0)
    assert original.x_range == (0, 10)
    assert original.y_range(0, 11) == (0.0, 100.0)
    assert copy.x_range == (0, 3)
    assert copy.y_range(0, 11) == (-7.0, 2.0)


@pytest.mark.parametrize(
    ("steps", "distance"), [([], 0), ([4], 0), ([4, 9], 5), ([1, 2, 3, 900], 1), ([0, 1, 901], 1), ([0, 10, 20], 10)]
)
def test_the_distance_of_points_is_the_median(steps: list[int], distance: int) -> None:
    assert Series((step, 1.0) for step in steps).distance == distance
