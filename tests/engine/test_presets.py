"""The shipped grids: every profile is whole and says what it is, and one of each kind really starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine import data, process
from engine.contract import profile as profiles
from engine.contract.catalogue import DATA_FACTS
from engine.contract.plan import plan
from engine.contract.rundir import RunDir
from engine.contract.schema import Evaluate, Inoculate, Train
from engine.data.source import Source

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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper/svhn-vgg16-help"])
def test_a_profile_runs_on_images_of_the_right_shape(
    name: str, quick_run: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    dataset = name.split("/")[1].split("-")[0]
    monkeypatch.setitem(DATA_FACTS, dataset, replace(DATA_FACTS[dataset], pool=10, test=4))

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        return generator.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), generator.integers(0, 10, count)

    def load() -> Source:
        return Source(*images(10), *images(4), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))

    monkeypatch.setitem(data.DATA, dataset, load)
    overrides = ["data.validation=0.2", "compute.device=cpu", "compute.threads=1", "stage.evaluate.pgd_steps=1"]
    cut = {"cw_steps": 1, "apgd_steps": 1, "fab_steps": 1, "square_queries": 2, "targets": 1, "checks": "false"}
    overrides += [f"stage.evaluate.{key}={value}" for key, value in cut.items()]
    profile = profiles.load(name).profile
    for stage in profile.stage:
        if isinstance(stage, Evaluate):
            overrides.append(f"stage.{stage.id}.batch_size=4")
            continue
        overrides += [f"stage.{stage.id}.{key}" for key in ("epochs=1", "batch_size=4", "adversary.steps=1")]
        if not isinstance(stage, Train | Inoculate):
            continue
        overrides.append(f"stage.{stage.id}.warmup_epochs=0.5")
        if isinstance(stage, Inoculate):
            overrides.append(f"stage.{stage.id}.inversion_steps=1")
    if name.startswith("paper"):
        overrides.append("stage.autoattack.apgd_steps=1")
    run = quick_run(*overrides, tables=profiles.to_tables(profile))
    assert process.run(run) == 0, run.log_file.read_text() if run.log_file.exists() else ""
    results = run.results()
    assert results is not None
    assert {cell.model for cell in results.cells} == {"adv", "defend", "inoculate"}
