"""Who may import whom, seen from a fresh interpreter and by import-linter."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_the_walls_stand() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
