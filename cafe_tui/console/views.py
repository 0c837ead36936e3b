"""What a run looks like on a console: the live view, the final summary, tables, curves. Lines of rich text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import wrap
from typing import Final, TextIO

from rich.cells import cell_len
from rich.text import Text

from cafe_tui import format as fmt
from cafe_tui.charts.axes import StepAxis, ValueAxis
from cafe_tui.charts.radii import radius_plot
from cafe_tui.charts.raster import FAINT, Charset, Curve, Plot, draw, follow, picture
from cafe_tui.reading.run import RunView, StageView
from engine.contract.run.records import Cell
from engine.contract.run.results import Paired, Table

STATE_STYLES: Final = {
    "running": "cyan",
    "finished": "green",
    "failed": "bold red",
    "lost": "bold red",
    "stopped": "yellow",
    "stopping": "yellow",
}
CURVE_STYLES: Final = ("cyan", "yellow", "green", "red", "magenta", "white")
"""Colours of the curves: of the sixteen every terminal has."""
WIDEST_PICTURE: Final = 110
"""Cells beyond which a curve gains nothing: two stand side by side instead."""
NARROWEST_PAIR: Final = 100
LEAST_PICTURE: Final = 6
SHORTEST_BAR: Final = 4


@dataclass(frozen=True)
class Signs:
    """What a terminal can show."""

    charset: Charset = "braille"

    @property
    def ascii_only(self) -> bool:
        return self.charset == "ascii"

    def state(self, state: str) -> str:
        """Symbol and word."""
        symbols = fmt.ASCII_SYMBOLS if self.ascii_only else fmt.SYMBOLS
        return f"{symbols[state]} {state}"


def utf8(stream: TextIO) -> bool:
    """Whether a stream takes more than ASCII."""
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


def signs_for(stream: TextIO) -> Signs:
    """What may be written to a stream."""
    return Signs("braille" if utf8(stream) else "ascii")


def header(view: RunView, signs: Signs, width: int | None = None) -> Text:
    """Run, state, time spent and time to go; the run comes last where not all of it fits into `width` cells."""
    name, rest = Text(view.id, "bold"), Text()
    rest.append(signs.state(view.status.state), STATE_STYLES.get(view.status.state, ""))
    rest.append(f"  {fmt.duration(view.elapsed)}", "dim")
    if view.eta is not None:
        rest.append(f", about {fmt.duration(view.eta)} to go", "dim")
    fits = width is None or name.cell_len + 2 + rest.cell_len <= width
    return Text("  ", no_wrap=True, overflow="crop").join((name, rest) if fits else (rest, name))


def stage_bar(view: RunView, width: int, signs: Signs) -> Text:
    """All stages in order, the running one with a bar, its share and its time to go; the others named if they fit."""
    arrow = " > " if signs.ascii_only else " › "
    running = tuple(stage for stage in view.stages if stage.state == "running")
    signs_only = len(view.stages) + len(arrow) * max(len(view.stages) - 1, 0)
    numbers = 15 if running else 0  # " 100% 59m 59s" and the spaces around the bar
    for named in (view.stages, running):
        fixed = signs_only + sum(len(stage.id) + 1 for stage in named) + numbers
        if fixed + SHORTEST_BAR <= width:
            break
    cells = min(max(width - fixed, SHORTEST_BAR), 24)
    text = Text(no_wrap=True, overflow="crop")
    for i, stage in enumerate(view.stages):
        text.append(arrow if i else "", "dim")
        text.append_text(_stage(stage, view, cells, signs, stage.id if stage in named else ""))
    return text


def _stage(stage: StageView, view: RunView, cells: int, signs: Signs, name: str) -> Text:
    if stage.state == "finished":
        return Text(f"{signs.state('finished')[0]} {name}".rstrip(), "green")
    if stage.state == "waiting":
        return Text(f"{signs.state('queued')[0]} {name}".rstrip(), "dim")
    text = Text()
    mark = signs.state(view.status.state)[0]
    text.append(f"{mark} {name} ", STATE_STYLES.get(view.status.state, "cyan"))
    text.append(fmt.bar(stage.progress, cells, ascii_only=signs.ascii_only), "cyan")
    text.append(f" {100 * stage.progress:.0f}%")
    if stage.eta is not None:
        text.append(f" {fmt.duration(stage.eta)}", "dim")
    return text


def readings(view: RunView, width: int, signs: Signs, *, explain: bool) -> list[Text]:
    """The four accuracies of the game, with what each means when there is room."""
    accuracies = view.readings()
    if not accuracies:
        return []
    if not explain:
        text, gap = Text(no_wrap=True, overflow="crop"), "%   " if width >= 60 else "  "
        for name, value in accuracies.items():
            text.append(f"{name} ", "dim").append(f"{fmt.percent(value)}{gap}", "bold")
        return [text.append("accuracy on unseen images", "dim") if width >= 75 else text]
    lines = []
    for name, value in accuracies.items():
        line = Text(no_wrap=True, overflow="crop")
        line.append(f"{name:>3} ", "bold").append(f"{fmt.percent(value):>6}% ", "bold")
        line.append(fmt.bar(value / 100, 20, ascii_only=signs.ascii_only), "cyan")
        lines.append(line.append(f"  {fmt.MEANINGS[name]}", "dim"))
    return lines


def table_lines(
    table: Table,
    differences: Sequence[Paired] = (),
    *,
    width: int,
    running: tuple[str, str, float] | None = None,
    signs: Signs | None = None,
) -> list[Text]:
    """Robust accuracy in percent, models as rows, attacks as columns, 95% intervals beside the numbers where they fit.

    `running` names the cell in progress and its share done; `differences` adds rows against the first model.
    """
    signs = signs or Signs()
    if not table.models:
        return []
    versus = [f"{row.b} - {row.a}" for row in differences]
    first = max(cell_len(name) for name in [*table.models, *versus, "accuracy %"]) + 2
    wide = first + 20 * len(table.attacks) <= width
    column = 20 if wide else max(min((width - first) // max(len(table.attacks), 1), 12), 7)
    lines = [_row("accuracy %", [Text(name) for name in table.attacks], first, column, "dim")]
    for model in table.models:
        row = [_cell_text(table.cell(model, name), model, name, wide, running, signs) for name in table.attacks]
        lines.append(_row(model, row, first, column))
    for pair in dict.fromkeys((row.a, row.b) for row in differences):
        by_attack = {row.attack: row for row in differences if (row.a, row.b) == pair}
        row = [_difference_text(by_attack.get(name), wide) for name in table.attacks]
        lines.append(_row(f"{pair[1]} - {pair[0]}", row, first, column))
    return lines


def _row(name: str, cells: Sequence[Text], first: int, column: int, style: str = "") -> Text:
    line = Text(no_wrap=True, overflow="crop")
    line.append(name + " " * max(first - cell_len(name), 1), style or "bold")
    for cell in cells:
        line.append_text(cell if not style else Text(cell.plain, style))
        line.append(" " * max(column - cell.cell_len, 1))
    return line


def _cell_text(
    cell: Cell | None, model: str, attack: str, wide: bool, running: tuple[str, str, float] | None, signs: Signs
) -> Text:
    if cell is None and running and running[:2] == (model, attack):
        return Text(fmt.bar(running[2], 6, ascii_only=signs.ascii_only), "cyan")
    if cell is None:
        return Text("." if signs.ascii_only else "·", "dim")
    text = Text(fmt.percent(cell.accuracy))
    if wide:
        text.append(f" {fmt.interval(cell.low, cell.high)}", "dim")
    if cell.warnings:
        text.append(" !", "bold yellow")
    return text


def _difference_text(row: Paired | None, wide: bool) -> Text:
    if row is None:
        return Text("")
    clear = row.low > 0 or row.high < 0
    text = Text(fmt.signed(row.difference), ("green" if row.difference > 0 else "red") if clear else "")
    return text.append(f" {fmt.interval(row.low, row.high)}", "dim") if wide else text


def radius_lines(table: Table, width: int, signs: Signs) -> list[Text]:
    """The curves of accuracy against eps; nothing for a table with one radius."""
    drawn = radius_plot(table.cells.values(), table.models, min(width, WIDEST_PICTURE), signs.charset)
    return list(to_rich(*drawn).split("\n")) if drawn else []


def cell_warnings(table: Table) -> list[str]:
    """The warnings that belong to numbers of the table."""
    return [f"{cell.model}, {cell.attack}: {note}" for cell in table.cells.values() for note in cell.warnings]


def pictures(view: RunView) -> list[tuple[str, list[Curve]]]:
    """Titles and curves worth showing now: the game's while it is played and after, those of training otherwise."""
    stage = view.current
    if stage is not None and stage.kind == "evaluate":
        stage = view.last_of_kind("game") or view.last_of_kind("train", "inoculate")
    if stage is None:
        return []

    def curves(**names: str) -> list[Curve]:
        wanted = [(shown, view.series.get((stage.id, name))) for name, shown in names.items()]
        return [Curve(shown, series, i) for i, (shown, series) in enumerate(wanted, 1) if series is not None]

    if stage.kind == "game":
        chosen = [
            ("game", curves(hypothesis_loss="hypothesis loss", test_function_loss="test-function loss")),
            ("moment", curves(psi="psi", regulariser="regulariser")),
        ]
    else:
        chosen = [
            (stage.id, curves(loss="loss", inoculation_loss="inoculation loss")),
            (
                "accuracy %",
                curves(accuracy="train", val_accuracy="val clean", val_robust_accuracy="val robust"),
            ),
        ]
    return [(title, drawn) for title, drawn in chosen if drawn]


Axes = dict[str, tuple[StepAxis, ValueAxis]]
"""The axes of each picture by its title, kept from frame to frame: they grow in steps, so that old dots stay put."""


def curve_lines(view: RunView, width: int, height: int, signs: Signs, axes: Axes | None = None) -> list[Text]:
    """The pictures in `width` x `height` cells: side by side where both fit, else one above the other, else one.

    With `axes` they are drawn on those, which follow the curves; without, on axes that fit this one picture.
    """
    chosen = pictures(view)
    if not chosen or height < LEAST_PICTURE:
        return [Text("")] * max(height, 0)
    if len(chosen) > 1 and width >= NARROWEST_PAIR:
        half = min((width - 2) // 2, WIDEST_PICTURE)
        left, right = (_picture(title, curves, half, height, signs, axes) for title, curves in chosen)
        return [_beside(a, b, half) for a, b in zip(left, right, strict=True)]
    if len(chosen) > 1 and height >= 2 * LEAST_PICTURE + 6:
        upper = (height * 3) // 5
        (title, curves), (title2, curves2) = chosen[:2]
        return [
            *_picture(title, curves, width, upper, signs, axes),
            *_picture(title2, curves2, width, height - upper, signs, axes),
        ]
    return _picture(*chosen[0], width, height, signs, axes)


def _picture(title: str, curves: list[Curve], width: int, height: int, signs: Signs, axes: Axes | None) -> list[Text]:
    if axes is None:
        plot = picture(curves, width, height, charset=signs.charset)
    else:
        x, y = axes.setdefault(title, (StepAxis(), ValueAxis()))
        follow(curves, x, y)
        plot = draw(curves, x, y, width, height - 1, charset=signs.charset)
    lines = to_rich(plot, title).split("\n")
    return [*lines, *[Text("")] * (height - len(lines))][:height]


def _beside(left: Text, right: Text, cells: int) -> Text:
    line = left.copy()
    line.truncate(cells, pad=True)
    return line.append("  ").append_text(right)


def to_rich(plot: Plot, title: str = "") -> Text:
    """The picture under its legend as lines of rich text, which wrap nowhere."""
    text = Text(no_wrap=True, overflow="crop", end="")
    for piece, colour in plot.legend_pieces(title):
        text.append(piece, _curve_style(colour))
    for row in plot.lines():
        text.append("\n")
        start = 0
        for colour, run in groupby(row.colours):
            end = start + sum(1 for _ in run)
            text.append(row.text[start:end], _curve_style(colour))
            start = end
    return text


def _curve_style(colour: int) -> str:
    return "dim" if colour == FAINT else CURVE_STYLES[(colour - 1) % len(CURVE_STYLES)]


def frame(view: RunView, width: int, height: int, signs: Signs, note: str = "", axes: Axes | None = None) -> list[Text]:
    """The live view in at most `width` x `height` cells; `axes` is kept by the caller from frame to frame."""
    top = [header(view, signs, width), stage_bar(view, width, signs)]
    progress = view.attack_progress
    running = (progress.model, progress.attack, fmt.share_done(progress)) if progress else None
    below: list[Text] = []
    if view.last_of_kind("game"):
        below += readings(view, width, signs, explain=height >= 30)
    if view.last_of_kind("evaluate"):
        below += [Text(""), *table_lines(view.table, view.differences, width=width, running=running, signs=signs)]
        below += [Text(line, "dim", no_wrap=True, overflow="crop") for line in fmt.waterfalls(view.table, progress)]
    problems = [*view.warnings, *cell_warnings(view.table)][-(3 if height >= 24 else 1) :]
    below += [Text(f"! {text}", "yellow", no_wrap=True, overflow="crop") for text in problems]
    below += [Text(line, "bold red") for line in _wrapped(view.error, width)]
    below += [Text(line, "dim") for line in _wrapped(note, width)]
    room = height - len(top) - len(below) - 1
    if room < LEAST_PICTURE:
        return [*top, *below][:height]
    return [*top, Text(""), *curve_lines(view, width, min(room, 34), signs, axes), *below][:height]


def _wrapped(text: str, width: int) -> list[str]:
    return wrap(text, max(width, 1), max_lines=3, placeholder="")


def summary(view: RunView, width: int, signs: Signs) -> list[Text]:
    """What a finished, stopped or failed run leaves on the screen."""
    lines: list[Text] = []
    if view.table.cells:
        lines += table_lines(view.table, view.differences, width=width, signs=signs)
        lines += [Text(line) for line in fmt.waterfalls(view.table, None)]
        lines += radius_lines(view.table, width, signs)
        first = next(iter(view.table.cells.values()))
        if means := fmt.means_of(view.table):
            lines.append(Text(means, "dim"))
        lines.append(Text(f"{first.total} test images, 95% intervals; differences are paired, same images", "dim"))
        for row in view.differences:
            if row.attack != "clean":
                lines.append(Text(_sentence(row)))
    if accuracies := view.readings():
        lines.append(
            Text(
                f"features of the game: AC {fmt.percent(accuracies['AC'])}% "
                f"against Adv {fmt.percent(accuracies['Adv'])}%, "
                f"CC {fmt.percent(accuracies['CC'])}% against CF {fmt.percent(accuracies['CF'])}%"
            )
        )
    for text in [*view.warnings, *cell_warnings(view.table)]:
        lines += prose(f"! {text}", "yellow")
    return lines


def prose(text: str, style: str = "", indent: str = "") -> list[Text]:
    """What somebody has written, a line for each of its lines; nothing for no text."""
    return [Text(f"{indent}{line}", style) for line in text.splitlines()]


def _sentence(row: Paired) -> str:
    return (
        f"{row.attack}: {row.b} {fmt.signed(row.difference)} points on {row.a} "
        f"{fmt.interval(row.low, row.high)}, {fmt.p_value(row.p)} (exact McNemar)"
    )


def ending(view: RunView, signs: Signs, path: str) -> list[Text]:
    """State, reason, where the files are, and what to type next."""
    line = Text(no_wrap=True, overflow="ignore")
    line.append(signs.state(view.status.state), STATE_STYLES.get(view.status.state, ""))
    line.append(f" after {fmt.duration(view.elapsed)}  {path}")
    lines = [line]
    return [*lines, *prose(view.error, "red"), *prose(view.hint)]
