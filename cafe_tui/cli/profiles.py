"""cafe profiles, profile: what can be run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cafe_tui.cli.options import Json, Runs, find_run, print_json
from engine.contract.printing import say


def list_profiles(json: Json = False, runs: Runs = None) -> None:
    """List the profiles that have a name: shipped ones and those of ./ and ./profiles. (--runs makes no difference.)"""
    from engine.contract.profile import files as profiles

    entries = profiles.available()
    if json:
        rows = [
            {"name": e.name, "path": str(e.path), "shipped": e.shipped, "description": e.description} for e in entries
        ]
        print_json({"profiles": rows})
        return
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        origin = "shipped" if entry.shipped else "local"
        say(f"{entry.name:<{width}}  {origin:<7}  {entry.description}")


def show_profile(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A profile's name or file, or a run.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as `cafe run` does.")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of profiles, for editors.")] = False,
    json: Json = False,
    runs: Runs = None,
) -> None:
    """Print a profile resolved: every key, its value, and where the value comes from.

    NAME may also be a run, for the profile it was started with.
    """
    from engine.contract.errors import UsageError
    from engine.contract.profile import files as profiles
    from engine.contract.profile.explain import explain
    from engine.contract.profile.tables import to_tables

    if schema:
        from engine.contract.profile.schema import json_schema

        print_json(json_schema())
        return
    if name is None:
        raise UsageError("which profile?", "Give a name (`cafe profiles` lists them) or a file, or --schema.")
    loaded = profiles.load(_file_of(name, runs), sets or [])
    if json:
        tables = to_tables(loaded.profile)
        print_json({"profile": tables, "origins": loaded.origins, "path": str(loaded.path)})
        return
    lines = explain(loaded)
    width = min(max(len(text) for text, origin in lines if origin), 60)
    for text, origin in lines:
        say(f"{text:<{width}}  # {origin}" if origin else text)


def _file_of(name: str, runs: Path | None) -> str:
    """The profile of that name or, if there is none, that of the run so called. Raises UsageError."""
    from engine.contract.errors import RunNotFound, UsageError
    from engine.contract.profile import files as profiles

    try:
        return str(profiles.find(name))
    except UsageError:
        try:
            return str(find_run(runs, name).profile_file)
        except RunNotFound:
            pass
        raise
