"""The chart in a running app: what it repaints, how often, and at what size."""

from __future__ import annotations

import math
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.color import ColorType
from textual.app import App, ComposeResult
from textual.geometry import Region, Size

from cafe_tui.charts.raster import Curve, Row
from cafe_tui.charts.series import Series
from cafe_tui.ui.widgets import chart as module
from cafe_tui.ui.widgets.chart import PERIOD, Chart, changed_cells
from tests.ui.waiting import quiet, until


class Counted(Chart):
    """A chart that remembers the regions it asked to repaint; an empty tuple is all of it."""

    def __init__(self, title: str = "") -> None:
        super().__init__(title)
        self.asked: list[tuple[Region, ...]] = []

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Counted:
        if self.is_running:
            self.asked.append(regions)
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    @property
    def cells(self) -> int:
        """Cells asked for since the list was cleared."""
        return sum(region.area for regions in self.asked for region in regions or (self.size.region,))


class ChartApp(App[None]):
    """A chart and nothing else."""

    def __init__(self, chart: Chart | None = None) -> None:
        super().__init__()
        self.chart = chart or Counted()
        self.animation_level = "none"

    def compose(self) -> ComposeResult:
        yield self.chart


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock is a second later, so nothing is put off."""
    seconds = count(1)
    monkeypatch.setattr(module, "monotonic", lambda: float(next(seconds)))


def loss(steps: range, sign: float = 1.0) -> list[tuple[int, float]]:
    """A noisy decay without randomness."""
    return [(i, sign * (0.3 + 2 * math.exp(-i / 300) + 0.1 * math.sin(i * 1.7) * math.cos(i * 0.31))) for i in steps]


def extend(series: Series, points: list[tuple[int, float]]) -> None:
    """Append all."""
    for step, value in points:
        series.append(step, value)


@pytest.mark.usefixtures("clock")
async def test_the_first_values_are_on_screen_with_their_names() -> None:
    app = ChartApp(Counted("game"))
    async with app.run_test(size=(80, 24)) as pilot:
        assert "no values yet" in app.chart.text()
        app.chart.update([Curve("hypothesis loss", Series(loss(range(100))), 1)])
        await pilot.pause()
        assert app.chart.text().startswith("game  hypothesis loss 1.")
        assert "⣿" in app.chart.text() or "⡇" in app.chart.text()
        assert "no values yet" not in app.chart.text()


@pytest.mark.usefixtures("clock")
async def test_nothing_is_repainted_when_no_dot_changes() -> None:
    series = Series(loss(range(1000)))
    app = ChartApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.chart.update([Curve("loss", series)])
        await pilot.pause()
        app.chart.asked.clear()
        app.chart.update([Curve("loss", series)])
        series.append(1000, series.last or 0.0)  # the same value, in the same dot column
        app.chart.update([Curve("loss", series)])
        await pilot.pause()
        assert app.chart.asked == []


@pytest.mark.usefixtures("clock")
async def test_live_values_repaint_a_few_cells() -> None:
    a, b = Series(loss(range(600))), Series(loss(range(600), -1.0))
    curves = [Curve("hypothesis loss", a, 1), Curve("test-function loss", b, 2)]
    app = ChartApp()
    async with app.run_test(size=(120, 30)) as pilot:
        app.chart.update(curves)
        await pilot.pause()
        app.chart.asked.clear()
        updates = 16
        for i in range(updates):
            steps = range(600 + 25 * i, 625 + 25 * i)
            extend(a, loss(steps))
            extend(b, loss(steps, -1.0))
            app.chart.update(curves)
            await pilot.pause()
        assert a.x_range == (0, 999)
        assert all(app.chart.asked), "the whole chart was repainted"
        assert app.chart.cells / updates <= 30


async def test_drawings_are_put_off_to_four_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    series = Series()
    app = ChartApp()
    async with app.run_test(size=(60, 12)) as pilot:
        waits: list[float] = []
        monkeypatch.setattr(app.chart, "set_timer", lambda wait, _: waits.append(wait) or pilot)
        for step in range(50):
            series.append(step, float(step))
            app.chart.update([Curve("loss", series)])
        assert "loss 0" in app.chart.text()  # drawn at once, and then not again
        assert waits == [PERIOD]


async def test_what_was_put_off_is_drawn_without_another_call() -> None:
    series = Series([(0, 1.0)])
    app = ChartApp()
    async with app.run_test(size=(60, 12)) as pilot:
        app.chart.update([Curve("loss", series)])
        series.append(1, 2.0)
        app.chart.update([Curve("loss", series)])
        await until(pilot, lambda: "loss 2.00" in app.chart.text())
        await quiet(pilot, lambda: len(app.chart.asked), 2 * PERIOD)  # and the clock stops


@pytest.mark.usefixtures("clock")
async def test_other_curves_bring_fresh_axes() -> None:
    app = ChartApp()
    async with app.run_test(size=(60, 12)) as pilot:
        app.chart.update([Curve("a", Series(enumerate([0.0, 1000.0])))])
        await pilot.pause()
        app.chart.update([Curve("b", Series(enumerate([600.0, 1000.0])))])
        await pilot.pause()
        assert "0┤" not in app.chart.text().replace("00┤", "")


@pytest.mark.usefixtures("clock")
async def test_every_size_has_its_picture() -> None:
    curves = [Curve("hypothesis loss", Series(loss(range(300))), 1), Curve("日本", Series([(7, math.nan)]), 2)]
    app = ChartApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.chart.update(curves)
        for width, height in [(1, 1), (1, 60), (200, 1), (2, 2), (7, 3), (13, 5), (200, 60), (33, 9), (1, 1), (80, 24)]:
            await pilot.resize_terminal(width, height)
            await pilot.pause()
            assert app.chart.size == Size(width, height)
            strips = [app.chart.render_line(y) for y in range(height)]
            assert all(strip.cell_length == width for strip in strips)
            app.chart.update(curves)


@pytest.mark.usefixtures("clock")
async def test_a_hidden_chart_shows_its_newest_values_when_it_appears() -> None:
    app = ChartApp()
    async with app.run_test(size=(60, 12)) as pilot:
        app.chart.display = False
        await pilot.pause()
        app.chart.update([Curve("loss", Series([(0, 1.0)]))])
        await pilot.pause()
        app.chart.display = True
        await pilot.pause()
        assert "loss 1.00" in app.chart.text()


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "ansi-dark", "ansi-light"])
async def test_curves_have_colours_of_their_own_in_every_theme(theme: str) -> None:
    curves = [Curve(name, Series([(0, 1.0)]), i) for i, name in enumerate("abcd", 1)]
    app = ChartApp()
    async with app.run_test(size=(60, 12)) as pilot:
        app.theme = theme
        app.chart.update(curves)
        await pilot.pause()
        styles = {segment.text[0]: segment.style for segment in app.chart.render_line(0)}
        colours = [styles[name].color for name in "abcd" if styles[name]]
        assert len(set(colours)) == 4
        if theme.startswith("ansi"):
            assert all(colour.type is ColorType.STANDARD for colour in colours if colour)


async def test_without_colour_the_legend_still_tells_the_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = ChartApp()
    async with app.run_test(size=(60, 12)) as pilot:
        app.chart.update([Curve("loss", Series([(0, 1.0)])), Curve("other", Series([(0, 2.0)]), 2)])
        await pilot.pause()
        assert "loss 1.00  other 2.00" in app.chart.text()


async def test_values_before_the_first_paint_are_not_lost() -> None:
    chart = Counted()
    chart.update([Curve("loss", Series([(0, 1.0)]))])
    async with ChartApp(chart).run_test(size=(60, 12)):
        assert "loss 1.00" in chart.text()


ROWS = st.integers(1, 30).flatmap(
    lambda width: st.lists(
        st.tuples(st.text("ab ⣿", min_size=width, max_size=width), st.binary(min_size=width, max_size=width)).map(
            lambda pair: Row(*pair)
        ),
        min_size=2,
        max_size=2,
    )
)


@given(ROWS)
def test_the_regions_turn_one_line_into_the_other(rows: list[Row]) -> None:
    old, new = rows
    cells = list(zip(old.text, old.colours, strict=True))
    for region in changed_cells([old], [new]):
        part = slice(region.x, region.right)
        cells[part] = zip(new.text[part], new.colours[part], strict=True)
    assert cells == list(zip(new.text, new.colours, strict=True))


def test_a_line_with_wide_characters_is_repainted_whole() -> None:
    assert changed_cells([Row("日a", b"\1\1")], [Row("日b", b"\1\1")]) == [Region(0, 0, 3, 1)]
