"""The full-screen curves through their keys and the mouse, on recorded runs and on made-up series."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from textual.app import App, ComposeResult
from textual.events import MouseScrollDown, MouseScrollUp
from textual.geometry import Region
from textual.pilot import Pilot

from cafe_tui.charts.axes import SMALLEST_SPAN
from cafe_tui.charts.raster import Curve
from cafe_tui.charts.series import Column, Series
from cafe_tui.reading.zoom import ZoomReader
from cafe_tui.ui.app import CafeApp
from cafe_tui.ui.screens.curves import CurvesScreen, free_colour
from cafe_tui.ui.widgets.curve_view import RAW, CurveView, half_life, reading
from cafe_tui.ui.widgets.key_bar import KeyBar
from cafe_tui.ui.widgets.phase_view import PhaseView
from cafe_tui.ui.widgets.series_list import Key, SeriesList
from engine.contract.run.records import Scalars, encode
from tests.recorded import START, record_run
from tests.ui.test_app import app_on, open_run
from tests.ui.waiting import quiet, until

SIZES = [(60, 20), (80, 24), (120, 40), (200, 60)]


class Counted(CurveView):
    """A view that counts the regions it asked to repaint."""

    asked = 0

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Counted:
        self.asked += 1
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)


class ViewApp(App[None]):
    """A view and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.animation_level = "none"
        self.view = Counted()

    def compose(self) -> ComposeResult:
        yield self.view


def head(view: CurveView) -> str:
    """The first line, which says what is shown."""
    return view.text().splitlines()[0].rstrip()


def all_read(view: CurveView, last: int) -> bool:
    """Whether the first curve has come to its step `last`."""
    steps = view._whole[0].series.x_range
    return steps is not None and steps[1] >= last


def steps_at_cursor(view: CurveView) -> tuple[int, int]:
    """The first and the last step of the read-out."""
    numbers = head(view).split(" · ")[0].split()[1].split("-")
    return int(numbers[0]), int(numbers[-1])


async def open_curves(pilot: Pilot[None]) -> tuple[SeriesList, CurveView]:
    """Open the curves of the run under the cursor and wait until they are drawn."""
    await open_run(pilot)
    await pilot.press("z")
    await until(pilot, lambda: isinstance(pilot.app.screen, CurvesScreen))
    series, view = pilot.app.screen.query_one(SeriesList), pilot.app.screen.query_one(CurveView)
    await until(pilot, lambda: "_loss" in view.text())
    return series, view


# --- the screen ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
async def test_it_opens_with_what_the_run_screen_shows_at_every_size(tmp_path: Path, size: tuple[int, int]) -> None:
    record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=size) as pilot:
        series, view = await open_curves(pilot)
        assert "● hypothesis_loss" in series.text()
        assert "● test_function_l" in series.text()
        assert series.text().count("●") == 2
        assert "hypothesis_loss" in view.text()
        assert view.region.right == size[0] - 1
        await pilot.press("left", "left", "s")
        await pilot.pause()
        assert head(view).startswith("step")
        await pilot.press("escape")
        assert not isinstance(pilot.app.screen, CurvesScreen)


async def test_space_shows_and_hides_series_of_any_stage(tmp_path: Path) -> None:
    record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=(120, 40)) as pilot:
        series, view = await open_curves(pilot)
        assert series.text().splitlines()[0].strip() == "train"
        await pilot.press("home", "space")
        await until(pilot, lambda: "train/loss" in view.text())
        assert "game/hypothesis_loss" in view.text()
        assert series.text().count("●") == 3
        await pilot.press("space")
        await until(pilot, lambda: "train/loss" not in view.text())
        assert "game/" not in view.text()


async def test_a_click_on_a_series_shows_it(tmp_path: Path) -> None:
    record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=(120, 40)) as pilot:
        _, view = await open_curves(pilot)
        await pilot.press("home")
        await pilot.pause()
        await pilot.click(SeriesList, offset=(4, 2))
        await until(pilot, lambda: "train/accuracy" in view.text())
        await pilot.click(SeriesList, offset=(4, 0))  # a heading
        await pilot.pause()
        assert "train/accuracy" in view.text()


async def test_the_cursor_of_a_long_list_stays_in_view(tmp_path: Path) -> None:
    record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=(60, 20)) as pilot:
        series, _ = await open_curves(pilot)
        await pilot.press("end")
        await until(pilot, lambda: series.region.bottom <= 20 and series.region.y < 0)
        await pilot.press("home")
        await until(pilot, lambda: series.region.y == 0)


async def test_it_grows_with_the_run_and_follows_it_to_the_next_stage(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="game", pid=os.getpid())
    async with app_on(tmp_path).run_test(size=(120, 40)) as pilot:
        series, view = await open_curves(pilot)
        with run.records_file.open("ab") as file:
            file.write(encode(Scalars(stage="game", step=90_000, epoch=1.0, values={"brand[new]": 1.0, "psi": 2.0})))
        await until(pilot, lambda: "brand[new]" in series.text())
        assert "hypothesis_loss" in view.text()


async def test_a_run_without_curves_says_so(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    run.records_file.write_bytes(b"")
    async with app_on(tmp_path).run_test(size=(80, 24)) as pilot:
        await open_run(pilot)
        await pilot.press("z")
        await until(pilot, lambda: isinstance(pilot.app.screen, CurvesScreen))
        screen = pilot.app.screen
        await pilot.press("space", "left", "plus", "minus", "less_than_sign", "f", "f", "0", "s", "y", "down")
        await pilot.pause()
        assert "no curves yet" in screen.query_one(SeriesList).text()
        assert "no values yet" in screen.query_one(CurveView).text()


async def test_a_covered_screen_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CurvesScreen, "PERIOD", 0.02)
    record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=(120, 40)) as pilot:
        await open_curves(pilot)
        screen = pilot.app.screen
        reads: list[float] = []
        monkeypatch.setattr(screen, "read", lambda: reads.append(START))
        await until(pilot, lambda: bool(reads))
        await pilot.press("question_mark")
        await quiet(pilot, lambda: len(reads), 0.2)


def test_colours_are_used_again_only_when_all_are_taken() -> None:
    taken: list[int] = []
    for _ in range(8):
        taken.append(free_colour(taken))
    assert taken == [1, 2, 3, 4, 5, 6, 1, 2]
    assert free_colour([1, 3]) == 2


# --- the view --------------------------------------------------------------------------------------------------------


def test_a_reading_tells_one_value_from_several_and_shows_gaps() -> None:
    assert reading(None) == "-"
    assert reading(Column(0.5, 0.5, 0.5, 0.5, False)) == "0.500"
    assert reading(Column(-1.0, 2.0, 0.0, 1.0, True)) == "-1.00..2.00 ×"
    assert reading(Column(math.nan, math.nan, math.nan, math.nan, True)) == "×"


def test_half_lives_are_powers_of_two_and_at_least_one_step() -> None:
    assert half_life(1000, None) is None
    assert [half_life(steps, 16) for steps in (0, 1, 31, 32, 1000, 1024)] == [1, 1, 1, 2, 32, 64]


async def test_the_cursor_stops_at_every_value_and_reads_it() -> None:
    app = ViewApp()
    values = {0: 1.0, 3: 0.25, 9: 4.0}
    async with app.run_test(size=(80, 24)) as pilot:
        app.view.update([Curve("loss", Series(values.items()))])
        await pilot.pause()
        seen = []
        for _ in range(4):
            app.view.move(-1)
            first, last = steps_at_cursor(app.view)
            assert first == last
            seen.append((first, app.view.text().splitlines()[1].split()[1]))
        assert seen == [(9, "4.00"), (3, "0.250"), (0, "1.00"), (0, "1.00")]
        app.view.move(1)
        assert steps_at_cursor(app.view) == (3, 3)
        rows = app.view.text().splitlines()[2:-1]
        assert sum("│" in row[10:] for row in rows) >= len(rows) - 2


async def test_a_column_of_several_steps_reads_lowest_and_highest() -> None:
    app = ViewApp()
    points = [(step, float(step % 10)) for step in range(10_000)]
    async with app.run_test(size=(80, 24)) as pilot:
        app.view.update([Curve("saw", Series(points, capacity=20_000))])
        await pilot.pause()
        app.view.move(-1)
        app.view.move(-1)
        first, last = steps_at_cursor(app.view)
        assert last - first > 100
        assert "saw 0..9.00" in app.view.text()


async def test_zoom_keeps_the_cursor_in_view_down_to_the_smallest_span_and_back() -> None:
    app = ViewApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.view.update([Curve("loss", Series((step, math.sin(step)) for step in range(1000)))])
        await pilot.pause()
        whole = app.view.text()
        for _ in range(20):
            app.view.move(-1)
        widths = []
        for _ in range(10):
            first, last = steps_at_cursor(app.view)
            widths.append(last - first + 1)
            app.view.zoom(0.5)
            assert "frozen" in head(app.view)
        assert widths[-1] == 1
        assert all(a >= b for a, b in pairwise(widths))
        assert app.view._x.high - app.view._x.low == SMALLEST_SPAN
        for _ in range(10):
            app.view.zoom(2)
        assert "frozen" not in head(app.view)
        app.view._cursor = None
        app.view.show_all()
        assert app.view.text() == whole


async def test_panning_stops_at_the_ends() -> None:
    app = ViewApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.view.update([Curve("loss", Series((step, float(step)) for step in range(1000)))])
        await pilot.pause()
        app.view.pan(-1)
        assert "frozen" not in head(app.view)  # everything is in view
        app.view.zoom(0.25)
        assert "following" in head(app.view)
        for _ in range(30):
            app.view.pan(-1)
        assert app.view._x.low == 0
        for _ in range(30):
            app.view.pan(1)
        assert app.view._x.high == 1000


async def test_a_frozen_axis_stays_and_a_following_one_goes_along() -> None:
    app = ViewApp()
    series = Series((step, math.cos(step)) for step in range(1000))
    async with app.run_test(size=(80, 24)) as pilot:
        app.view.update([Curve("loss", series)])
        await pilot.pause()
        app.view.zoom(0.25)
        app.view.toggle_following()
        frozen = (app.view._x.low, app.view._x.high)
        for step in range(1000, 2000):
            series.append(step, math.cos(step))
        app.view.update([Curve("loss", series), Curve("other", series, 2)])
        await pilot.pause(0.4)
        assert (app.view._x.low, app.view._x.high) == frozen
        app.view.toggle_following()
        assert app.view._x.low < 1999 < app.view._x.high
        assert "following" in head(app.view)


async def test_the_read_out_names_log_and_smoothing() -> None:
    app = ViewApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.view.update([Curve("loss", Series((step, 1 + step % 2) for step in range(1024)))])
        await pilot.pause()
        raw = app.view.text()
        heads = []
        for _ in range(3):
            app.view.next_smoothing()
            heads.append(head(app.view))
        assert heads == ["newest values · mean, half-life 8", "newest values · mean, half-life 32", "newest values"]
        assert app.view.text() == raw
        app.view.toggle_log()
        assert head(app.view) == "newest values · log"
        app.view.toggle_log()
        assert app.view.text() == raw


async def test_many_curves_take_more_lines_but_never_most_of_the_picture() -> None:
    app = ViewApp()
    async with app.run_test(size=(60, 20)) as pilot:
        names = [f"a rather long name {number}" for number in range(30)]
        app.view.update([Curve(name, Series([(1, 1.0), (2, 2.0)]), 1) for name in names])
        await pilot.pause()
        lines = app.view.text().splitlines()
        assert len(lines) == 20
        assert sum("rather long" in line for line in lines) == 5


async def test_click_puts_the_cursor_and_the_wheel_zooms_there() -> None:
    app = ViewApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.view.update([Curve("loss", Series((step, math.cos(step)) for step in range(1000)))])
        await pilot.pause()
        await pilot.click(CurveView, offset=(40, 10))
        clicked = steps_at_cursor(app.view)[0]
        assert 300 < clicked < 700
        await pilot.click(CurveView, offset=(0, 10))  # the labels
        assert steps_at_cursor(app.view)[0] == clicked
        for kind, smaller in ((MouseScrollUp, True), (MouseScrollDown, False)):
            before = app.view._x.high - app.view._x.low
            app.view.post_message(kind(app.view, 40, 10, 0, 0, 0, False, False, False))
            await pilot.pause()
            assert (app.view._x.high - app.view._x.low < before) is smaller


async def test_nothing_is_repainted_when_nothing_changed() -> None:
    app = ViewApp()
    curve = Curve("loss", Series((step, math.cos(step)) for step in range(1000)))
    async with app.run_test(size=(80, 24)) as pilot:
        app.view.update([curve])
        app.view.next_smoothing()
        app.view.move(-1)
        await quiet(pilot, lambda: app.view.asked, 0.4)
        app.view.asked = 0
        for _ in range(3):
            app.view.update([curve])
            await pilot.pause(0.3)
        assert app.view.asked == 0


async def test_the_values_stay_faint_behind_their_mean(tmp_path: Path) -> None:
    record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=(120, 40)) as pilot:
        _, view = await open_curves(pilot)
        colours = lambda: {colour for row in view._lines for colour in row.colours}  # noqa: E731
        assert not any(colour & RAW for colour in colours())
        await pilot.press("s")
        assert any(colour & RAW for colour in colours())
        assert "mean, half-life" in head(view)


async def test_the_time_axis_counts_from_the_start_of_the_run_and_shows_its_gaps(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    with run.records_file.open("ab") as file:
        for step in range(5):  # two hours later, as after a stop
            file.write(encode(Scalars(stage="game", step=5000 + step, t=START + 7200, values={"hypothesis_loss": 1.0})))
    async with app_on(tmp_path).run_test(size=(120, 40)) as pilot:
        _, view = await open_curves(pilot)
        await pilot.press("t")
        assert "time" in head(view)
        assert "2h" in view.text().splitlines()[-1]
        await pilot.press("left")
        assert head(view).startswith(("at 1h 5", "at 2h 00m")), "a column is two minutes wide"
        await pilot.press("left")
        assert head(view).startswith("at 0s"), "the column before the gap"
        await pilot.press("t")
        assert "4k" in view.text().splitlines()[-1]


async def test_x_shows_the_losses_against_each_other_and_back(tmp_path: Path) -> None:
    record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=(120, 40)) as pilot:
        _, view = await open_curves(pilot)
        phase = pilot.app.screen.query_one(PhaseView)
        await pilot.press("x")
        await until(pilot, lambda: "across: hypothesis_loss  up: test_function_loss" in phase.text())
        assert not view.region
        await pilot.press("x")
        await until(pilot, lambda: bool(view.region) and not phase.region)


async def test_zooming_into_a_long_run_shows_every_point(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="game")
    with run.records_file.open("ab") as file:
        for step in range(1000, 60_000):
            spike = 50.0 if step == 40_001 else 0.0
            file.write(encode(Scalars(stage="game", step=step, values={"hypothesis_loss": step % 2 + spike})))
    async with app_on(tmp_path).run_test(size=(120, 40)) as pilot:
        _, view = await open_curves(pilot)
        await until(pilot, lambda: all_read(view, 59_999))  # which the axis, a power of two, does not tell
        view.zoom(0.001, around=40_001)
        await until(pilot, lambda: "every point" in head(view))
        low, high = view._x.low, view._x.high
        shown = view._shown[0].series
        assert (shown.width, shown.y_range(40_001, 40_002)) == (1, (51.0, 51.0))
        assert len(shown.part(low, high)) == high - low


async def test_the_ways_of_looking_are_remembered(tmp_path: Path) -> None:
    record_run(tmp_path / "runs")
    preferences = tmp_path / "state" / "ui.json"
    for first in (True, False):
        app = CafeApp(tmp_path / "runs", clock=lambda: START + 60, preferences=preferences)
        async with app.run_test(size=(120, 40)) as pilot:
            _, view = await open_curves(pilot)
            if first:
                await pilot.press("y", "s", "t")
                app.theme = "high-contrast"
            assert view.modes == (True, 1, True)
            assert app.theme == "high-contrast"


async def test_a_click_on_a_name_above_the_picture_hides_its_curve(tmp_path: Path) -> None:
    record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=(120, 40)) as pilot:
        series, view = await open_curves(pilot)
        line = next(y for y, text in enumerate(view.text().splitlines()) if "test_function_loss" in text)
        at = view.text().splitlines()[line].index("test_function_loss")
        await pilot.click(CurveView, offset=(at + 3, line))
        await until(pilot, lambda: "test_function_loss" not in view.text())
        assert "hypothesis_loss" in view.text()
        assert series.text().count("●") == 1
        await pilot.click(CurveView, offset=(60, 0))  # no name
        await pilot.pause()
        assert head(view).startswith("newest values")


async def test_zooming_in_on_the_newest_steps_shows_every_point_and_reads_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record_run(tmp_path, upto="game", state="stopped")
    with run.records_file.open("ab") as file:
        for step in range(1000, 30_000):
            file.write(encode(Scalars(stage="game", step=step, values={"hypothesis_loss": 1.0, "psi": step % 2})))
    monkeypatch.setattr(CurvesScreen, "PERIOD", 0.02)
    reads: list[tuple[int, int]] = []

    def counted(reader: ZoomReader, keys: Iterable[Key], low: int, high: int) -> dict[Key, Series] | None:
        reads.append((low, high))
        return read(reader, keys, low, high)

    read = ZoomReader.read
    monkeypatch.setattr(ZoomReader, "read", counted)
    async with app_on(tmp_path).run_test(size=(120, 40)) as pilot:
        _, view = await open_curves(pilot)
        await until(pilot, lambda: view._curves[0].series.x_range == (2, 29_999))
        await pilot.press(*["plus"] * 8)
        await until(pilot, lambda: "every point · following" in head(view))
        await quiet(pilot, lambda: len(reads), 0.2)
        reads.clear()
        with run.records_file.open("ab") as file:
            file.write(encode(Scalars(stage="game", step=30_000, values={"hypothesis_loss": 7.0})))
        await until(pilot, lambda: view._shown[0].series.y_range(30_000, 30_001) == (7.0, 7.0))
        await pilot.press("left", *["less_than_sign"] * 8)  # now in a part that does not grow
        await until(pilot, lambda: "every point · frozen" in head(view))
        await quiet(pilot, lambda: len(reads), 0.2)
        reads.clear()
        with run.records_file.open("ab") as file:
            file.write(encode(Scalars(stage="game", step=30_001, values={"hypothesis_loss": 7.0})))
        await until(pilot, lambda: view._curves[0].series.x_range == (2, 30_001))
        await pilot.pause(0.1)
        assert not reads
        await pilot.press("less_than_sign")
        await until(pilot, lambda: bool(reads))


async def test_the_phase_plot_has_the_losses_of_the_game_whatever_else_is_shown_and_no_keys_of_the_steps(
    tmp_path: Path,
) -> None:
    record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=(120, 40)) as pilot:
        _, view = await open_curves(pilot)
        await pilot.press("home", "space")
        await until(pilot, lambda: "train/loss" in view.text())
        await pilot.press("x")
        phase = pilot.app.screen.query_one(PhaseView)
        await until(pilot, lambda: "across: hypothesis_loss  up: test_function_loss" in phase.text())
        assert "Zoom" not in pilot.app.screen.query_one(KeyBar).text()
        axis = (view._x.low, view._x.high)
        await pilot.press("plus", "t", "x")
        assert (view._x.low, view._x.high, view.by_time) == (*axis, False)


async def test_the_phase_plot_needs_two_series_of_one_stage(tmp_path: Path) -> None:
    record_run(tmp_path, upto="train")
    async with app_on(tmp_path).run_test(size=(120, 40)) as pilot:
        await open_run(pilot)
        await pilot.press("z")
        await until(pilot, lambda: isinstance(pilot.app.screen, CurvesScreen))
        series = pilot.app.screen.query_one(SeriesList)
        await until(pilot, lambda: "● loss" in series.text())
        while series.text().count("●") > 1:
            hidden = next(text for text in series.text().splitlines() if "●" in text and "● loss" not in text)
            await pilot.click(SeriesList, offset=(4, series.text().splitlines().index(hidden)))
            await pilot.pause()
        await pilot.press("x")
        phase = pilot.app.screen.query_one(PhaseView)
        await until(pilot, lambda: "needs two curves" in phase.text())
        await pilot.click(SeriesList, offset=(4, 2))
        await until(pilot, lambda: "across: loss" in phase.text())


async def test_the_key_bar_has_the_time_axis_and_the_phase_plot_at_80_columns(tmp_path: Path) -> None:
    record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=(80, 24)) as pilot:
        await open_curves(pilot)
        bar = pilot.app.screen.query_one(KeyBar)
        await until(pilot, lambda: all(key in bar.text() for key in ("Zoom", "Mean", "t Time", "x Phase", "? Help")))
