"""cafe table: the robust-accuracy tables of runs, and their means over seeds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cafe_tui.cli.options import Json, Runs, RunsNamed, find_runs, print_json
from engine.contract.printing import say

if TYPE_CHECKING:
    from cafe_tui.reading.run import RunView
    from cafe_tui.results.exporting import Grid
    from cafe_tui.results.seeds import Repeated
    from engine.contract.run.records import Cell
    from engine.contract.run.results import Paired, Table
    from engine.contract.run.rundir import RunDir

Format = Literal["text", "markdown", "latex", "csv", "json"]


def table(
    runs_named: RunsNamed,
    format_: Annotated[Format, typer.Option("--format", help="How to print.")] = "text",
    seeds: Annotated[
        bool,
        typer.Option("--seeds", help="Means and spread of runs that differ in the seed alone; with against without."),
    ] = False,
    json: Json = False,
    runs: Runs = None,
) -> None:
    """Robust-accuracy tables side by side: models as rows, attacks as columns, percent with 95% intervals."""
    directories = list({run.id: run for name in runs_named for run in find_runs(runs, name)}.values())
    show = _show_seeds if seeds else _show_tables
    show(directories, "json" if json else format_)


def _show_tables(directories: list[RunDir], format_: Format) -> None:
    """All cells of these runs as one table."""
    from cafe_tui.reading.run import whole_view
    from cafe_tui.results import exporting
    from engine.contract.run import results

    views = [whole_view(directory) for directory in directories]
    cells = [_named(cell, view, len(views) > 1) for view in views for cell in view.table.cells.values()]
    if format_ == "json":
        print_json(results.document(cells))
        return
    for view in views:
        if not view.table.cells:
            say(f"{view.id} has no finished cell yet", file=sys.stderr)
    if not cells:
        return
    shown = results.table(cells)
    match format_:
        case "text":
            _print_text(shown, views[0].differences if len(views) == 1 else ())
        case "csv":
            say(*exporting.cells_csv(shown))
        case "markdown":
            say(*exporting.markdown(exporting.robust_grid(shown)))
        case "latex":
            say(*exporting.latex(exporting.robust_grid(shown)))


def _named(cell: Cell, view: RunView, with_run: bool) -> Cell:
    """The cell under a row name that tells its run, when there are several."""
    from msgspec.structs import replace

    return replace(cell, model=f"{view.id}/{cell.model}") if with_run else cell


def _print_text(shown: Table, differences: Sequence[Paired]) -> None:
    """A table for the terminal, with its curves over the radius."""
    from cafe_tui.console import painter, views

    width = painter.console(sys.stdout).width if sys.stdout.isatty() else 200
    signs = views.signs_for(sys.stdout)
    painter.print_lines(views.table_lines(shown, differences, width=width, signs=signs))
    painter.print_lines(views.radius_lines(shown, width, signs))


def _show_seeds(directories: list[RunDir], format_: Format) -> None:
    """Means over the seeds, and what inoculation changes. Raises UsageError where no seed was repeated."""
    from cafe_tui.results import exporting, grids
    from cafe_tui.results import seeds as over
    from engine.contract.errors import UsageError

    groups = over.repeated(directories)
    if not groups:
        raise UsageError(
            "no two of these runs differ in the seed alone",
            "`cafe run PROFILE --set 'sweep.seed=[0,1,2]'` runs a profile with several seeds.",
        )
    match format_:
        case "json":
            print_json(over.document(groups))
        case "csv":
            rows = [row for one in groups for row in grids.mean_records(one.group.runs)]
            say(*exporting.csv_lines(grids.MEAN_COLUMNS, rows))
        case "markdown":
            _print_groups(groups, exporting.markdown)
        case "latex":
            _print_groups(groups, exporting.latex)
        case "text":
            from rich.cells import cell_len

            _print_groups(groups, partial(exporting.text, cells_of=cell_len))


def _print_groups(groups: list[Repeated], draw: Callable[[Grid], list[str]]) -> None:
    """Under the name of each group its means, and its effects where there are any."""
    from cafe_tui.results import seeds as over

    for one in groups:
        tables = [over.mean_grid(one), *([over.effect_grid(one)] if one.effects else [])]
        say(one.group.name)
        for grid in tables:
            say("", *draw(grid), "", *grid.remarks, *grid.notes, "")
