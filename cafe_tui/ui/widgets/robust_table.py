"""The robust-accuracy table: attacks down, networks across, with intervals and differences to the base.

Many networks go down, by their full names, and the attacks across.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cafe_tui import format as fmt
from cafe_tui.ui.widgets.lines import Line, Lines, Piece, fit, wrap

if TYPE_CHECKING:
    from engine.contract.run.records import Cell, Progress
    from engine.contract.run.results import Paired, Table

GAP: Final = 2
WITH_INTERVAL: Final = 19
"""Cells of an accuracy with its interval."""
DETAILS: Final = ((WITH_INTERVAL, 29), (WITH_INTERVAL, 19), (WITH_INTERVAL, 6), (5, 6), (5, 0))
"""Cells of an accuracy and of a difference, from full (intervals, p) to bare; the first that fits is used."""


@dataclass(frozen=True)
class RobustData:
    """What the table shows: finished cells, the attack now running, paired differences once known, remarks."""

    table: Table
    running: Progress | None = None
    differences: Sequence[Paired] = ()
    warnings: Sequence[str] = ()


class RobustTable(Lines):
    """One row an attack; for every network its accuracy, for all but the first also the difference to the first."""

    _data: RobustData | None = None

    def show(self, data: RobustData) -> None:
        """Show these cells."""
        self._data = data
        self.show_changes()

    def compose_lines(self, cells: int) -> list[Line]:
        """Header, attacks, the running attack, remarks."""
        data = self._data
        if data is None or not data.table.models:
            return [(("no evaluation in this profile", "dim"),)] if data else []
        lines = _by_network(data, cells)
        if not lines:
            detail = next((d for d in DETAILS if _needed(data.table, *d) <= cells), DETAILS[-1])
            lines = [_header(data.table, *detail)]
            lines += [_row(data, attack, *detail) for attack in data.table.attacks]
        lines += [_running(data.running)] if data.running else []
        remarks = [*fmt.waterfalls(data.table, data.running), fmt.means_of(data.table)]
        lines += [((text, "dim"),) for remark in remarks if remark for text in wrap(remark, cells)]
        lines += _against_radius(data.table, cells)
        for warning in data.warnings:
            lines += [((text, "warn"),) for text in wrap(f"! {fmt.printable(warning)}", cells)]
        return lines


def _by_network(data: RobustData, cells: int) -> list[Line]:
    """A row for each network, accuracies alone; none where the attacks can go down without a name being cut."""
    table = data.table
    bare = DETAILS[-1][0]
    names = [fmt.printable(model) for model in table.models]
    label = max(map(len, names))
    if (
        len(names) < 3
        or (label <= bare and _needed(table, *DETAILS[-1]) <= cells)
        or _needed(table, *DETAILS[-2]) <= cells
    ):
        return []
    widths = [max(bare, len(attack)) for attack in table.attacks]
    if label + sum(widths) + GAP * len(widths) > cells:
        return []
    gap = " " * GAP
    titles = [fit(fmt.printable(attack), width) for attack, width in zip(table.attacks, widths, strict=True)]
    lines: list[Line] = [((gap.join([" " * label, *titles]), "dim"),)]
    for model, name in zip(table.models, names, strict=True):
        pieces: list[Piece] = [(fit(name, label), "strong")]
        for attack, width in zip(table.attacks, widths, strict=True):
            text, role = _accuracy(table.cell(model, attack), _share(data.running, model, attack), bare)
            pieces += [(gap, ""), (fit(text, width), role)]
        lines.append(tuple(pieces))
    return lines


def _label_cells(table: Table) -> int:
    return max((len(attack) for attack in table.attacks), default=0)


def _needed(table: Table, accuracy: int, difference: int) -> int:
    others = len(table.models) - 1
    gaps = GAP * (1 + others + (others if difference else 0))
    return _label_cells(table) + accuracy * (others + 1) + difference * others + gaps


def _header(table: Table, accuracy: int, difference: int) -> Line:
    base, legend = fmt.printable(table.models[0]), "[95%]" if accuracy >= WITH_INTERVAL else ""
    titles = [fit(legend, _label_cells(table)), fit(base, accuracy)]
    for model in table.models[1:]:
        titles += [fit(fmt.printable(model), accuracy)]
        titles += [fit(f"− {base}" if difference > len(base) + 2 else "diff", difference)] if difference else []
    return (((" " * GAP).join(titles), "dim"),)


def _row(data: RobustData, attack: str, accuracy: int, difference: int) -> Line:
    table, pieces = data.table, [(fit(fmt.printable(attack), _label_cells(data.table)), "strong")]
    for model in table.models:
        text, role = _accuracy(table.cell(model, attack), _share(data.running, model, attack), accuracy)
        pieces += [(" " * GAP, ""), (fit(text, accuracy), role)]
        if difference and model != table.models[0]:
            text, role = _difference(data, model, attack, difference)
            pieces += [(" " * GAP, ""), (fit(text, difference), role)]
    return tuple(pieces)


def _share(running: Progress | None, model: str, attack: str) -> float | None:
    if running is None or (running.model, running.attack) != (model, attack):
        return None
    return fmt.share_done(running)


def _accuracy(cell: Cell | None, share: float | None, cells: int) -> Piece:
    if cell is None:
        return ("    ·", "dim") if share is None else (f"▶{share:4.0%}", "accent")
    interval = f" {fmt.interval(cell.low, cell.high)}" if cells >= WITH_INTERVAL else ""
    return f"{fmt.percent(cell.accuracy):>5}{interval}", ""


def _difference(data: RobustData, model: str, attack: str, cells: int) -> Piece:
    """The paired difference with what fits of its interval and p; before it is known, the plain one."""
    base = data.table.models[0]
    paired = next((d for d in data.differences if (d.attack, d.a, d.b) == (attack, base, model)), None)
    if paired is None:
        plain = data.table.difference(model, attack)
        return ("", "") if plain is None else (f"{fmt.signed(plain):>6}", "dim")
    clear = fmt.interval_role(paired.low, paired.high)
    interval = f" {fmt.interval(paired.low, paired.high)}" if cells >= 19 else ""
    p = f" {fmt.p_value(paired.p)}" if cells >= 29 else ""
    return f"{fmt.signed(paired.difference):>6}{interval}{p}", clear


def _against_radius(table: Table, cells: int) -> list[Line]:
    """Accuracy over eps in characters that need no colours, where there are several radii."""
    from cafe_tui.charts.radii import radius_plot  # 10 ms that other tables need not pay

    drawn = radius_plot(table.cells.values(), table.models, cells, "ascii")
    if drawn is None:
        return []
    plot, title = drawn
    legend = "".join(text for text, _ in plot.legend_pieces(title))
    return [((legend[:cells], "dim"),), *(((line.text, ""),) for line in plot.lines())]


def _running(progress: Progress) -> Line:
    """What cannot be less in the end is the number of broken examples: the accuracy so far is a limit from above."""
    standing = progress.robust_so_far + progress.total - progress.done
    at_most = f", at most {100 * standing / progress.total:.1f}% withstand it" if progress.done else ""
    who = f"{fmt.printable(progress.model)} under {fmt.printable(progress.attack)}"
    return (("▶ ", "accent"), (f"{who}: {progress.done} of {progress.total} decided{at_most}", ""))
