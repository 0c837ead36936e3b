"""Profiles that stand for several runs: which, how they are called, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.contract.errors import ProfileError, UsageError
from engine.contract.profile import files as profiles
from engine.contract.profile.files import Loaded
from engine.contract.profile.schema import Train
from engine.contract.profile.sweeps import Sweep

STAGES = '[[stage]]\nkind = "train"\n[[stage]]\nkind = "evaluate"\n'
SWEEP = """
name = "both"
[sweep]
seed = [3, 4]
"stage.train.lr" = [0.1, 0.05]
[[sweep.case]]
"data.name" = "digits"
"threat.eps" = 0.15
[[sweep.case]]
data.name = "mnist5k"
threat.eps = "51/255"
"""


pytestmark = pytest.mark.usefixtures("elsewhere")


def load(text: str, *overrides: str) -> Sweep[Loaded]:
    Path("it.toml").write_text(text + STAGES, encoding="utf-8")
    sweep = profiles.load_sweep("it", overrides)
    assert sweep is not None
    return sweep


def problems(text: str, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ProfileError) as caught:
        load(text, *overrides)
    return caught.value.problems


def test_every_combination_is_run_in_every_case() -> None:
    sweep = load(SWEEP)
    found = []
    for point in sweep.points:
        train, profile = point.profile.stage[0], point.profile
        assert isinstance(train, Train)
        found.append((profile.data.name, profile.threat.eps, profile.seed, train.lr))
    assert found == [
        (name, eps, seed, lr)
        for name, eps in (("digits", 0.15), ("mnist5k", 0.2))
        for seed in (3, 4)
        for lr in (0.1, 0.05)
    ]
    assert sweep.labels[1] == "digits-seed3-lr0.05"
    assert [point.profile.name for point in sweep.points] == [f"both-{label}" for label in sweep.labels]
    assert sweep.points[0].origins["data.name"] == sweep.points[0].origins["seed"] == "sweep"


def test_a_run_of_a_sweep_can_be_repeated_from_its_profile() -> None:
    point = load(SWEEP).points[3].profile
    Path("one.toml").write_text(profiles.dumps(point), encoding="utf-8")
    assert profiles.load("one").profile == point
    assert profiles.load_sweep("one") is None


def test_any_profile_becomes_a_sweep_and_any_sweep_is_narrowed_on_the_command_line() -> None:
    made = load('name = "plain"\n', "sweep.seed=[0,1,2]", "stage.train.epochs=2")
    assert [point.profile.seed for point in made.points] == [0, 1, 2]
    assert made.labels == ["seed0", "seed1", "seed2"]
    assert [point.profile.seed for point in load(SWEEP, "sweep.seed=[7]").points] == [7] * 4


def test_a_child_inherits_the_sweep_and_changes_it() -> None:
    Path("parent.toml").write_text(SWEEP + STAGES, encoding="utf-8")
    Path("child.toml").write_text('extends = "parent"\nname = "child"\n[sweep]\nseed = [9]\n', encoding="utf-8")
    sweep = profiles.load_sweep("child")
    assert sweep is not None
    assert sweep.labels == ["digits-lr0.1", "digits-lr0.05", "mnist5k-lr0.1", "mnist5k-lr0.05"]


def test_the_tag_is_that_of_the_experiment() -> None:
    tag = load(SWEEP).tag
    assert tag.startswith("both-")
    assert load(f'description = "said otherwise"\n{SWEEP}').tag == tag
    assert load(SWEEP, "stage.train.epochs=3").tag != tag != load(SWEEP, "sweep.seed=[3]").tag


def test_labels_that_would_be_the_same_are_numbered() -> None:
    text = 'name = "x"\n[sweep]\n"model.checkpoint" = ["a", "a"]\n'
    assert load(text).labels == ["a-1", "a-2"]


def test_one_profile_is_not_made_of_a_sweep() -> None:
    load(SWEEP)
    with pytest.raises(UsageError, match="it is a sweep") as caught:
        profiles.load("it")
    assert "--dry-run" in caught.value.hint


def test_every_mistake_of_every_run_is_told_at_once() -> None:
    told = problems(SWEEP.replace("0.15", "2"), "data.augment=1", "sweep.sead=[1]", "stage.train.epchs=1")
    assert told == (
        "stage.0.epchs: unknown key; did you mean `epochs`?",
        "data.augment: found 1; allowed: true or false",
        "sead: unknown key; did you mean `seed`? (from sweep)",
        "threat.eps: found 2.0; allowed: at most 1 for linf, images lie in [0,1] (from sweep) (in 4 of 8 runs)",
    )


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ("sweep = 3\n", "sweep: found 3; allowed: a table of key paths with a list of values each"),
        ("[sweep]\n", "sweep: found {}; allowed: a table of key paths with a list of values each"),
        ("[sweep]\nseed = 1\n", "sweep.seed: found 1; allowed: a list with at least one value"),
        ("[sweep]\nseed = []\n", "sweep.seed: found []; allowed: a list with at least one value"),
        ("[sweep]\ncase = [1]\n", "sweep.case: found [1]; allowed: tables, each written under [[sweep.case]]"),
        (
            "[sweep]\nseed = [1]\n[[sweep.case]]\nseed = 2\n",
            "sweep.seed: is a key of a case too; it may be one or the other",
        ),
        (f"[sweep]\nseed = {list(range(1001))}\n", "sweep: found 1001 runs; allowed: at most 1000"),
    ],
)
def test_a_table_that_is_no_sweep_is_told(sweep: str, said: str) -> None:
    assert problems(f'name = "x"\n{sweep}') == (said,)


def test_one_value_of_the_command_line_does_not_lose_to_the_sweep_in_silence() -> None:
    (said,) = problems(SWEEP, "seed=5")
    assert "narrow it with --set 'sweep.seed=[...]'" in said
