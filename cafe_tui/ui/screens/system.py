"""What this host is doing: GPUs and whose runs are on them, processors, memory, the disk of the runs."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from cafe_tui import format as fmt
from cafe_tui.charts.raster import Curve
from cafe_tui.charts.series import Series
from cafe_tui.launch.host import SILENCE, Sample, Sampler
from cafe_tui.ui.screens.opening import Selection
from cafe_tui.ui.screens.polling import PollingScreen
from cafe_tui.ui.widgets.key_bar import KeyBar
from cafe_tui.ui.widgets.scrolling import ScrollPane
from cafe_tui.ui.widgets.system_panel import PercentChart, SystemData, SystemPanel
from engine.contract.errors import CafeError
from engine.contract.run import listing, rundir

HISTORY_SECONDS: Final = 300
"""What the curves show."""
RUNS_LOOKED_AT: Final = 200
"""Newest runs whose processes are known."""
GPUS_DRAWN: Final = 3
WIDTHS: Final = [(0, "-narrow"), (100, "-wide")]


@dataclass
class Sampled(Message, bubble=False):
    """New samples, or a new state of the process that takes them."""

    samples: Sequence[Sample]
    runs: Mapping[int, str]
    problem: str


def opened(selection: Selection) -> SystemScreen:
    """The host, whatever is selected."""
    return SystemScreen(selection.runs)


class SystemScreen(PollingScreen):
    """Shows the host on which it runs, and the disk of the folder `runs`; `sampler` looks at it."""

    PERIOD = 0.5
    HORIZONTAL_BREAKPOINTS = WIDTHS
    DEFAULT_CSS = """
    SystemScreen {
        & #title { height: 1; padding: 0 1; color: $text-muted; }
        & ScrollPane { height: auto; max-height: 70%; padding: 0 1; scrollbar-size: 1 1; }
        & Grid { grid-size: 1; grid-gutter: 0 2; height: 1fr; padding: 0 1; margin-top: 1; }
        &.-wide Grid { grid-size: 2; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("q,escape,S", "app.pop_screen", "Back", key_display="q")]

    def __init__(self, runs: Path, sampler: Sampler | None = None, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._runs = runs
        self._sampler = sampler or Sampler(runs.absolute())
        self._clock = clock
        self._posted: object = None  # the reader thread's
        self._newest: Sample | None = None
        self._problem = ""
        self._by_pid: Mapping[int, str] = {}
        self._begin = 0.0
        self._host: dict[str, Series] = {"CPU": Series(capacity=512), "memory": Series(capacity=512)}
        self._gpus: list[dict[str, Series]] = []

    def compose(self) -> ComposeResult:
        yield Static("System", id="title")
        with ScrollPane():
            yield SystemPanel()
        with Grid():
            for _ in range(1 + GPUS_DRAWN):
                yield PercentChart(window=HISTORY_SECONDS)
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(ScrollPane).focus()
        for chart in list(self.query(PercentChart))[1:]:
            chart.display = False
        self._say_title()
        self.set_interval(1.0, self._draw_lines)  # silence is no message

    def _say_title(self) -> None:
        seconds = f"percent by seconds, the last {HISTORY_SECONDS // 60} minutes"
        self.query_one("#title", Static).update(Content(fmt.printable(f"System  {self._runs}  {seconds}")))

    def on_unmount(self) -> None:
        super().on_unmount()
        self._sampler.close()

    def read(self) -> None:
        """Take what the sampling process says (reader thread)."""
        samples = self._sampler.poll()
        if samples or self._sampler.problem != self._posted:
            self._posted = self._sampler.problem
            busy = {process.pid for sample in samples for gpu in sample.gpus for process in gpu.processes}
            self.post_message(Sampled(samples, self._runs_by_pid() if busy else {}, self._sampler.problem))

    def _runs_by_pid(self) -> dict[int, str]:
        try:
            runs = listing.likely_newest(listing.scan(self._runs), RUNS_LOOKED_AT)
        except CafeError:
            return {}
        states = ((run.id, run.state()) for run in runs)
        here = socket.gethostname()
        return {
            state.pid: run_id
            for run_id, state in states
            if state.pid and state.host == here and state.state not in rundir.FINAL
        }

    def on_sampled(self, message: Sampled) -> None:
        self._problem = message.problem
        self._by_pid = message.runs or self._by_pid
        for sample in message.samples:
            self._take(sample)
        self._draw_lines()
        self._draw_curves()

    def _take(self, sample: Sample) -> None:
        self._newest = sample
        self._begin = self._begin or sample.t
        second = max(int(sample.t - self._begin), 0)
        if sample.cores:
            self._host["CPU"].append(second, sum(sample.cores) / len(sample.cores))
        if sample.memory_total:
            self._host["memory"].append(second, 100 * sample.memory_used / sample.memory_total)
        while len(self._gpus) < min(len(sample.gpus), GPUS_DRAWN):
            self._gpus.append({name: Series(capacity=512) for name in ("use", "memory", "power")})
        for curves, gpu in zip(self._gpus, sample.gpus, strict=False):
            if gpu.use is not None:
                curves["use"].append(second, gpu.use)
            if gpu.memory_used is not None and gpu.memory_total:
                curves["memory"].append(second, 100 * gpu.memory_used / gpu.memory_total)
            if gpu.power is not None and gpu.power_limit:
                curves["power"].append(second, 100 * gpu.power / gpu.power_limit)

    def _draw_lines(self) -> None:
        self.query_one(SystemPanel).show(SystemData(self._newest, self._by_pid, self._problems()))

    def _problems(self) -> tuple[str, ...]:
        problems = [self._problem] if self._problem else []
        sample, now = self._newest, self._clock()
        if sample is not None and now - sample.t > SILENCE:
            problems.append(f"no news of this host for {fmt.duration(now - sample.t)}; what follows is old")
        elif sample is not None and sample.gpus and sample.t - sample.gpus_t > SILENCE:
            problems.append(f"the GPU driver has not answered for {fmt.duration(sample.t - sample.gpus_t)}")
        return tuple(problems)

    def _draw_curves(self) -> None:
        first, *others = self.query(PercentChart)
        first.update([Curve(name, series, 1 + i) for i, (name, series) in enumerate(self._host.items())])
        for number, (chart, curves) in enumerate(zip(others, self._gpus, strict=False)):
            chart.display = True
            present = [(name, series) for name, series in curves.items() if len(series)]
            chart.update([Curve(f"GPU {number} {name}", series, 1 + i) for i, (name, series) in enumerate(present)])
