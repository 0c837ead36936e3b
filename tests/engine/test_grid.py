"""Every profile of the shipped grids is started on images of the right shape, stage by stage, a step of each stage.

Profiles that differ in their defence alone share their first stages, so each such group is one run: what they share is
done once. All stages of one group are started, and of the others, which take ten minutes to half an hour on two cores,
the first stage of every profile, wide networks with a tenth of their width (test_registries starts them as they are);
where CAFE_TEST_GRID is "whole", all stages of all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from engine import data, models, process
from engine.checkpoints import own as checkpoints
from engine.contract import plan
from engine.contract.profile import files as profiles
from engine.contract.profile.catalogue import DATA_FACTS, MODELS
from engine.contract.profile.tables import Tables, to_tables
from engine.contract.run.records import RecordReader, StageChange
from engine.contract.run.rundir import RunDir
from engine.data.source import Source

FOLDER = profiles.shipped_folder()
GROUPS = sorted(
    {
        (path.parent.name, path.stem.rsplit("-", 1)[0])
        for f in ("paper", "standard")
        for path in (FOLDER / f).glob("*-*-*.toml")
    }
)
ORDER = ("plain", "adv", "game", "defend", "inoculate", "evaluate", "autoattack")
WHOLE = GROUPS if os.environ.get("CAFE_TEST_GRID") == "whole" else [("paper", "svhn-vgg16")]
IMAGES = 2
ONE_STEP = {"epochs": 1, "batch_size": IMAGES}
BUDGETS = {"pgd_steps": 1, "cw_steps": 1, "apgd_steps": 1, "fab_steps": 1, "square_queries": 2, "targets": 1}


def at_its_smallest(stage: Tables) -> Tables:
    """The stage with one optimiser step on two images, its attacks with a step each; all else as it is."""
    if stage["kind"] == "evaluate":
        return stage | BUDGETS | {"checks": False, "samples": 0, "batch_size": IMAGES, "models": ["adv"]}
    small = stage | ONE_STEP | {"adversary": stage["adversary"] | {"steps": 1}}
    if stage["kind"] != "game":
        small["warmup_epochs"] = 0.5
    if stage["kind"] == "inoculate":
        small["inversion_steps"] = 1
    return small


def together(paths: Sequence[Path], stages: int | None) -> Tables:
    """One profile of the first `stages` (None: all) of each of these, those of a defence's own under its name."""
    found: dict[str, Tables] = {}
    for path in paths:
        defence = path.stem.rsplit("-", 1)[1]
        profile = to_tables(profiles.load(str(path)).profile)
        for stage in map(at_its_smallest, profile["stage"][:stages]):
            own = stage["id"] in ("defend", "inoculate")
            stage["id"] += f"-{defence}" if own else ""
            assert found.setdefault(stage["id"], stage) == stage, "all but defend and inoculate is shared"
    order = sorted(found.values(), key=lambda stage: ORDER.index(stage["id"].split("-")[0]))
    smaller = {"data": profile["data"] | {"validation": 0.34}, "compute": {"device": "cpu", "threads": 1}}
    return profile | smaller | {"stage": order}


def noise_for(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images to train on, one held out and two to test on, in the shape of a data set, take its place."""
    facts = replace(DATA_FACTS[dataset], pool=IMAGES + 1, test=IMAGES)
    monkeypatch.setitem(DATA_FACTS, dataset, facts)
    generator = np.random.default_rng(0)

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        shape = (count, facts.channels, facts.size, facts.size)
        return generator.integers(0, 256, shape, dtype=np.uint8), generator.integers(0, facts.classes, count)

    mean, std = (0.5,) * facts.channels, (0.2,) * facts.channels
    monkeypatch.setitem(data.DATA, dataset, lambda data: Source(*images(facts.pool), *images(facts.test), mean, std))


def keep_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights do not go to files, which are most of the time of so short a stage; nobody goes on from a stop."""
    kept: dict[Path, tuple[dict[str, dict[str, Tensor]], dict[str, Any]]] = {}

    def save(path: Path, modules: dict[str, nn.Module], facts: dict[str, Any]) -> None:
        kept[path] = {name: deepcopy(module.state_dict()) for name, module in modules.items()}, facts

    def load(path: Path, modules: dict[str, nn.Module]) -> dict[str, Any]:
        for name, module in modules.items():
            module.load_state_dict(kept[path][0][name])
        return kept[path][1]

    monkeypatch.setattr(checkpoints, "save_weights", save)
    monkeypatch.setattr(checkpoints, "load_weights", load)
    monkeypatch.setattr(checkpoints, "read_facts", lambda path: kept[path][1])
    monkeypatch.setattr(checkpoints, "save_resume", lambda *_: None)


def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide networks are not: of images in the shape of a data set, they take a hundred times the work."""
    for name, row in MODELS.items():
        if "widening" in row.arguments:
            monkeypatch.setitem(models.MODELS, name, partial(models.MODELS[name], widening=1))


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "group"), GROUPS)
def test_profiles_start(
    folder: str, group: str, quick_run: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted((FOLDER / folder).glob(f"{group}-*.toml"))
    assert len(paths) == 5
    noise_for(next(name for name in DATA_FACTS if group.startswith(f"{name}-")), monkeypatch)
    stages = None if (folder, group) in WHOLE else 1
    if stages:
        narrow(monkeypatch)
    monkeypatch.setattr(plan, "JUDGE_STEPS", 1)
    keep_in_memory(monkeypatch)
    tables = together(paths, stages)
    run = quick_run(tables=tables)
    assert process.run(run) == 0, run.log_file.read_text() if run.log_file.exists() else ""
    done = [r for r in RecordReader(run.records_file).read() if isinstance(r, StageChange) and r.state == "finished"]
    assert [change.stage for change in done] == [stage["id"] for stage in tables["stage"]]
    assert all(change.total_steps == 1 for change in done if change.stage_kind != "evaluate")
