"""cafe show: all about one run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cafe_tui.cli.options import Json, Run, Runs, find_run, print_json

if TYPE_CHECKING:
    from rich.text import Text

    from cafe_tui.reading.run import RunView
    from engine.contract.run.rundir import RunDir

FILES = ("profile.toml", "records.jsonl", "results.json", "engine.log", "checkpoints", "samples")
"""What of a run is listed with its size."""


def show(run: Run, json: Json = False, runs: Runs = None) -> None:
    """Show one run: state and reason, stages, results, profile, and where its files are."""
    directory = find_run(runs, run)
    if json:
        print_json(_document(directory))
        return
    from cafe_tui.console import painter
    from cafe_tui.reading.run import whole_view

    painter.print_lines([*_page(directory, whole_view(directory))])


def _page(directory: RunDir, view: RunView) -> Iterator[Text]:
    """Everything that a person is shown of a run, line by line."""
    from rich.text import Text

    from cafe_tui import format as fmt
    from cafe_tui.console import painter, views

    signs, info = views.signs_for(sys.stdout), view.info
    yield views.header(view, signs)
    yield Text(info.description, "dim")
    yield from (line for text in (view.error, view.hint) for line in views.prose(text, "red"))
    yield from (Text(""), Text("stages", "bold"))
    for stage in view.stages:
        spent = fmt.duration(stage.finished - stage.started) if stage.started and stage.finished else ""
        share = f"{100 * stage.progress:.0f}%"
        yield Text(f"  {stage.id:<14} {stage.state:<9} {share:>4}  {spent}".rstrip())
    if summary := views.summary(view, painter.console(sys.stdout).width - 2, signs):
        yield from (Text(""), Text("results", "bold"))
        yield from (Text("  ").append_text(line) for line in summary)
    yield from (Text(""), Text("files", "bold"))
    yield Text(f"  {directory.path}", overflow="ignore")
    yield from (
        Text(f"  {path.name:<14} {_amount(path)}") for name in FILES if (path := directory.path / name).exists()
    )
    if info.note:
        yield from (Text(""), Text("note", "bold"), *views.prose(info.note, indent="  "))
    facts = {"tags": ", ".join(info.tags), "host": info.host, "devices": ", ".join(info.devices), **info.versions}
    yield from (Text(""), Text("made with", "bold"))
    yield from (Text(f"  {name:<14} {value}") for name, value in facts.items() if value)


def _amount(path: Path) -> str:
    from cafe_tui import format as fmt

    if path.is_dir():
        files = [file for file in path.iterdir() if file.is_file()]
        return f"{len(files)} files, {fmt.size(sum(file.stat().st_size for file in files))}"
    return fmt.size(path.stat().st_size)


def _document(directory: RunDir) -> dict[str, object]:
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
