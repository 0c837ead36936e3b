"""The rooms of `cafe_tui`: floors without a way back up, and what each room must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import cafe_tui

HOME = Path(cafe_tui.__file__).parent
FILES = {
    ".".join(("cafe_tui", *path.relative_to(HOME).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in HOME.rglob("*.py")
}
MOST_ARROWS = 28
"""Between rooms: one more needs a reason, and another number here."""


def imported(path: Path) -> set[str]:
    """The modules of `cafe_tui` that a file imports, late imports and those for annotations included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in FILES else node.module for name in full}
    return names & FILES.keys()


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


FILE_ARROWS = {module: imported(path) - {module} for module, path in FILES.items()}
ROOM_ARROWS = {
    (room(one), room(other)) for one, others in FILE_ARROWS.items() for other in others if room(one) != room(other)
}


def test_no_files_import_each_other_in_a_circle() -> None:
    list(TopologicalSorter(FILE_ARROWS).static_order())


def test_rooms_stand_on_floors_with_few_ways_between_them() -> None:
    below: dict[str, set[str]] = {}
    for one, other in ROOM_ARROWS:
        below.setdefault(one, set()).add(other)
    list(TopologicalSorter(below).static_order())
    assert len(ROOM_ARROWS) <= MOST_ARROWS, sorted(ROOM_ARROWS)


NO_SCREEN = {"rich", "textual", "typer"}
UNKNOWN = {
    "charts": NO_SCREEN | {"engine", "msgspec", "numpy"},
    "profiles": NO_SCREEN,
    "reading": NO_SCREEN,
    "results": NO_SCREEN,
    "console": {"textual", "typer"},
}
"""Packages that importing a room loads by no detour; what its files name themselves is a matter of the walls."""


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_room_loads_nothing_that_it_need_not(name: str) -> None:
    modules = [module for module in FILES if room(module) == name]
    script = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(answer.stdout.split()) & UNKNOWN[name]
