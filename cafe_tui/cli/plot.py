"""cafe plot: curves of a run, once, on the terminal or as an SVG file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cafe_tui.cli.options import Run, Runs, find_run
from engine.contract.printing import say

if TYPE_CHECKING:
    from cafe_tui.charts.raster import Curve
    from engine.contract.run.rundir import RunDir


def plot(
    run: Run,
    series: Annotated[
        str | None, typer.Option(help="Names of curves, separated by commas; STAGE/NAME picks a stage.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Write an SVG file instead.")] = None,
    log: Annotated[bool, typer.Option("--log", help="Logarithmic value axis.")] = False,
    width: Annotated[int | None, typer.Option(min=20, help="Cells, or pixels for --svg.")] = None,
    height: Annotated[int | None, typer.Option(min=6, help="Lines, or pixels for --svg.")] = None,
    runs: Runs = None,
) -> None:
    """Draw curves once. By default: hypothesis and test-function loss of the game, else the training loss."""
    from cafe_tui.charts.raster import picture
    from cafe_tui.charts.svg import to_svg
    from cafe_tui.console import painter, views
    from engine.contract.errors import UsageError
    from engine.contract.run.rundir import write_atomically

    directory = find_run(runs, run)
    stage, curves = _curves(directory, series)
    title = f"{directory.id}  {stage}"
    if svg is not None:
        try:
            picture_text = to_svg(title, curves, width or 960, height or 480, log=log)
        except ValueError as error:
            raise UsageError(f"--width, --height: {error}") from None
        write_atomically(svg, picture_text.encode())
        say(str(svg))
        return
    signs = views.signs_for(sys.stdout)
    cells = width or min(painter.console(sys.stdout).width, 160)
    drawn = views.to_rich(picture(curves, cells, height or 20, log=log, charset=signs.charset), stage)
    painter.print_lines([*drawn.split("\n")])


def _curves(directory: RunDir, wanted: str | None) -> tuple[str, list[Curve]]:
    """The stage and curves asked for. Raises UsageError with the names there are."""
    from cafe_tui.charts.raster import Curve
    from cafe_tui.console import views
    from cafe_tui.reading.run import whole_view
    from engine.contract.errors import UsageError

    view = whole_view(directory)
    if wanted is None:
        chosen = views.pictures(view)
        if not chosen:
            raise UsageError(f"{directory.id} has no curves yet")
        return chosen[0]
    curves = []
    for i, name in enumerate(name.strip() for name in wanted.split(",")):
        keys = [key for key in view.series if name in (key[1], f"{key[0]}/{key[1]}")]
        if not keys:
            names = sorted({key[1] for key in view.series}) or ["none yet"]
            raise UsageError(f"{directory.id} has no series {name!r}", f"There are: {', '.join(names)}")
        curves.append(Curve(name, view.series[keys[-1]], i + 1))
    return "", curves
