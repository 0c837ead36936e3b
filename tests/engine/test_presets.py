"""The shipped grids: every profile is whole and says what it is. test_grid.py starts them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.contract.plan import plan
from engine.contract.profile import files as profiles
from engine.contract.profile.schema import Evaluate, Inoculate, Train

FOLDER = profiles.shipped_folder()
GRID = sorted(path for preset in ("standard", "paper") for path in (FOLDER / preset).glob("*-*-*.toml"))
EPS = {("standard", "tiny-imagenet"): 4 / 255, ("paper", "tiny-imagenet"): 4 / 255, "standard": 8 / 255, "paper": 0.03}


def name_of(path: Path) -> str:
    return path.relative_to(FOLDER).with_suffix("").as_posix()


def test_the_grids_are_whole() -> None:
    assert len(GRID) == 2 * 3 * 3 * 5
    assert {path.parent.name for path in GRID} == {"standard", "paper"}


@pytest.mark.parametrize("path", GRID, ids=name_of)
def test_a_profile_of_a_grid_is_what_its_name_says(path: Path) -> None:
    profile = profiles.load(name_of(path)).profile
    text = path.read_text(encoding="utf-8")
    assert f"cafe run {name_of(path)}" in text
    assert profile.name == path.stem == f"{profile.data.name}-{profile.model.name}-{path.stem.rsplit('-', 1)[1]}"
    defended = next(stage for stage in profile.stage if stage.id == "defend")
    inoculated = next(stage for stage in profile.stage if isinstance(stage, Inoculate))
    assert isinstance(defended, Train)
    assert defended.defence == inoculated.defence == path.stem.rsplit("-", 1)[1]
    for key in ("epochs", "batch_size", "lr", "warmup_epochs", "beta", "start", "helper"):
        assert getattr(defended, key) == getattr(inoculated, key), "the same training but for the inoculation"
    folder = path.parent.name
    assert profile.threat.eps == EPS.get((folder, profile.data.name), EPS[folder])
    assert profile.preset == ("paper-code" if folder == "paper" else "standard")
    assert inoculated.features == ("train" if folder == "paper" else "eval")
    attacks = [attack for stage in profile.stage if isinstance(stage, Evaluate) for attack in stage.attacks]
    assert ("aa" in attacks) == (path.parent.name == "standard")
    assert ("aa-paper" in attacks) == (path.parent.name == "paper")
    assert all(stage.steps for stage in plan(profile))


def test_the_files_are_those_that_the_generator_writes(tmp_path: Path) -> None:
    generator = FOLDER.parent / "docs" / "make_profiles.py"
    subprocess.run([sys.executable, str(generator), str(tmp_path)], check=True)
    for preset in ("standard", "paper"):
        made, shipped = ({p.name: p.read_bytes() for p in (at / preset).iterdir()} for at in (tmp_path, FOLDER))
        assert made == shipped, "renew them with `make profiles`"
