"""Tables and curves as text for papers, spreadsheets and scripts. Pure, but for `points`, which reads a run."""

from __future__ import annotations

import csv
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from cafe_tui import format as fmt

if TYPE_CHECKING:
    from engine.contract.run.records import Cell
    from engine.contract.run.results import Table
    from engine.contract.run.rundir import RunDir

CELL_COLUMNS = ("model", "attack", "correct", "total", "accuracy", "low", "high", "seconds", "gradient_steps")


class Entry(NamedTuple):
    """One field of a grid: `small` is what may be left out where there is no room; `best` marks the best of a column.

    `role` is what it means beyond its text: "good", "bad" or "dim" for nothing there; empty for an ordinary one.
    """

    text: str
    small: str = ""
    best: bool = False
    role: str = ""


Row = tuple[Entry, ...]


@dataclass(frozen=True)
class Grid:
    """A table made for reading: the first `labels` columns name the rows; `sections` are rows that belong together.

    `remarks` are sentences without which the numbers would be misread; `notes` explain the signs.
    """

    head: tuple[str, ...] = ()
    sections: tuple[tuple[Row, ...], ...] = ()
    labels: int = 1
    remarks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """Something that can be written to a file: what it is, a name for the file, and what makes its text."""

    label: str
    name: str
    text: Callable[[], str]


# --- tables ----------------------------------------------------------------------------------------------------------


def robust_grid(shown: Table) -> Grid:
    """Models as rows, attacks as columns, percent with 95% intervals."""
    table = [[shown.cell(model, attack) for attack in shown.attacks] for model in shown.models]
    rows = [
        (Entry(model), *(accuracy_entry(cell) for cell in cells))
        for model, cells in zip(shown.models, table, strict=True)
    ]
    return Grid(("accuracy %", *shown.attacks), (tuple(rows),))


def accuracy_entry(cell: Cell | None, best: bool = False) -> Entry:
    """A cell of a robust-accuracy table, or nothing while it is still to come."""
    return Entry(fmt.percent(cell.accuracy), fmt.interval(cell.low, cell.high), best) if cell else Entry("")


def text(grid: Grid, cells_of: Callable[[str], int]) -> list[str]:
    """Columns side by side, the numbers to the right, an empty line between sections.

    `cells_of` measures a text in the cells of a terminal, of which some characters take two.
    """
    sections = [[[f"{entry.text} {entry.small}".rstrip() for entry in row] for row in rows] for rows in grid.sections]
    table = [list(grid.head), *chain(*sections)]
    widths = [max(cells_of(fmt.printable(row[i])) for row in table) for i in range(len(grid.head))]

    def line(row: Sequence[str]) -> str:
        cells = []
        for i, (cell, width) in enumerate(zip(map(fmt.printable, row), widths, strict=True)):
            blank = " " * (width - cells_of(cell))
            cells.append(f"{cell}{blank}" if i < grid.labels else f"{blank}{cell}")
        return "  ".join(cells).rstrip()

    lines = [line(grid.head)]
    for i, rows in enumerate(sections):
        lines += [*([""] if i else []), *map(line, rows)]
    return lines


def markdown(grid: Grid) -> list[str]:
    """A pipe table with the numbers to the right, the best of a column bold."""

    def escaped(text: str) -> str:
        return fmt.printable(text).replace("|", "\\|")

    def shown(entry: Entry) -> str:
        text = escaped(entry.text.strip())
        return f"{f'**{text}**' if entry.best else text} {escaped(entry.small)}".rstrip()

    lines = [
        f"| {' | '.join(map(escaped, grid.head))} |",
        f"|{':---|' * grid.labels}{'---:|' * (len(grid.head) - grid.labels)}",
    ]
    lines += [f"| {' | '.join(map(shown, row))} |" for rows in grid.sections for row in rows]
    return lines


_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{sign: f"${sign}$" for sign in "<>"},
    "±": r"$\pm$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "\\": r"\textbackslash{}",
}


def latex(grid: Grid) -> list[str]:
    """A tabular for the booktabs package; intervals are small, so that the numbers stand out; the best are bold."""

    def escaped(text: str) -> str:
        return "".join(_LATEX.get(sign, sign) for sign in fmt.printable(text))

    def shown(entry: Entry, label: bool) -> str:
        if label:
            return escaped(entry.text)
        text, small = (re.sub(r"-(?=\d)", "$-$", escaped(part.strip())) for part in (entry.text, entry.small))
        text = f"\\textbf{{{text}}}" if entry.best else text
        return f"{text} {{\\scriptsize {small}}}" if small else text

    lines = [
        f"\\begin{{tabular}}{{{'l' * grid.labels}{'r' * (len(grid.head) - grid.labels)}}}",
        "\\toprule",
        f"{' & '.join(map(escaped, grid.head))} \\\\",
    ]
    for rows in grid.sections:
        lines.append("\\midrule")
        lines += [
            f"{' & '.join(shown(entry, column < grid.labels) for column, entry in enumerate(row))} \\\\" for row in rows
        ]
    return [*lines, "\\bottomrule", "\\end{tabular}"]


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf")


def csv_lines(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Comma-separated values, quoted where they must be, numbers in full."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_csv_cell, head))
    writer.writerows(map(_csv_cell, row) for row in rows)
    return out.getvalue().split("\n")[:-1]


def _csv_cell(value: object) -> object:
    """The value as a field of one line; text that a spreadsheet would run as a formula gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    risky = value.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r")) and not _NUMBER.fullmatch(value)
    return fmt.printable(f"'{value}" if risky else value)


def cells_csv(shown: Table) -> list[str]:
    """A line for each cell."""
    return csv_lines(CELL_COLUMNS, ([getattr(cell, name) for name in CELL_COLUMNS] for cell in shown.cells.values()))


# --- curves ----------------------------------------------------------------------------------------------------------


def points(run: RunDir, stage: str, name: str) -> Iterator[tuple[int, float]]:
    """Every value of a series in the order of its steps, as recorded; what a resume overwrote is left out.

    Read anew from the records, because a series on screen may have merged neighbouring steps.
    """
    from engine.contract.run.columns import ColumnReader, Columns

    steps: list[int] = []
    values: list[float] = []
    reader = ColumnReader(run.records_file)
    while pieces := reader.read_columns():
        for piece in pieces:
            if not isinstance(piece, Columns) or piece.stage != stage or name not in piece.curves:
                continue
            for step, value in zip(*piece.curves[name][:2], strict=True):
                if steps and step <= steps[-1]:  # a resume
                    kept = bisect_left(steps, step)
                    del steps[kept:], values[kept:]
                steps.append(step)
                values.append(value)
    return zip(steps, values, strict=True)
