"""Axes: what they show, when they move, and what stands beside them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafe_tui.charts.axes import SMALLEST_SPAN, StepAxis, TimeAxis, ValueAxis, label, short

STEPS = st.integers(-(10**9), 10**9)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@given(st.lists(st.tuples(STEPS, STEPS), min_size=1, max_size=20))
def test_steps_are_in_view_on_a_power_of_two(ranges: list[tuple[int, int]]) -> None:
    axis = StepAxis()
    for pair in ranges:
        axis.update(min(pair), max(pair))
        assert axis.low <= min(pair) <= max(pair) < axis.high
        assert (axis.high - axis.low).bit_count() == 1
        assert not axis.update(min(pair), max(pair))


def test_a_growing_run_moves_the_step_axis_only_when_it_doubles() -> None:
    axis = StepAxis()
    changes = [step for step in range(2000) if axis.update(0, step)]
    assert changes == [16, 32, 64, 128, 256, 512, 1024]
    assert axis == StepAxis(low=0, high=2048)


def test_the_step_axis_shrinks_late() -> None:
    axis = StepAxis()
    axis.update(0, 1000)
    assert not axis.update(0, 300)
    assert axis.update(0, 200)
    assert axis.high == 256


def test_steps_far_from_zero_fill_the_axis() -> None:
    axis = StepAxis()
    axis.update(100_000, 100_100)
    assert axis.high - axis.low <= 256


@given(st.integers(1, 5000), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_a_window_shows_the_newest_steps(window: int, lasts: list[int]) -> None:
    axis = StepAxis(window)
    for last in sorted(lasts):
        axis.update(0, last)
        assert axis.low <= max(0, last - window + 1)
        assert last < axis.high
        assert axis.high - axis.low <= max(2 * window, SMALLEST_SPAN)


def test_a_window_moves_by_quarters() -> None:
    axis = StepAxis(1000)
    axis.update(0, 1000)
    assert sum(axis.update(0, step) for step in range(1000, 3000)) == 7


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="window"):
        StepAxis(0)


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=20))
def test_values_are_in_view(ranges: list[tuple[float, float]]) -> None:
    axis = ValueAxis()
    for pair in ranges:
        low, high = (max(-1e300, min(end, 1e300)) for end in sorted(pair))
        axis.update(min(pair), max(pair))
        assert axis.low <= low <= high <= axis.high
        assert not axis.update(min(pair), max(pair))
        assert 0 <= axis.place(min(pair)) <= axis.place(max(pair)) <= 1


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=20))
def test_positive_values_are_in_view_on_a_logarithmic_axis(ranges: list[tuple[float, float]]) -> None:
    axis = ValueAxis(log=True)
    for pair in ranges:
        axis.update(min(pair), max(pair))
        assert 0 < axis.low < axis.high
        assert not axis.update(min(pair), max(pair))
        assert 0 <= axis.place(min(pair)) <= axis.place(max(pair)) <= 1
        assert 0 < len(axis.ticks(5)) <= 5


def test_the_value_axis_grows_at_once_and_shrinks_late() -> None:
    axis = ValueAxis()
    axis.update(0.0, 0.9)
    assert (axis.low, axis.high) == (0.0, 1.0)
    assert axis.update(0.0, 1.01)
    assert axis.high == 1.2
    assert not axis.update(0.0, 0.61)
    assert axis.update(0.0, 0.45)
    assert axis.high == 0.5


def test_values_that_swing_do_not_move_the_axis_to_and_fro() -> None:
    axis = ValueAxis()
    axis.update(-1.0, 1.0)
    moves = sum(axis.update(-1.0 + 0.6 * (i % 2), 1.0 - 0.15 * (i % 3)) for i in range(100))
    assert moves == 0


def test_a_decaying_loss_seldom_moves_the_axis() -> None:
    axis, moves = ValueAxis(), 0
    for step in range(10_000):
        moves += axis.update(2.3 * math.exp(-step / 2000), 2.3)
    assert moves <= 30  # most of them early, when the first values are close together


@pytest.mark.parametrize("value", [0.0, 5.0, -3e-7, 1e12])
def test_a_constant_has_room_on_both_sides(value: float) -> None:
    axis = ValueAxis()
    axis.update(value, value)
    assert 0.2 < axis.place(value) < 0.8


def test_a_logarithmic_axis_takes_no_zero() -> None:
    with pytest.raises(ValueError, match="logarithmic"):
        ValueAxis(log=True).update(0.0, 1.0)


@given(FLOATS, FLOATS, st.integers(-1, 40))
def test_ticks_are_round_few_and_in_view(a: float, b: float, most: int) -> None:
    axis = ValueAxis()
    axis.update(min(a, b), max(a, b))
    ticks = axis.ticks(most)
    assert len(ticks) <= max(most, 0)
    assert len({text for _, text in ticks}) == len(ticks)
    noise = 1e-6 * (axis.high - axis.low)
    assert all(axis.low - noise <= value <= axis.high + noise for value, _ in ticks)
    assert all(len(text) <= 12 for _, text in ticks)


@given(STEPS, st.integers(0, 10**6), st.integers(1, 20))
def test_step_ticks_lie_on_the_axis(first: int, more: int, most: int) -> None:
    axis = StepAxis()
    axis.update(first, first + more)
    ticks = axis.ticks(most)
    assert len(ticks) <= most
    assert all(axis.low <= tick < axis.high for tick in ticks)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 2.3, ["0", "0.5", "1.0", "1.5", "2.0", "2.5"]),
        (-0.4, 0.41, ["-0.4", "-0.2", "0", "0.2", "0.4", "0.6"]),
        (1e-5, 3e-4, ["0", "1e-4", "2e-4", "3e-4"]),
        (12_000, 154_000, ["0", "50k", "100k", "150k"]),
    ],
)
def test_labels_tell_ticks_apart_in_few_characters(low: float, high: float, labels: list[str]) -> None:
    axis = ValueAxis()
    axis.update(low, high)
    assert [text for _, text in axis.ticks(6)] == labels


def test_logarithmic_ticks_are_powers_of_ten_or_finer() -> None:
    axis = ValueAxis(log=True)
    axis.update(1e-4, 2.3)
    assert [text for _, text in axis.ticks(6)] == ["1e-4", "0.001", "0.01", "0.1", "1"]
    axis.update(0.6, 1.9)
    assert [text for _, text in axis.ticks(6)] == ["0.5", "1", "2"]


@pytest.mark.parametrize(
    ("value", "jump", "text"),
    [(0.25, 0.05, "0.25"), (1200, 200, "1.2k"), (3e-4, 1e-4, "3e-4"), (1.5e-4, 5e-5, "1.5e-4"), (2e6, 5e5, "2M")],
)
def test_label(value: float, jump: float, text: str) -> None:
    assert label(value, jump) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.412, "0.412"),
        (-0.398, "-0.398"),
        (1234.5, "1.23k"),
        (999.9, "1000"),
        (3.2e-4, "3.20e-4"),
        (0.0, "0"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (91.25, "91.2"),
    ],
)
def test_short(value: float, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(
    ("low", "high", "most", "labels"),
    [
        (0, 16, 4, ["0s", "0.005s", "0.01s", "0.015s"]),
        (0, 65_536, 5, ["0s", "15s", "30s", "45s", "1m"]),
        (0, 9_000_000, 6, ["0s", "30m", "1h", "1h30m", "2h"]),
        (0, 10 * 86_400_000, 6, ["0s", "2d", "4d", "6d", "8d"]),
        (90_000, 95_000, 3, ["1m30s", "1m32s", "1m34s"]),
    ],
)
def test_a_time_axis_has_round_moments(low: int, high: int, most: int, labels: list[str]) -> None:
    axis = TimeAxis(low=low, high=high)
    ticks = axis.ticks(most)
    jump = ticks[1] - ticks[0]
    assert [axis.label(tick, jump) for tick in ticks] == labels


@given(low=st.integers(0, 10**12), span=st.integers(16, 10**12), most=st.integers(1, 20))
def test_ticks_of_time_are_in_view_and_tell_each_other_apart(low: int, span: int, most: int) -> None:
    axis = TimeAxis(low=low, high=low + span)
    ticks = axis.ticks(most)
    assert len(ticks) <= most
    assert all(low <= tick < low + span for tick in ticks)
    jump = ticks[1] - ticks[0] if len(ticks) > 1 else 1
    assert len({axis.label(tick, jump) for tick in ticks}) == len(ticks)
