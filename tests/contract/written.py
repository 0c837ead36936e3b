"""Profiles as a user writes them, loaded from the working directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from engine.contract.errors import ProfileError
from engine.contract.profile import files as profiles
from engine.contract.profile import schema

METHOD = """
name = "whole"
[threat]
eps = "8/255"
[[stage]]
kind = "train"
[[stage]]
kind = "game"
[[stage]]
kind = "inoculate"
[[stage]]
kind = "evaluate"
"""


SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)

OVERRIDES = st.fixed_dictionaries(
    {},
    optional={
        "description": TEXTS,
        "seed": st.integers(0, 2**31 - 1),
        "data.augment": st.booleans(),
        "data.validation": st.floats(0, 1, exclude_min=True, exclude_max=True),
        "model.name": st.sampled_from(["small", "resnet18", "wrn-28-10"]),
        "threat.eps": st.floats(0, 1, exclude_min=True, allow_subnormal=False) | st.sampled_from(["8/255", "0.5/255"]),
        "threat.eps_l2": st.floats(0, 8, exclude_min=True),
        "compute.device": st.sampled_from(["auto", "cpu", "cuda:3"]),
        "compute.threads": st.integers(1, 2**40),
        "stage.0.id": st.from_regex(r"[a-z0-9][a-z0-9_-]{0,39}", fullmatch=True).filter(
            lambda name: name not in {"game", "inoculate", "evaluate"} and not name.isdecimal()
        ),
        "stage.0.epochs": st.integers(1, 10**6),
        "stage.0.lr": st.floats(0, exclude_min=True, allow_infinity=False),
        "stage.0.adversary.steps": st.integers(1, 1000),
        "stage.0.adversary.attack": st.sampled_from(["pgd", "fgsm"]),
        "stage.1.lambda": st.floats(0, allow_infinity=False),
        "stage.1.betas": st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2),
        "stage.2.gamma": st.floats(0, 1, exclude_min=True),
        "stage.2.select": st.sampled_from(["best", "last"]),
        "stage.3.attacks": st.lists(st.sampled_from(["clean", "fgsm", "pgd"]), min_size=1, unique=True),
        "stage.3.limit": st.integers(1, 10**6),
    },
)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load(text: str, *overrides: str) -> profiles.Loaded:
    return profiles.load(str(write(Path("it.toml"), text)), overrides)


def problems(text: str, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ProfileError) as caught:
        load(text, *overrides)
    assert caught.value.exit_code == 2
    assert caught.value.source == "it.toml"
    return caught.value.problems


def problem(text: str, *overrides: str) -> str:
    (only,) = problems(text, *overrides)
    return only


def with_keys(overrides: dict[str, Any]) -> schema.Profile:
    Path("it.toml").write_text(METHOD + tomli_w.dumps({"set": overrides}), encoding="utf-8")
    return profiles.load("it.toml").profile
