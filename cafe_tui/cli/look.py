"""cafe ls, show, logs, plot, table: look at runs without opening the UI."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cafe_tui.cli.options import Json, Run, Runs, RunsNamed, find_run, find_runs, print_json
from cafe_tui.locations import runs_folder

if TYPE_CHECKING:
    from cafe_tui.charts.raster import Curve
    from cafe_tui.reading.run import RunView
    from cafe_tui.reading.runs import RunRow
    from engine.contract.run.records import Cell
    from engine.contract.run.results import Table
    from engine.contract.run.rundir import RunDir

State = Literal["queued", "starting", "running", "stopping", "stopped", "finished", "failed", "lost"]


def register(app: typer.Typer) -> None:
    """Add the verbs to `cafe`."""
    app.command("ls", epilog="Example: cafe ls --state running --sort robust")(list_runs)
    app.command("show", epilog="Example: cafe show last")(show)
    app.command("logs", epilog="Example: cafe logs last -f")(logs)
    app.command("plot", epilog="Example: cafe plot last --series psi,hypothesis_loss --svg game.svg")(plot)
    app.command("table", epilog="Example: cafe table last --format markdown")(table)


def list_runs(
    state: Annotated[State | None, typer.Option(help="Only runs in this state.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only runs with this tag.")] = None,
    sort: Annotated[
        Literal["age", "name", "profile", "state", "stage", "eta", "progress", "clean", "robust", "difference"],
        typer.Option(help="Order of the rows: words from A to Z, numbers from high to low."),
    ] = "age",
    json: Json = False,
    runs: Runs = None,
) -> None:
    """List runs, newest first: state, stage, progress, age, accuracies in percent."""
    from cafe_tui.reading.ordering import ordered
    from cafe_tui.reading.runs import row_of
    from engine.contract.run import rundir

    folder = runs_folder(runs)
    rows = [row_of(run) for run in rundir.listing(folder)]
    rows = [row for row in rows if (state is None or row.state == state) and (tag is None or tag in row.tags)]
    rows = ordered(rows, sort)
    if json:
        print_json({"runs": [row.to_json() for row in rows]})
    elif not rows and state is None and tag is None:
        print(f"No runs in {folder}. Start one with: cafe run quickstart")
    elif not rows:
        print(f"No run in {folder} matches.")
    else:
        _print_rows(rows)


def _print_rows(rows: list[RunRow]) -> None:
    from cafe_tui import format as fmt

    symbols = fmt.SYMBOLS if (sys.stdout.encoding or "").lower().startswith("utf") else fmt.ASCII_SYMBOLS
    now = time.time()
    width = max(len(fmt.printable(row.id)) for row in rows)
    print(f"{'state':<10}  {'run':<{width}}  {'stage':<10}  {'done':>4}  {'age':>4}  {'clean':>5}  robust")
    for row in rows:
        head = row.headline
        clean, robust, difference = (head.get(name) for name in ("clean", "robust", "difference"))
        numbers = f"{_percent(clean):>5}  {_percent(robust):>5}"
        if isinstance(robust, float):
            numbers += f" {fmt.printable(str(head.get('attack', '')))}"
        if isinstance(difference, float):
            numbers += f" ({fmt.signed(difference)})"
        line = (
            f"{symbols[row.state]} {row.state:<8}  {fmt.printable(row.id):<{width}}  {fmt.printable(row.stage):<10}  "
            f"{100 * row.progress:>3.0f}%  {fmt.age(now - row.created):>4}  {numbers}"
        )
        print(line.rstrip())


def _percent(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else "-"


def show(run: Run, json: Json = False, runs: Runs = None) -> None:
    """Show one run: state and reason, stages, results, profile, and where its files are."""
    directory = find_run(runs, run)
    if json:
        print_json(_show_document(directory))
        return
    from rich.text import Text

    from cafe_tui import format as fmt
    from cafe_tui.console import painter, views
    from cafe_tui.reading.run import whole_view
    from cafe_tui.reading.runs import row_of

    row, view = row_of(directory), whole_view(directory)
    signs, info = views.signs_for(sys.stdout), view.info
    lines = [views.header(view, signs), Text(fmt.printable(info.description), "dim")]
    lines += [Text(fmt.printable(text), "red") for text in (view.error, view.hint) if text]
    lines += [Text(""), Text("stages", "bold")]
    for stage in view.stages:
        spent = fmt.duration(stage.finished - stage.started) if stage.started and stage.finished else ""
        share = f"{100 * stage.progress:.0f}%"
        lines.append(Text(f"  {fmt.printable(stage.id):<14} {stage.state:<9} {share:>4}  {spent}".rstrip()))
    summary = views.summary(view, painter.console(sys.stdout).width - 2, signs)
    lines += [Text(""), Text("results", "bold"), *(Text("  ").append_text(line) for line in summary)] if summary else []
    lines += [Text(""), Text("files", "bold"), Text(f"  {fmt.printable(str(directory.path))}", overflow="ignore")]
    for name in ("profile.toml", "records.jsonl", "results.json", "engine.log", "checkpoints", "samples"):
        path = directory.path / name
        if path.exists():
            lines.append(Text(f"  {name:<14} {_amount(path)}"))
    lines += [Text(""), Text("note", "bold"), Text(f"  {fmt.printable(info.note)}")] if info.note else []
    facts = {"tags": ", ".join(row.tags), "host": info.host, "devices": ", ".join(info.devices), **info.versions}
    lines += [Text(""), Text("made with", "bold")]
    lines += [Text(f"  {name:<14} {fmt.printable(value)}") for name, value in facts.items() if value]
    painter.print_lines(lines)


def _amount(path: Path) -> str:
    from cafe_tui import format as fmt

    if path.is_dir():
        files = [file for file in path.iterdir() if file.is_file()]
        return f"{len(files)} files, {fmt.size(sum(file.stat().st_size for file in files))}"
    return fmt.size(path.stat().st_size)


def _show_document(directory: RunDir) -> dict[str, object]:
    import msgspec

    from cafe_tui.reading.runs import row_of
    from engine.contract.errors import CafeError
    from engine.contract.profile import files as profiles

    try:
        profile: object = profiles.read_toml(directory.profile_file)
    except CafeError:
        profile = None
    results = directory.results()
    return row_of(directory).to_json() | {
        "profile": profile,
        "results": msgspec.to_builtins(results) if results else None,
        "path": str(directory.path.absolute()),
    }


def logs(
    run: Run,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the run ends or ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Lines from the end to begin with.")] = 1000,
    runs: Runs = None,
) -> None:
    """Print the engine's log: warnings, and tracebacks of failures."""
    from cafe_tui import format as fmt
    from cafe_tui.reading.log import LogFollower

    directory = find_run(runs, run)
    tail = LogFollower(directory, lines=lines)
    try:
        while True:
            ended = directory.status().final
            new = tail.poll()
            for line in new:
                print(fmt.printable(line.expandtabs()), flush=True)
            if not follow or (ended and not new):
                return
            time.sleep(0 if new else 0.25)
    except KeyboardInterrupt:
        return


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
    from cafe_tui.charts.svg import picture, to_rich, to_svg
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
        print(svg)
        return
    signs = views.signs_for(sys.stdout)
    cells = width or min(painter.console(sys.stdout).width, 160)
    drawn = to_rich(picture(curves, cells, height or 20, log=log, charset=signs.charset), stage)
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
    found = []
    for i, name in enumerate(name.strip() for name in wanted.split(",")):
        keys = [key for key in view.series if name in (key[1], f"{key[0]}/{key[1]}")]
        if not keys:
            names = sorted({key[1] for key in view.series}) or ["none yet"]
            raise UsageError(f"{directory.id} has no series {name!r}", f"There are: {', '.join(names)}")
        found.append(Curve(name, view.series[keys[-1]], i + 1))
    return "", found


def table(
    runs_named: RunsNamed,
    format_: Annotated[
        Literal["text", "markdown", "latex", "csv", "json"], typer.Option("--format", help="How to print.")
    ] = "text",
    seeds: Annotated[
        bool,
        typer.Option("--seeds", help="Means and spread of runs that differ in the seed alone; with against without."),
    ] = False,
    json: Json = False,
    runs: Runs = None,
) -> None:
    """Robust-accuracy tables side by side: models as rows, attacks as columns, percent with 95% intervals."""
    from cafe_tui.console import painter, views
    from cafe_tui.reading.run import whole_view
    from engine.contract.run import results

    directories = list({run.id: run for name in runs_named for run in find_runs(runs, name)}.values())
    format_ = "json" if json else format_
    if seeds:
        _over_seeds(directories, format_)
        return
    pictures = [whole_view(directory) for directory in directories]
    cells = [_named(cell, view, len(pictures) > 1) for view in pictures for cell in view.table.cells.values()]
    if format_ == "json":
        print_json(results.document(cells))
        return
    for view in pictures:
        if not view.table.cells:
            print(f"{view.id} has no finished cell yet", file=sys.stderr)
    shown = results.table(cells)
    if not cells:
        return
    if format_ != "text":
        print("\n".join(_in_format(shown, format_)))
        return
    width = painter.console(sys.stdout).width if sys.stdout.isatty() else 200
    differences = pictures[0].differences if len(pictures) == 1 else ()
    signs = views.signs_for(sys.stdout)
    painter.print_lines(views.table_lines(shown, differences, width=width, signs=signs))
    painter.print_lines(views.radius_lines(shown, width, signs))


def _over_seeds(directories: list[RunDir], format_: str) -> None:
    from cafe_tui import format as fmt
    from cafe_tui.results import exporting, grids
    from cafe_tui.results import seeds as over
    from engine.contract.errors import UsageError

    found = over.repeated(directories)
    if not found:
        raise UsageError(
            "no two of these runs differ in the seed alone",
            "`cafe run PROFILE --set 'sweep.seed=[0,1,2]'` runs a profile with several seeds.",
        )
    if format_ == "json":
        print_json(over.document(found))
        return
    if format_ == "csv":
        rows = [row for one in found for row in grids.mean_records(one.group.runs)]
        print("\n".join(exporting.csv_lines(grids.MEAN_COLUMNS, rows)))
        return
    draw = {"text": exporting.text, "markdown": exporting.markdown, "latex": exporting.latex}[format_]
    for one in found:
        tables = [over.mean_grid(one), *([over.effect_grid(one)] if one.effects else [])]
        print(fmt.printable(one.group.name))
        for grid in tables:
            print("\n".join(["", *draw(grid), "", *map(fmt.printable, (*grid.remarks, *grid.notes)), ""]))


def _named(cell: Cell, view: RunView, with_run: bool) -> Cell:
    """The cell under a row name that tells its run, when there are several."""
    from msgspec.structs import replace

    return replace(cell, model=f"{view.id}/{cell.model}") if with_run else cell


def _in_format(shown: Table, format_: str) -> list[str]:
    from cafe_tui.results import exporting

    if format_ == "csv":
        return exporting.cells_csv(shown)
    return {"markdown": exporting.markdown, "latex": exporting.latex}[format_](exporting.robust_grid(shown))
