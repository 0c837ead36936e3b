"""The phase plot and what it says of a swing, on paths with known answers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from textual.app import App, ComposeResult

from cafe_tui.charts.raster import Curve
from cafe_tui.charts.series import Series
from cafe_tui.ui.widgets.phase_view import PhaseView, in_words, pairs, swing
from tests.ui.waiting import until

Path2D = Callable[[float], tuple[float, float]]


def points(path: Path2D, count: int = 400) -> list[tuple[int, float, float]]:
    """A path over the parameter 0-1."""
    return [(i, *path(i / (count - 1))) for i in range(count)]


def circle(turns: float, radius: Callable[[float], float] = lambda _: 1.0) -> Path2D:
    return lambda t: (
        radius(t) * math.cos(2 * math.pi * turns * t),
        5 + 3 * radius(t) * math.sin(2 * math.pi * turns * t),
    )


@pytest.mark.parametrize("turns", [8, 20, -12])
def test_a_circle_turns_as_often_as_it_does_and_swings_over_all_of_its_range(turns: int) -> None:
    found = swing(points(circle(turns)))
    assert found is not None
    assert found.turns == pytest.approx(abs(turns) / 4, abs=0.1)
    assert found.share == pytest.approx(1.0, abs=0.02)
    assert found.steps == 99


def test_a_spiral_inwards_swings_less_and_less() -> None:
    found = swing(points(circle(16, lambda t: 1 - 0.9 * t)))
    assert found is not None
    assert found.turns == pytest.approx(4, abs=0.2)
    assert found.share < 0.4


def test_an_approach_in_a_line_and_a_motion_to_and_fro_do_not_turn() -> None:
    line = swing(points(lambda t: (math.exp(-5 * t), 2 * math.exp(-5 * t))))
    swinging = swing(points(lambda t: (math.sin(40 * t), math.sin(40 * t))))
    assert line is not None
    assert swinging is not None
    assert line.turns < 0.6
    assert "no whole turn" in in_words(line)
    assert swinging.turns < 0.6
    assert swinging.share == pytest.approx(1.0, abs=0.05)


def test_few_points_and_constants_say_so_and_divide_by_nothing() -> None:
    assert in_words(swing(points(circle(1), 7))) == "too few points to tell a swing"
    still = swing([(i, 1.0, 2.0) for i in range(100)])
    assert still is not None
    assert (still.turns, still.share) == (0.0, 0.0)


def test_only_common_steps_make_pairs() -> None:
    first, second = Series([(1, 10.0), (2, math.nan), (3, 30.0)]), Series([(1, 1.0), (2, 2.0), (4, 4.0)])
    assert pairs(first, second) == [(1, 10.0, 1.0)]


class PhaseApp(App[None]):
    """The plot and nothing else."""

    def compose(self) -> ComposeResult:
        yield PhaseView()


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (20, 5), (60, 20), (200, 60)])
async def test_it_fills_its_place_at_every_size(size: tuple[int, int]) -> None:
    path = points(circle(3))
    curves = [Curve(name, Series((i, p[axis]) for i, *p in path), axis + 1) for axis, name in enumerate("ab")]
    async with PhaseApp().run_test(size=size) as pilot:
        view = pilot.app.query_one(PhaseView)
        view.update(curves[:1])
        await pilot.pause()
        for shown in (curves, [curves[0], Curve("c", Series([(-5, 1.0)]), 2)], [*curves, curves[0]]):
            view.update(shown)
            await until(pilot, lambda: view._wait is None)
            lines = view.text().splitlines()
            assert {len(line) for line in lines} == {size[0]}
            assert len(lines) == size[1]
        if size[0] >= 60:
            assert "swing 100% of" in lines[0]
            assert sum("●" in line for line in lines) == 1


async def test_what_is_said_of_the_swing_is_never_cut_off() -> None:
    curves = [Curve(name, Series((i, p[axis]) for i, *p in points(circle(3))), axis) for axis, name in enumerate("ab")]
    async with PhaseApp().run_test(size=(38, 17)) as pilot:
        view = pilot.app.query_one(PhaseView)
        view.update(curves)
        await until(pilot, lambda: "of the range" in view.text())
        assert "across: a  up: b" in view.text()
