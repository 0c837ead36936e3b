"""Curves as text: where dots go, what stays empty, and that no size or value breaks it."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cafe_tui.charts.axes import StepAxis, TimeAxis, ValueAxis
from cafe_tui.charts.raster import (
    BRAILLE,
    Canvas,
    Charset,
    Curve,
    Plot,
    draw,
    fitted_axes,
    follow,
    picture,
)
from cafe_tui.charts.series import Series
from cafe_tui.charts.svg import to_svg
from cafe_tui.console.views import to_rich

CHARSETS = st.sampled_from(["braille", "ascii"])
ANY_FLOAT = st.floats()
POINTS = st.lists(st.tuples(st.integers(-(10**6), 10**6), ANY_FLOAT), max_size=30)


def axes(low: float, high: float, steps: int) -> tuple[StepAxis, ValueAxis]:
    """Exactly these axes."""
    y = ValueAxis()
    y.low, y.high = low, high
    return StepAxis(low=0, high=steps), y


def field(curves: list[Curve], high: float, steps: int, width: int, height: int, charset: Charset) -> list[str]:
    """The field alone, values from 0 to `high`, in `width` (>= 4) x `height` cells; labels take more."""
    plot = draw(curves, *axes(0.0, high, steps), width + 5, height + 1, charset=charset)
    return [row.text for row in plot.rows]


def bars(plot: Plot) -> list[str]:
    """The lines as text."""
    return [row.text for row in plot.lines()]


def test_braille_cells_have_all_patterns() -> None:
    assert len(set(BRAILLE.values())) == 256
    assert BRAILLE["00"] == " "
    assert BRAILLE["ff"] == "⣿"
    assert BRAILLE["80"] == "⠁"  # highest dot on the left
    assert BRAILLE["01"] == "⢀"  # lowest dot on the right


def test_a_rising_line() -> None:
    series = Series(enumerate(range(8)))
    assert field([Curve("a", series)], 7.0, 8, 4, 2, "braille") == ["  ⡠⠊", "⡠⠊  "]


def test_a_column_is_one_span_and_joined_to_the_one_before() -> None:
    series = Series([(0, 0.0), (1, 7.0), (2, 7.0), (3, 0.0)])
    assert field([Curve("a", series)], 7.0, 8, 4, 2, "braille") == ["⢸⢱  ", "⡸⢸  "]


def test_ascii_uses_a_mark_for_each_curve() -> None:
    low, high = Series([(0, 0.0), (3, 0.0)]), Series([(0, 3.0), (3, 3.0)])
    rows = field([Curve("low", low, 1), Curve("high", high, 2)], 3.0, 4, 4, 3, "ascii")
    assert rows == ["oooo", "    ", "****"]


def test_the_curve_drawn_last_gives_its_colour_and_adds_its_dots() -> None:
    first, last = Series([(0, 0.0)]), Series([(1, 0.0)])
    plot = draw([Curve("a", first, 1), Curve("b", last, 2)], *axes(0.0, 1.0, 2), 1, 1)
    assert plot.rows[0].text == "⣀"
    assert plot.rows[0].colours == bytes([2])


def test_a_gap_breaks_the_line_and_is_marked() -> None:
    series = Series([(0, 3.0), (1, 3.0), (2, math.nan), (3, 3.0)])
    assert field([Curve("a", series)], 3.0, 4, 4, 3, "ascii") == ["** *", "    ", "  ! "]


def test_missing_steps_are_bridged() -> None:
    series = Series([(0, 3.0), (3, 3.0)])
    assert field([Curve("a", series)], 3.0, 4, 4, 2, "ascii")[0] == "****"


def test_a_seam_is_a_faint_line_behind_the_curve() -> None:
    series = Series([(0, 3.0), (1, 3.0), (2, 3.0), (3, 3.0), (2, 3.0), (3, 3.0)])
    plot = draw([Curve("a", series)], *axes(0.0, 3.0, 4), 9, 4, charset="ascii")
    assert [row.text for row in plot.rows] == ["****", "  : ", "  : "]
    assert [row.colours[2] for row in plot.rows] == [1, 0, 0]


def test_zero_is_a_faint_line_when_values_lie_on_both_sides() -> None:
    series = Series([(0, -1.0), (1, 1.0)])
    x, y = axes(-1.0, 1.0, 40)
    assert any("┈┈┈" in row.text for row in draw([Curve("a", series)], x, y, 40, 10).rows)
    y.low = 0.0
    assert not any("┈" in row.text for row in draw([Curve("a", series)], x, y, 40, 10).rows)


def test_labels_stand_at_their_values_and_steps() -> None:
    series = Series(enumerate([0.0] * 1000))
    lines = bars(draw([Curve("a", series)], *axes(0.0, 1.0, 1000), 45, 9))
    assert lines[0].startswith("   1┤")
    assert lines[7].startswith("   0┤")
    assert lines[8].split() == ["0", "500"]


def test_without_values_there_are_no_axes() -> None:
    plot = draw([Curve("loss", Series())], StepAxis(), ValueAxis(), 30, 5)
    assert "no values yet" in bars(plot)[2]
    assert "┤" not in "".join(bars(plot))
    assert plot.legend_pieces() == [("loss -", 1)]


def test_a_logarithm_says_when_it_has_nothing_to_show() -> None:
    curves = [Curve("psi", Series([(0, -1.0), (1, -2.0)]))]
    x, y = StepAxis(), ValueAxis(log=True)
    follow(curves, x, y)
    assert "no positive values" in "\n".join(bars(draw(curves, x, y, 40, 6)))


def test_a_logarithm_breaks_the_line_where_values_are_not_positive() -> None:
    curves = [Curve("a", Series([(0, 1.0), (1, -1.0), (2, 1.0), (3, 10.0)]))]
    x, y = StepAxis(low=0, high=4), ValueAxis(log=True)
    follow(curves, StepAxis(), y)
    rows = [row.text for row in draw(curves, x, y, 9, 5, charset="ascii").rows]
    assert [row[1] for row in rows] == [" "] * 4


def test_the_legend_names_curves_with_their_newest_values() -> None:
    a, b = Series([(0, 0.412)]), Series([(0, -0.398)])
    plot = picture([Curve("hypothesis loss", a, 1), Curve("test-function loss", b, 2)], 60, 10)
    text = "".join(piece for piece, _ in plot.legend_pieces())
    assert text == "hypothesis loss 0.412  test-function loss -0.398"
    assert "".join(piece for piece, _ in plot.legend_pieces("game")).startswith("game  hypothesis")


def test_a_name_cannot_send_control_characters() -> None:
    plot = picture([Curve("lo\x1b[2Jss\n", Series([(0, 1.0)]))], 40, 8)
    assert plot.legend[0].name == "lo?[2Jss?"
    assert "\x1b" not in to_svg("a\x1bb", [Curve("x\x07", Series([(0, 1.0)]))])


@given(st.lists(POINTS, max_size=3), st.integers(0, 60), st.integers(0, 20), CHARSETS, st.booleans())
def test_any_values_in_any_size_make_a_picture_of_that_size(
    data: list[list[tuple[int, float]]], width: int, height: int, charset: Charset, log: bool
) -> None:
    curves = [Curve(f"c{i}", Series(points, capacity=8), i + 1) for i, points in enumerate(data)]
    followed = StepAxis(), ValueAxis(log)
    follow(curves, *followed)
    for x, y in (followed, fitted_axes(curves, log=log), (StepAxis(), ValueAxis(log))):
        lines = draw(curves, x, y, width, height, charset=charset).lines()
        assert len(lines) == height
        assert all(len(row.text) == len(row.colours) == width for row in lines)
        assert charset == "braille" or all(row.text.isascii() for row in lines)


@given(st.lists(st.floats(-5, 5), min_size=64, max_size=400))
def test_old_dots_stay_while_the_axes_do(values: list[float]) -> None:
    series = Series()
    x, y = axes(-5.0, 5.0, 512)
    plots = []
    for step, value in enumerate(values):
        series.append(step, value)
        if step in (31, len(values) - 1):
            plots.append(draw([Curve("a", series)], x, y, 69, 13))
    before, after = ([row.text[:3] for row in plot.rows] for plot in plots)
    assert before == after


@given(st.lists(st.floats(0, 1), min_size=2, max_size=50))
def test_a_curve_has_no_holes(values: list[float]) -> None:
    series = Series(enumerate(values))
    plot = draw([Curve("a", series)], *axes(0.0, 1.0, len(values)), 25, 11, charset="ascii")
    columns = ["".join(column) for column in zip(*(row.text for row in plot.rows), strict=True)]
    spans = [{i for i, sign in enumerate(column) if sign == "*"} for column in columns]
    spans = spans[: (len(values) - 1) * len(spans) // len(values) + 1]  # up to the column of the last value
    for left, right in pairwise(spans):
        assert right == set(range(min(right), max(right) + 1))
        assert min(right) <= max(left) + 1
        assert max(right) >= min(left) - 1


# --- console and SVG -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (80, 24)])
def test_rich_text_has_the_lines_of_the_picture(size: tuple[int, int]) -> None:
    plot = picture([Curve("loss", Series([(0, 1.0), (9, 2.0)]))], *size)
    text = to_rich(plot)
    assert text.plain.split("\n")[1:] == bars(plot)
    assert len(bars(plot)) == size[1] - 1


def test_svg_is_valid_and_says_everything() -> None:
    series = Series([(0, 1.0), (1, math.nan), (2, 3.0), (3, 2.0), (3, 1.0), (2, 4.0)])
    document = to_svg('a < b & "c"', [Curve("x<y", series, 1), Curve("empty", Series(), 2)], 400, 300)
    root = ET.fromstring(document)
    texts = "".join(root.itertext())
    assert 'a < b & "c"' in texts
    assert "x<y" in texts
    assert "×" in texts
    lines = root.findall("{*}polyline")
    assert len(lines) == 2  # before and after the gap
    assert len(root.findall("{*}path[@class='seam']")) == 1


@given(POINTS, st.booleans())
def test_svg_takes_any_values(points: list[tuple[int, float]], log: bool) -> None:
    document = to_svg("any", [Curve("a", Series(points))], 200, 150, log=log)
    assert "nan" not in document
    assert "inf" not in document
    ET.fromstring(document)


def test_svg_refuses_sizes_without_a_field() -> None:
    with pytest.raises(ValueError, match="pixels"):
        to_svg("t", [], 100, 100)


def test_a_time_axis_draws_no_line_over_a_standstill() -> None:
    times = [*range(100), *range(1000, 1100)]  # seconds: the run was stopped for a quarter of an hour
    series = Series()
    for step, t in enumerate(times):
        series.append(step, 0.5, float(t))
    x = TimeAxis(low=0, high=1_100_000)
    over_time = draw([Curve("a", series.by_time(0.0))], x, ValueAxis(), 115, 10).rows
    drawn = [cell for cell in range(len(over_time[0].text)) if any(row.colours[cell] for row in over_time)]
    assert drawn[0] == 0
    assert not set(drawn) & set(range(12, 98))
    assert max(drawn) == len(over_time[0].text) - 1
    over_steps = draw([Curve("a", series)], StepAxis(low=0, high=200), ValueAxis(), 115, 10).rows
    assert all(any(row.colours[cell] for row in over_steps) for cell in range(len(over_steps[0].text)))


GROWTH = st.lists(
    st.tuples(
        st.integers(0, 1),  # the curve
        st.lists(
            st.tuples(
                st.sampled_from([1, 1, 1, 0, 2, 7, 90, -3, -60]),
                st.floats(-3.0, 9.0) | st.sampled_from([math.nan, math.inf, 0.0, 1.0, 40.0, 1e-3]),
            ),
            min_size=1,
            max_size=12,
        ),
        st.sampled_from(["as it is", "as a copy", "as an older copy"]),
    ),
    max_size=14,
)


@settings(max_examples=300)
@given(
    growth=GROWTH,
    capacity=st.sampled_from([4, 16, 4096]),
    window=st.none() | st.just(24),
    log=st.booleans(),
    by_time=st.booleans(),
    size=st.sampled_from([(30, 7), (61, 9), (12, 4)]),
    charset=CHARSETS,
)
def test_a_continued_picture_is_the_one_drawn_afresh(
    growth: list[tuple[int, list[tuple[int, float]], str]],
    capacity: int,
    window: int | None,
    log: bool,
    by_time: bool,
    size: tuple[int, int],
    charset: Charset,
) -> None:
    both, newest = [Series(capacity=capacity), Series(capacity=capacity)], [0, 0]
    older = [series.copy() for series in both]
    x, y, canvas = (TimeAxis if by_time else StepAxis)(window), ValueAxis(log), Canvas(charset)
    for which, points, handed in growth:
        before = both[which].copy()
        for jump, value in points:
            newest[which] += jump
            both[which].append(newest[which], value)
        shown = both if handed == "as it is" else [series.copy() for series in both] if handed == "as a copy" else older
        older[which] = before
        curves = [Curve(name, series, i) for i, (name, series) in enumerate(zip("ab", shown, strict=True), 1)]
        follow(curves, x, y)
        assert canvas.draw(curves, x, y, *size) == draw(curves, x, y, *size, charset=charset)
        for series in shown:
            fresh = Series(capacity=capacity) if not series else series.part(-(10**6), 10**6)
            for positive in (False, True):
                asked = (x.low, x.high)
                assert series.y_range(*asked, positive=positive) == fresh.y_range(*asked, positive=positive)
