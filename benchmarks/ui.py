"""What the terminal UI costs: start, keys, curves, bytes to the terminal, memory, processor, delay.

It runs as a person has it, in a pseudo-terminal, against an empty Textual app where that is the measure and against
limits where there is no other program to hold it against. A drawing goes from the series to the finished lines, axes
and labels included, as the chart widget has it before Textual paints.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import REPEATS, Row, in_turn, main
from fake_runs import Engine, finished_runs, long_run, values
from terminals import Terminal

from cafe_tui.charts.axes import StepAxis, ValueAxis
from cafe_tui.charts.raster import Curve, draw, follow
from cafe_tui.charts.raster import Row as Line
from cafe_tui.charts.series import Series
from cafe_tui.ui.widgets.chart import changed_cells

WIDTH, HEIGHT = 120, 30
LIMITS = {10_000: 5.0, 100_000: 5.0, 1_000_000: 5.0, 10_000_000: 60.0}
"""Milliseconds for a drawing, by points of each curve."""
APPEND_LIMIT = 1.0
"""Microseconds for a point."""
CELLS_LIMIT = 60.0
"""Cells of an update of a live chart: 6 kB a second at four updates, if a cell takes 25 bytes."""
UPDATES, POINTS = 40, 25


def losses(count: int) -> list[float]:
    """A noisy decay."""
    draw_of = random.Random(0)
    noise = [draw_of.gauss(0.0, 0.05) for _ in range(997)]
    return [0.3 + 2.0 * math.exp(-6.0 * i / count) + noise[i % 997] for i in range(count)]


def curve_of(values: list[float], colour: int, sign: float) -> Curve:
    """A curve to which the values were added one by one."""
    series = Series()
    append = series.append
    for step, value in enumerate(values):
        append(step, sign * value, 0.0)
    return Curve(f"loss {colour}", series, colour)


def two_curves(count: int) -> list[Curve]:
    """A loss and its negative, of `count` points each."""
    values = losses(count)
    return [curve_of(values, 1, 1.0), curve_of(values, 2, -1.0)]


def picture(curves: Sequence[Curve], x: StepAxis, y: ValueAxis) -> list[Line]:
    """One drawing."""
    follow(curves, x, y)
    return draw(curves, x, y, WIDTH, HEIGHT).lines()


def drawing(count: int) -> list[Row]:
    """Time to draw curves of this length, and what each of their points costs from the first on."""
    curves, values = two_curves(count), losses(count)
    x, y = StepAxis(), ValueAxis()
    repeats = max(REPEATS, 1_000_000 // count)
    (spent,) = in_turn(lambda: picture(curves, x, y), repeats=repeats)
    (added,) = in_turn(lambda: curve_of(values, 1, 1.0), repeats=repeats)
    return [
        Row(f"draw 2 x {count:,} points, against the limit", spent * 1e3, LIMITS[count], "ms", target=1.0),
        Row(f"add one of {count:,} points, against the limit", added / count * 1e6, APPEND_LIMIT, "us", target=1.0),
    ]


def live() -> Row:
    """Cells below the legend that a live chart repaints for each update, of 25 new points on each curve."""
    values = losses(2000)
    start = 1000
    signs = (1.0, -1.0)
    curves = [curve_of(values[:start], colour, sign) for colour, sign in enumerate(signs, 1)]
    x, y = StepAxis(), ValueAxis()
    before = picture(curves, x, y)
    cells = 0
    for step in range(start, start + UPDATES * POINTS):
        for curve, sign in zip(curves, signs, strict=True):
            curve.series.append(step, sign * values[step])
        if (step + 1 - start) % POINTS == 0:
            after = picture(curves, x, y)
            cells += sum(region.area for region in changed_cells(before, after))
            before = after
    return Row(
        "cells repainted for each live update, against the limit", cells / UPDATES, CELLS_LIMIT, "cells", target=1.0
    )


# --- the whole UI in a terminal --------------------------------------------------------------------------------------

CAFE = "from cafe_tui.__main__ import main; main()"
"""What the command `cafe` does."""
EMPTY_APP = """
from textual.app import App
from textual.widgets import Static
class Empty(App[None]):
    def compose(self):
        yield Static("painted")
Empty().run()
"""
SIX_CHARTS = """
import math
from cafe_tui.ui.app import CafeApp
from cafe_tui.charts.raster import Curve
from cafe_tui.charts.series import Series
from cafe_tui.ui.widgets.chart import Chart
from textual.containers import Grid
from textual.screen import Screen
class Six(CafeApp):
    CSS_PATH = None
    CSS = "Grid { grid-size: 3 2; }"
    def get_default_screen(self):
        class Charts(Screen):
            def compose(self):
                with Grid():
                    for _ in range(6):
                        yield Chart()
            def on_mount(self):
                self.series = [Series((i, math.exp(-i / 3000)) for i in range(1000)) for _ in range(12)]
                self.step = 1000
                self.set_interval(0.25, self.grow)
            def grow(self):
                steps = range(self.step + 1, self.step + 26)
                self.step += 25
                values = [math.exp(-step / 3000) + 0.05 * math.sin(1.7 * step) for step in steps]
                for series in self.series:  # as the reader of a run does it
                    series.extend(steps, values, values)
                for i, chart in enumerate(self.query(Chart)):
                    chart.update([Curve("a", self.series[2 * i], 1), Curve("b", self.series[2 * i + 1], 2)])
        return Charts()
from pathlib import Path
Six(Path(".")).run()
"""
FIRST_CURVE = 0.15
"""Seconds from the key that opens a run."""


def ui(folder: Path, columns: int = 120, lines: int = 40, options: Sequence[str] = ()) -> Terminal:
    """`cafe` on a folder of runs, with preferences of its own."""
    state = str(folder.parent / "state")
    return Terminal(["-c", CAFE, *options], columns, lines, CAFE_RUNS=str(folder), XDG_STATE_HOME=state)


def opened(folder: Path, columns: int = 120, lines: int = 30, options: Sequence[str] = ()) -> Terminal:
    """`cafe` with its newest run open and drawn, in the state of a while later."""
    terminal = ui(folder, columns, lines, options)
    terminal.shows(lambda text: "live" in text)
    terminal.read(0.5)
    terminal.process.send("\r")
    terminal.shows(lambda text: "hypothesis" in text)
    terminal.read(1.5)
    return terminal


def starting(folder: Path, repeats: int) -> list[Row]:
    """From exec to painted rows, of 1,000 and of 10,000 runs."""
    few, many = folder / "few", folder / "many"
    finished_runs(few, 1_000)
    finished_runs(many, 10_000)
    empties, painted, listed, listed_many = [], [], [], []
    for _ in range(repeats):
        terminal = Terminal(["-c", EMPTY_APP], 120, 40)
        empties.append(terminal.until(lambda raw: b"painted" in raw))
        terminal.close()
        terminal = ui(few)
        painted.append(terminal.until(lambda raw: b"run00999" in raw))
        listed.append(terminal.until(lambda raw: b"1000 runs" in raw))
        terminal.close()
        terminal = ui(many)
        listed_many.append(terminal.until(lambda raw: b"10000 runs" in raw))
        terminal.close()
    empty = statistics.median(empties)
    more = statistics.median(listed_many) - statistics.median(listed)
    return [
        Row(
            "start to painted rows of 1,000 runs, against an empty Textual app",
            statistics.median(painted),
            empty,
            "s",
            1.35,
        ),
        Row("10,000 runs listed instead of 1,000: more time, against the limit", more, 0.6, "s", 1.0),
        *keys_in_list(many),
    ]


def keys_in_list(folder: Path) -> list[Row]:
    """Filtering 10,000 runs as one types, and moving among them."""
    terminal = ui(folder)
    terminal.until(lambda raw: b"10000 runs" in raw)
    terminal.read(2.0)
    moves = [terminal.key("j") for _ in range(12)]
    terminal.key("/")
    typed = [terminal.key(key)[0] for key in "run0123"]
    terminal.close()
    return [
        Row("a filter key with 10,000 runs, against the limit", 1e3 * max(typed), 30.0, "ms", 1.0),
        Row(
            "bytes of a move in the table, against the limit", statistics.median(b for _, b in moves), 1000.0, "B", 1.0
        ),
    ]


def living(folder: Path, seconds: float) -> list[Row]:
    """With a run that goes on, 100 records of two series a second: bytes, keys, processor, delay, death."""
    runs = folder / "live"
    finished_runs(runs, 1_000)
    engine = Engine(runs).start()
    terminal = ui(runs, 120, 40)
    terminal.shows(lambda text: "live" in text and "running" in text)
    terminal.read(1.5)
    latencies = sorted(1e3 * terminal.key(key, quiet=0.02)[0] for key in "jjkk" * (6 if seconds < 5 else 50))
    terminal.close()
    rows = [
        Row("key to changed screen, 1,000 runs and a live one: median", statistics.median(latencies), 10.0, "ms", 1.0),
        Row("the same: 99th percentile", latencies[int(0.99 * len(latencies))], 33.0, "ms", 1.0),
    ]
    for name, options, limit in (("a live run", (), 6.0), ("the same with --slow", ("--slow",), 1.0)):
        terminal = opened(runs, options=options)
        written = terminal.read(seconds)
        terminal.close()
        rows.append(
            Row(f"terminal bytes of {name}, 120 x 30, against the limit", written / seconds / 1e3, limit, "kB/s", 1.0)
        )
    engine.stop()
    return rows + delays(folder / "delays", seconds)


def delays(folder: Path, seconds: float) -> list[Row]:
    """From the engine's write to the painted cell, and from its death to the word; then nothing, for so long."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    engine = Engine(folder, begin=10)
    state = engine.run.state()
    state.pid, state.pid_started = sleeper.pid, None
    engine.run.write_state(state)
    terminal = opened(folder)
    waits = []
    for _ in range(max(int(seconds), 5)):
        engine.write()
        wanted = f"hypothesis {values(engine.step, ('hypothesis_loss',))['hypothesis_loss']:.2f}"
        waits.append(1e3 * terminal.shows(lambda text, wanted=wanted: wanted in text))
        terminal.read(random.Random(engine.step).uniform(0.1, 0.5))
    sleeper.kill()
    sleeper.wait()
    dead = terminal.shows(lambda text: "lost" in text)
    idle_bytes, processor = _idle(terminal, max(seconds, 3.0))
    terminal.close()
    return [
        Row("engine write to painted cell: 95th percentile", sorted(waits)[int(0.95 * len(waits))], 400.0, "ms", 1.0),
        Row("a dead engine shown, against the limit", dead, 15.0, "s", 1.0),
        Row("terminal bytes of a run that ended, against one a second", idle_bytes, 1.0, "B/s", 1.0),
        Row("processor of a run that ended, against the limit", processor, 0.5, "% of a core", 1.0),
    ]


def _idle(terminal: Terminal, seconds: float) -> tuple[float, float]:
    terminal.read(6.0)  # until the toasts are gone
    before = len(terminal.raw)
    processor = terminal.processor(seconds)
    return (len(terminal.raw) - before) / seconds, processor


def six_charts(seconds: float) -> Row:
    """Six charts of two series, each with 25 new points four times a second."""
    terminal = Terminal(["-c", SIX_CHARTS], 160, 50)
    terminal.shows(lambda text: text.count("┤") > 6)
    terminal.read(1.0)
    processor = terminal.processor(seconds)
    terminal.close()
    return Row("processor of six live charts, against the limit", processor, 5.0, "% of a core", 1.0)


def long_runs(folder: Path, records: int, repeats: int) -> list[Row]:
    """Opening a run of many records: its first curve, and all of it."""
    long_run(folder, records)
    first, complete = [], []
    last = f"{values(records - 1, ('hypothesis_loss',))['hypothesis_loss']:.3g}"
    whole = FIRST_CURVE + (1 - FIRST_CURVE) * records / 1e6  # a second for a million, and no less than the first curve
    for _ in range(repeats):
        terminal = ui(folder, 120, 40)
        terminal.shows(lambda text: "long" in text)
        terminal.read(1.0)
        terminal.process.send("\r")
        first.append(terminal.shows(lambda text: any("⠁" <= c <= "⣿" for c in text)))
        complete.append(first[-1] + terminal.shows(lambda text: f"hypothesis {last}" in text))
        terminal.close()
    return [
        Row(f"a run of {records:,} records: first curve, against the limit", min(first), FIRST_CURVE, "s", 1.0),
        Row(f"a run of {records:,} records: complete, against the limit", min(complete), whole, "s", 1.0),
    ]


def memory(folder: Path, points: int) -> list[Row]:
    """Of the UI with an ordinary run open, and with 20 runs of ten long series compared."""
    one, twenty = folder / "one", folder / "twenty"
    engine = Engine(one)
    engine.stop()
    terminal = opened(one)
    ordinary = terminal.memory()
    terminal.close()
    names = [f"series_{i}" for i in range(8)] + ["hypothesis_loss", "test_function_loss"]
    source = long_run(twenty, points, names)
    for _ in range(19):
        twin = long_run(twenty, 0, names)
        twin.records_file.unlink()
        os.link(source.records_file, twin.records_file)
    terminal = ui(twenty)
    terminal.shows(lambda text: "20 runs" in text)
    for _ in range(20):
        terminal.process.send(" ")
    terminal.shows(lambda text: "20 marked" in text)
    terminal.process.send("c")
    terminal.read(2.0)
    while terminal.processor(2.0) > 20:
        pass
    compared = terminal.memory()
    terminal.close()
    name = f"memory with 20 runs of 10 series of {points:,} points compared, against the limit"
    return [
        Row("memory with one ordinary run open, against the limit", ordinary, 60.0, "MB", 1.0),
        Row(name, compared, 150.0, "MB", 1.0),
    ]


def measure(quick: bool) -> list[Row]:
    """All rows; the quick work has shorter curves, fewer repeats and shorter looks."""
    counts = [count for count in LIMITS if count <= (100_000 if quick else 10_000_000)]
    rows = [row for count in counts for row in drawing(count)] + [live()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows += starting(folder, 1 if quick else 5)
        rows += living(folder, 2.0 if quick else 20.0)
        rows.append(six_charts(3.0 if quick else 20.0))
        rows += long_runs(folder / "long", 100_000 if quick else 1_000_000, 2 if quick else 3)
        rows += [] if quick else memory(folder, 100_000)
    return rows


if __name__ == "__main__":
    main("ui", measure)
