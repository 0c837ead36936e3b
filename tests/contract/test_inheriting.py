"""What a profile inherits and overrides, from files, a run and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.contract.errors import ProfileError, UsageError
from engine.contract.profile import files as profiles
from engine.contract.profile.schema import Inoculate, Train
from tests.contract.written import METHOD, load, problem, write

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_a_child_inherits_sections_and_replaces_the_list_of_stages() -> None:
    write(Path("base.toml"), METHOD + '[data]\nvalidation = 0.2\n[compute]\ndevice = "cpu"\n')
    child = load('extends = "base"\nname = "child"\n[data]\naugment = false\n[[stage]]\nkind = "train"\n')
    assert child.profile.name == "child"
    assert (child.profile.data.validation, child.profile.data.augment) == (0.2, False)
    assert child.profile.compute.device == "cpu"
    assert [stage.id for stage in child.profile.stage] == ["train"]
    assert child.origins["data.augment"] == "it.toml"
    assert child.origins["data.validation"].endswith("base.toml")
    assert child.origins["seed"] == "default"
    assert not [key for key in child.origins if key.startswith("stage.1")]


def test_the_set_table_changes_inherited_stages_by_id_and_by_index() -> None:
    write(Path("base.toml"), METHOD)
    text = 'extends = "base"\n[set]\n"stage.train.epochs" = 7\n"stage.2.weight" = 2\n"threat.eps" = "4/255"\n'
    loaded = load(text)
    train, _, inoculate, _ = loaded.profile.stage
    assert isinstance(train, Train)
    assert isinstance(inoculate, Inoculate)
    assert (train.epochs, inoculate.weight, loaded.profile.threat.eps) == (7, 2.0, 4 / 255)
    assert loaded.origins["stage.0.epochs"] == loaded.origins["stage.2.weight"] == "it.toml"


def test_set_on_the_command_line_comes_last() -> None:
    text = METHOD + '[set]\n"stage.train.epochs" = 7\n'
    loaded = load(
        text, "stage.0.epochs=8", "stage.train.epochs = 9", "threat.eps=16/255", "seed=3", "data.augment=false"
    )
    stage = loaded.profile.stage[0]
    assert isinstance(stage, Train)
    assert stage.epochs == 9
    assert loaded.profile.threat.eps == 16 / 255
    assert (loaded.profile.seed, loaded.profile.data.augment) == (3, False)
    assert loaded.origins["stage.0.epochs"] == "--set"


def test_a_stage_called_like_a_number_is_meant_before_an_index() -> None:
    text = 'name = "n"\n[[stage]]\nkind = "train"\n[[stage]]\nkind = "train"\nid = "0"\n'
    first, second = load(text, "stage.0.epochs=3").profile.stage
    assert isinstance(first, Train)
    assert isinstance(second, Train)
    assert (first.epochs, second.epochs) == (30, 3)


def test_a_parent_is_looked_for_beside_its_child_before_the_working_directory() -> None:
    write(Path("base.toml"), METHOD.replace("whole", "wrong"))
    write(Path("deep/base.toml"), METHOD)
    write(Path("deep/child.toml"), 'extends = "base.toml"\n')
    write(Path("deep/er/child.toml"), 'extends = "../base.toml"\n')
    assert profiles.load("deep/child.toml").profile.name == "whole"
    assert profiles.load("deep/er/child.toml").profile.name == "whole"


def test_a_mistake_in_a_parent_names_the_parent() -> None:
    write(Path("base.toml"), METHOD.replace('"8/255"', "-1.0"))
    message = problem('extends = "base"\n')
    assert message.startswith("threat.eps: found -1.0;")
    assert message.endswith("base.toml)")


def test_a_circle_of_parents_is_told() -> None:
    write(Path("a.toml"), 'extends = "b"\n')
    write(Path("b.toml"), 'extends = "a"\n')
    with pytest.raises(UsageError, match=r"circle: a\.toml -> b\.toml -> a\.toml"):
        profiles.load("a")


def test_a_missing_parent_is_told_with_the_nearest_name() -> None:
    write(Path("it.toml"), 'extends = "quickstar"\n')
    with pytest.raises(UsageError, match=r"unknown profile: quickstar\n.*`quickstart`"):
        profiles.load("it")


@pytest.fixture
def of_a_run() -> str:
    """The resolved profile in the directory of a run."""
    Path("run").mkdir()
    Path("run/run.json").write_text("{}", encoding="utf-8")
    Path("run/profile.toml").write_text(profiles.dumps(load(METHOD, "stage.train.warmup_epochs=1").profile), "utf-8")
    return "run/profile.toml"


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("stage.train.adversary.steps=20",),
        ("stage.train.adversary.steps=20", "stage.train.adversary.step_size=0.1"),
        ("stage.train.defence=fast",),
        ("stage.inoculate.defence=mart",),
        ("stage.inoculate.epochs=7",),
        ("stage.train.epochs=9",),
        ("threat.eps=0.01",),
        ("seed=3", "stage.game.adversary.steps=3"),
    ],
)
def test_a_run_with_changes_is_its_profile_with_changes(overrides: tuple[str, ...], of_a_run: str) -> None:
    """What followed from a value that was changed follows from the new one; what was given stays."""
    expected = load(METHOD, "stage.train.warmup_epochs=1", *overrides).profile
    assert profiles.load(of_a_run, overrides).profile == expected
    Path("child.toml").write_text(
        f'extends = "{of_a_run}"\n[set]\n' + "".join(f'"{k}" = {v}\n' for k, v in map(quoted, overrides)), "utf-8"
    )
    assert profiles.load("child.toml").profile == expected


def quoted(override: str) -> tuple[str, str]:
    key, value = override.split("=")
    return key, value if value[0].isdigit() else f'"{value}"'


def test_the_profile_of_a_run_that_was_spoilt_is_told_as_it_is(of_a_run: str) -> None:
    for text in ("stage = 3", "[[stage]]\nkind = 'train'\nadversary = 4", "[[stage]]\nkind = 'train'\nbeta = 'x'"):
        Path(of_a_run).write_text(f"name = 'x'\n{text}", encoding="utf-8")
        with pytest.raises(ProfileError) as told:
            profiles.load(of_a_run, ("seed=3",))
        assert told.value.problems
