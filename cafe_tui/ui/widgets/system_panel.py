"""The host in lines: GPUs with whose runs are on them, processors, memory, disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cafe_tui import format as fmt
from cafe_tui.charts.axes import ValueAxis
from cafe_tui.ui.widgets.chart import Chart
from cafe_tui.ui.widgets.lines import Line, Lines, Piece, wrap

if TYPE_CHECKING:
    from cafe_tui.launch.host import Gpu, Sample

LABEL_CELLS: Final = 8
BAR_CELLS: Final = 20
HIGH: Final = 0.9
"""Share of memory or disk from which on it is marked."""


@dataclass(frozen=True)
class SystemData:
    """What the panel shows: the newest sample, run ids by pid, and what is wrong or silent."""

    sample: Sample | None = None
    runs: Mapping[int, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class PercentAxis(ValueAxis):
    """Always from 0 to 100, so that a small use looks small."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = 0.0, 100.0

    def update(self, low: float, high: float) -> bool:
        """Nothing changes it."""
        return False


class PercentChart(Chart):
    """Curves of percentages."""

    def reset_axes(self) -> None:
        """Forget the steps that were shown."""
        super().reset_axes()
        self._y = PercentAxis()


class SystemPanel(Lines):
    """One line for each thing that can be full or busy."""

    _data = SystemData()

    def show(self, data: SystemData) -> None:
        """Show this."""
        self._data = data
        self.show_changes()

    def compose_lines(self, cells: int) -> list[Line]:
        """Problems, GPUs with their processes, processors, memory, swap, disk."""
        data, lines = self._data, list[Line]()
        for problem in data.problems:
            lines += [((part, "warn"),) for part in wrap(fmt.printable(problem), cells)]
        if data.sample is None:
            return lines or [(("looking …", "dim"),)]
        if not data.sample.gpus:
            why = wrap(fmt.printable(data.sample.no_gpus or "none here"), cells - LABEL_CELLS)
            lines += [(_label("" if i else "GPU"), (part, "dim")) for i, part in enumerate(why)]
        for number, gpu in enumerate(data.sample.gpus):
            lines += _gpu_lines(number, gpu, data.runs)
        return [*lines, *_host_lines(data.sample, cells)]


def _label(text: str) -> Piece:
    return f"{text:<{LABEL_CELLS}}", "strong"


def _share(label: str, used: float, total: float, text: str) -> Line:
    share = used / total if total else 0.0
    return (
        _label(label),
        (fmt.bar(share, BAR_CELLS), "warn" if share >= HIGH else "accent"),
        (f" {share:4.0%}  {text}", ""),
    )


def _gpu_lines(number: int, gpu: Gpu, runs: Mapping[int, str]) -> list[Line]:
    facts = [fmt.printable(gpu.name)]
    facts += [] if gpu.temperature is None else [f"{gpu.temperature:.0f} °C"]
    if gpu.power is not None:
        facts.append(f"{gpu.power:.0f} W" + (f" of {gpu.power_limit:.0f} W" if gpu.power_limit else ""))
    lines: list[Line] = []
    if gpu.use is None:
        lines.append((_label(f"GPU {number}"), ("  ".join(facts), "")))
    else:
        lines.append(_share(f"GPU {number}", gpu.use, 100.0, "  ".join(facts)))
    if gpu.memory_used is not None and gpu.memory_total:
        text = f"{fmt.size(gpu.memory_used)} of {fmt.size(gpu.memory_total)}"
        lines.append(_share("  memory", gpu.memory_used, gpu.memory_total, text))
    for process in gpu.processes:
        run = runs.get(process.pid)
        who = f"run {run}" if run else f"{process.user or 'somebody'}: {process.command or 'a process'}"
        text = f"  {process.pid:>7}  {fmt.size(process.memory):>9}  {who}"
        lines.append(((fmt.printable(text), "" if run else "dim"),))
    return lines


def _host_lines(sample: Sample, cells: int) -> list[Line]:
    count = len(sample.cores)
    mean = sum(sample.cores) / count if count else 0.0
    load = " ".join(f"{value:.2f}" for value in sample.load)
    lines = [_share("CPU", mean, 100.0, f"{count} core{'s' * (count != 1)}, load {load}")]
    blocks = "".join(
        fmt.BLOCKS[round(min(max(core, 0.0), 100.0) / 100 * (len(fmt.BLOCKS) - 1))] for core in sample.cores
    )
    width = max(cells - LABEL_CELLS, 1)
    for start in range(0, len(blocks), width) if count > 1 else ():
        lines.append((_label("  each" if not start else ""), (blocks[start : start + width], "accent")))
    for label, used, total in (
        ("memory", sample.memory_used, sample.memory_total),
        ("swap", sample.swap_used, sample.swap_total),
        ("disk", sample.disk_used, sample.disk_total),
    ):
        if total:
            free = f", {fmt.size(total - used)} free" if label == "disk" else ""
            lines.append(_share(label, used, total, f"{fmt.size(used)} of {fmt.size(total)}{free}"))
    return lines
