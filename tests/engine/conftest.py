"""Small real runs: digits, one or two epochs, one thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine import data, pipeline
from engine.contract.profile import files as profiles
from engine.contract.run import rundir
from engine.contract.run.rundir import RunDir
from engine.device import prepare
from engine.stage import Context

QUICK = {
    "name": "quick",
    "data": {"validation": 0.8},  # leaves 269 images to train on
    "threat": {"eps": 0.1, "eps_l2": 0.5},
    "compute": {"threads": 1, "device": "cpu"},
    "stage": [
        {"kind": "train", "epochs": 2, "batch_size": 64, "adversary": {"steps": 2}},
        {"kind": "game", "epochs": 2, "batch_size": 64, "regret_steps": 2, "adversary": {"steps": 2}},
        {
            "kind": "inoculate",
            "defence": "trades",
            "epochs": 1,
            "lr": 0.01,
            "inversion_steps": 2,
            "adversary": {"steps": 2},
        },
        {"kind": "evaluate", "attacks": ["clean", "fgsm", "pgd", "pgd-l2"], "pgd_steps": 3, "limit": 60, "samples": 2},
    ],
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def quick_run(tmp_path: Path) -> Callable[..., RunDir]:
    """Make a run directory of the small profile, with overrides such as "stage.train.epochs=1"."""

    def make(*overrides: str, tables: dict[str, object] | None = None) -> RunDir:
        source = tmp_path / "quick.toml"
        source.write_text(profiles.dumps(profiles.from_tables(tables or QUICK)), encoding="utf-8")
        profile = profiles.load(str(source), overrides).profile
        return rundir.create(tmp_path / "runs", profile.name, profiles.dumps(profile))

    return make


@pytest.fixture(autouse=True)
def _few_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process measure on few held-out images, which would take most of their time."""

    def load(*args: Any, **options: Any) -> data.Splits:
        loaded = data.load(*args, **options)
        return replace(loaded, validation=loaded.validation.first(128))

    monkeypatch.setattr(pipeline, "data", SimpleNamespace(load=load))


@pytest.fixture
def context_of() -> Callable[[RunDir], Context]:
    """What the stages of a run directory work with; few images to measure on."""

    def make(run: RunDir) -> Context:
        profile = profiles.load(str(run.profile_file)).profile
        compute = prepare(profile.compute)
        loaded = data.load(profile.data, seed=profile.seed, compute=compute)
        few = replace(loaded, validation=loaded.validation.first(128), test=loaded.test.first(128))
        return Context(profile, run, compute, few)

    return make
