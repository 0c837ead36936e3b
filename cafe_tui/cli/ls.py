"""cafe ls: the runs of a folder, a line each."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cafe_tui.cli.options import Json, Runs, print_json
from cafe_tui.locations import runs_folder
from engine.contract.printing import say

if TYPE_CHECKING:
    from cafe_tui.reading.runs import RunRow

State = Literal["queued", "starting", "running", "stopping", "stopped", "finished", "failed", "lost"]


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
    from cafe_tui.reading.runs import rows_of
    from engine.contract.run.listing import complaint

    folder = runs_folder(runs)
    listed, troubles = rows_of(folder)
    if troubles:
        say(f"cafe: {complaint(folder, troubles)}", file=sys.stderr)
    rows = [row for row in listed if (state is None or row.state == state) and (tag is None or tag in row.tags)]
    rows = ordered(rows, sort)
    if json:
        print_json({"runs": [row.to_json() for row in rows]})
    elif rows:
        _print_rows(rows)
    elif state is None and tag is None:
        say(f"No runs in {folder}. Start one with: cafe run quickstart")
    else:
        say(f"No run in {folder} matches.")


def _print_rows(rows: list[RunRow]) -> None:
    from cafe_tui import format as fmt

    symbols = fmt.SYMBOLS if (sys.stdout.encoding or "").lower().startswith("utf") else fmt.ASCII_SYMBOLS
    now = time.time()
    width = max(len(row.id) for row in rows)
    say(f"{'state':<10}  {'run':<{width}}  {'stage':<10}  {'done':>4}  {'age':>4}  {'clean':>5}  robust")
    for row in rows:
        head = row.headline
        clean, robust, difference = (head.get(name) for name in ("clean", "robust", "difference"))
        numbers = f"{_percent(clean):>5}  {_percent(robust):>5}"
        if isinstance(robust, float):
            numbers += f" {head.get('attack', '')}"
        if isinstance(difference, float):
            numbers += f" ({fmt.signed(difference)})"
        line = (
            f"{symbols[row.state]} {row.state:<8}  {row.id:<{width}}  {row.stage:<10}  "
            f"{100 * row.progress:>3.0f}%  {fmt.age(now - row.created):>4}  {numbers}"
        )
        say(line.rstrip())


def _percent(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else "-"
