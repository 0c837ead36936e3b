"""Who may import whom, seen from a fresh interpreter and by import-linter."""

from __future__ import annotations

import ast
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest
import tomli

from engine import contract

ROOT = Path(contract.__file__).parents[2]
HEAVY = {"torch", "numpy", "scipy", "textual", "rich", "typer"}
MODULES = sorted(module.name for module in pkgutil.walk_packages(contract.__path__, "engine.contract."))


def imported_by(module: str) -> set[str]:
    """Top-level packages that a fresh interpreter holds after importing `module`."""
    script = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_there_is_a_contract() -> None:
    assert {"engine.contract.profile.files", "engine.contract.run.records", "engine.contract.run.rundir"} <= set(
        MODULES
    )


@pytest.mark.parametrize("module", MODULES)
def test_the_contract_is_light(module: str) -> None:
    assert not imported_by(module) & HEAVY


def test_listing_runs_needs_no_psutil() -> None:
    assert "psutil" not in imported_by("engine.contract.run.rundir")


def test_the_recorder_needs_no_torch() -> None:
    assert not imported_by("engine.record") & (HEAVY | {"cafe_tui"})


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    linter = Path(sys.executable).with_name("lint-imports")
    wide = {**os.environ, "COLUMNS": "300"}
    return subprocess.run([linter, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False, env=wide)


def test_the_walls_stand() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


PLANTED = {
    "The engine knows no screen": ("engine.log", "rich"),
    "The contract is light": ("engine.contract.plan", "numpy"),
    "The engine's floors": ("engine.attacks.balls", "engine.defences.train"),
    "cafe_tui knows only the contract of the engine": ("cafe_tui.format", "engine.log"),
    "The terminal's floors": ("cafe_tui.charts.axes", "cafe_tui.reading.eta"),
    "The entrance opens the commands or the UI": ("cafe_tui.__main__", "cafe_tui.results.grids"),
    "Charts are pure": ("cafe_tui.charts.raster", "cafe_tui.format"),
    "The terminal knows nothing of runs": ("cafe_tui.terminal.repaint", "engine.contract.errors"),
    "Formats and locations stand on the ground": ("cafe_tui.format", "rich"),
    "Starting a process needs nothing but Python": ("cafe_tui.launch.spawn", "engine.contract.errors"),
    "Launching knows no view": ("cafe_tui.launch.local", "cafe_tui.reading.run"),
    "Reading draws nothing": ("cafe_tui.reading.run", "textual"),
    "Results draw nothing": ("cafe_tui.results.grids", "rich"),
    "Profiles draw nothing": ("cafe_tui.profiles.forms", "textual"),
    "The console knows no Textual": ("cafe_tui.console.views", "textual"),
    "Widgets know no screen": ("cafe_tui.ui.widgets.chart", "cafe_tui.ui.screens.run"),
    "Screens know no command and no console": ("cafe_tui.ui.screens.run", "cafe_tui.cli.options"),
    "Commands import a screen only to open it": ("cafe_tui.cli.ls", "cafe_tui.ui.screens.runs"),
}
"""Behind each wall, by its name: a module, and what it must not import."""


def copied(folder: Path) -> Path:
    """A copy of what the linter looks at."""
    for part in ("engine", "cafe_tui", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "__snapshots__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture(scope="module")
def objections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the linter says of each wall in a copy with an import that is not allowed behind every one of them."""
    copy = copied(tmp_path_factory.mktemp("copy"))
    for module, forbidden in PLANTED.values():
        with (copy / module.replace(".", "/")).with_suffix(".py").open("a", encoding="utf-8") as file:
            file.write(f"\n\ndef _planted() -> None:\n    import {forbidden}\n")
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    _, _, details = done.stdout.partition("Broken contracts")
    parts = re.split(r"^(.+)\n-{3,}$", details, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_wall_has_a_test() -> None:
    settings = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert [wall["name"] for wall in settings["tool"]["importlinter"]["contracts"]] == list(PLANTED)


@pytest.mark.parametrize("wall", PLANTED)
def test_a_forbidden_import_breaks_the_wall(wall: str, objections: dict[str, str]) -> None:
    module, forbidden = PLANTED[wall]
    assert f"{module} -> {forbidden} (l." in objections[wall]


def test_a_list_allows_no_more_than_there_is(tmp_path: Path) -> None:
    for part in ("engine", "cafe_tui", "tests"):
        (tmp_path / part).symlink_to(ROOT / part)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    spare = text.replace('rooms = ["cafe_tui.charts"]', 'rooms = ["cafe_tui.charts"]\nallowed = ["rich"]')
    (tmp_path / "pyproject.toml").write_text(spare, encoding="utf-8")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "rich is allowed, but nothing here imports it" in done.stdout


def test_a_room_without_a_floor_is_no_room(tmp_path: Path) -> None:
    copy = copied(tmp_path)
    for package in ("engine", "cafe_tui"):
        (copy / package / "cellar.py").touch()
    said = lint(copy).stdout
    for floors in ("The engine's floors", "The terminal's floors"):
        assert f"{floors} BROKEN" in said


SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for package in ("engine", "cafe_tui")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def test_no_files_of_the_engine_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("engine", cache_dir=None)
    list(
        TopologicalSorter(
            {file: graph.find_modules_directly_imported_by(file) for file in graph.modules}
        ).static_order()
    )


def test_every_folder_is_a_package() -> None:
    """The linter passes over one that is not, with all that it imports."""
    folders = {path.parent for path in SOURCES.values()}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("package", ["engine", "cafe_tui"])
def test_what_lies_above_all_rooms_imports_nothing(package: str) -> None:
    """Every import of a room runs it first, and no wall stands before it."""
    nodes = ast.walk(ast.parse(SOURCES[f"{package}.__init__"].read_text(encoding="utf-8")))
    assert not [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


BY_NAME = {
    "engine.registry": "what the catalogue refers to",
    "engine.models.foreign": "timm, and networks of the user",
    "cafe_tui.ui.screens.opening": "the screens that bindings name",
    "cafe_tui.ui.screens.runs": "what a run needs, ahead of time",
}
"""Modules that import others by a name, which the linter cannot see, and what these are."""


def imports_by_name(source: str) -> bool:
    """Whether a module holds a way to import what only a string names."""
    ways = {"import_module", "__import__", "exec", "eval", "run_module", "run_path"}
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name) if name in ways:
                return True
            case ast.Attribute(attr="import_module" | "run_module" | "run_path"):
                return True
            case ast.alias(name=name) if name in ways:
                return True
    return False


def test_few_modules_import_by_name() -> None:
    found = {module for module, path in SOURCES.items() if imports_by_name(path.read_text(encoding="utf-8"))}
    assert found == set(BY_NAME)


@pytest.mark.parametrize(
    "source",
    [
        "import importlib\nimportlib.import_module('torch')",
        "from importlib import import_module as load",
        "__import__('torch')",
        "exec('import torch')",
    ],
)
def test_an_import_by_name_would_be_seen(source: str) -> None:
    assert imports_by_name(source)
