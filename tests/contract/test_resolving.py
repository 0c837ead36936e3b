"""What follows from other keys of a profile: ids, defaults, references between stages."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest

from engine.contract.errors import ProfileError
from engine.contract.profile import files as profiles
from engine.contract.profile.catalogue import DATA_FACTS
from engine.contract.profile.schema import Evaluate, Game, Inoculate, Train
from engine.contract.profile.tables import to_tables
from engine.contract.run.fingerprint import changed, settings
from tests.contract.written import METHOD, load, problem

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_open_defaults_are_filled_from_other_keys() -> None:
    train, game, inoculate, evaluate = load(METHOD).profile.stage
    assert isinstance(train, Train)
    assert isinstance(game, Game)
    assert isinstance(inoculate, Inoculate)
    assert isinstance(evaluate, Evaluate)
    assert [stage.id for stage in (train, game, inoculate, evaluate)] == ["train", "game", "inoculate", "evaluate"]
    assert (train.start, train.warmup_epochs) == (None, 5.0)
    assert train.adversary.step_size == pytest.approx(0.23)
    assert (game.base, inoculate.game, inoculate.start) == ("train", "game", "train")
    assert inoculate.gamma == pytest.approx(2 / 255)
    assert inoculate.warmup_epochs == 2.0
    assert evaluate.models == ["train", "inoculate"]


def test_an_inoculation_on_imagenet_needs_its_radius() -> None:
    found = problem(METHOD, "data.name=imagenet", "model.name=resnet18")
    assert found.startswith("stage.2.gamma: missing; needed: the Linf radius of the inversion")
    inoculate = load(METHOD, "data.name=imagenet", "stage.inoculate.gamma=1/255").profile.stage[2]
    assert isinstance(inoculate, Inoculate)
    assert inoculate.gamma == pytest.approx(1 / 255)


def test_an_fgsm_adversary_has_its_own_step() -> None:
    stage = load(METHOD, "stage.train.adversary.attack=fgsm").profile.stage[0]
    assert isinstance(stage, Train)
    assert stage.adversary.step_size == 1.25


def test_stages_of_a_kind_are_numbered_from_the_second() -> None:
    text = METHOD.replace('kind = "inoculate"', 'kind = "game"')
    assert [stage.id for stage in load(text).profile.stage] == ["train", "game", "game-2", "evaluate"]


def test_a_thousand_stages_of_a_kind_have_ids() -> None:
    tables = {"name": "many", "stage": [{"kind": "train"}] * 1001}
    assert profiles.from_tables(tables).stage[-1].id == "train-1001"


def test_a_later_stage_takes_the_latest_game_and_its_base() -> None:
    text = 'name = "two"\n' + "".join(
        f'[[stage]]\nkind = "{kind}"\nid = "{name}"\n'
        for kind, name in [("train", "a"), ("game", "g1"), ("train", "b")]
    )
    text += '[[stage]]\nkind = "game"\nid = "g2"\nbase = "a"\n[[stage]]\nkind = "inoculate"\n'
    last = load(text).profile.stage[-1]
    assert isinstance(last, Inoculate)
    assert (last.game, last.start) == ("g2", "a")


def test_l2_needs_a_radius_for_the_inversion() -> None:
    assert problem(METHOD, "threat.norm=l2", "threat.eps=0.5").startswith("stage.2.gamma: missing; needed:")
    assert load(METHOD, "threat.norm=l2", "threat.eps=3.5", "stage.2.gamma=1/255").profile.threat.eps == 3.5


PRESET = {
    "name": "x",
    "data": {"name": "tiny-imagenet"},
    "model": {"name": "wrn-28-10"},
    "stage": [
        {"kind": "train", "id": "adv", "lr": 0.2},
        {"kind": "game", "adversary": {"steps": 3}},
        {"kind": "inoculate", "defence": "trades"},
        {"kind": "evaluate"},
        {"kind": "evaluate", "id": "aa", "attacks": ["aa-paper"]},
    ],
}


def test_a_preset_fills_what_the_profile_leaves_open_and_says_so() -> None:
    """The constants are those of method.md for Tiny-ImageNet and WideResNet."""
    given = deepcopy(PRESET) | {"preset": "paper-code"}
    loaded = profiles.from_given(given, "it", ["stage.inoculate.epochs=7"])
    adv, game, inoculate, table, whole = to_tables(loaded.profile)["stage"]
    assert loaded.profile.threat.eps == 4 / 255
    assert loaded.profile.model.dropout == 0.3
    assert (adv["epochs"], adv["warmup_epochs"], adv["lr"]) == (4, 2, 0.2), "the profile's own key wins"
    assert (adv["adversary"]["attack"], adv["adversary"]["pgd_share"]) == ("mixed", 0.3)
    assert (game["betas"], game["weight_decay"], game["adversary"]["steps"]) == ([0.5, 0.999], 1e-4, 3)
    assert game["reuse_epochs"] == 1, "the published code attacks in every epoch"
    assert (inoculate["gamma"], inoculate["inversion_steps"], inoculate["epochs"]) == (0.5 / 255, 3, 7)
    assert (inoculate["adversary"]["attack"], inoculate["features"]) == ("fgsm", "train")
    assert (table["apgd_steps"], whole["apgd_steps"]) == (30, 100)
    assert "aa-paper" not in table["attacks"]
    origins = loaded.origins
    assert origins["stage.2.gamma"] == origins["stage.0.adversary.attack"] == "preset paper-code"
    assert origins["stage.2.epochs"] == "--set"
    assert profiles.from_tables(to_tables(loaded.profile)) == loaded.profile
    assert given["stage"][3] == {"kind": "evaluate"}, "what was given is left as it was"


@pytest.mark.parametrize(
    ("data", "amsgrad", "flip"),
    [("cifar10", True, True), ("cifar100", True, True), ("svhn", True, True), ("tiny-imagenet", False, True)],
)
def test_paper_code_is_what_the_published_code_does(data: str, amsgrad: bool, flip: bool) -> None:
    given = deepcopy(PRESET) | {"preset": "paper-code", "data": {"name": data}}
    profile = profiles.from_tables(given)
    assert profile.data.facts.flip is flip
    assert profile.data.border == "mean"
    adv, game, inoculate, table, whole = to_tables(profile)["stage"]
    assert game["amsgrad"] is amsgrad
    assert game["statistics"] == "both"
    assert (adv["momentum"], adv["momentum_low"]) == (inoculate["momentum"], inoculate["momentum_low"]) == (0.9, 0.8)
    assert inoculate["invert_perturbed"]
    assert (table["apgd_restarts"], table["apgd_dlr_restarts"]) == (1, 2)
    assert table["cw_random_start"]
    assert "apgd_dlr_restarts" not in whole, "AA there has one start of either"


@pytest.mark.parametrize("preset", [None, "standard"])
def test_nothing_of_the_published_code_is_in_other_profiles(preset: str | None) -> None:
    given = {key: value for key, value in (deepcopy(PRESET) | {"preset": preset}).items() if value is not None}
    stages = [*given["stage"][:2], {"kind": "inoculate", "gamma": 0.1}, {"kind": "evaluate"}]  # type: ignore[index]
    profile = profiles.from_tables(given | {"stage": stages, "data": {"name": "svhn"}})
    assert (profile.data.border, profile.data.facts.flip) == ("black", False)
    adv, game, inoculate, table = to_tables(profile)["stage"]
    assert "momentum_low" not in adv | inoculate
    assert (game["statistics"], game["amsgrad"]) == ("treatment", True)
    assert not inoculate["invert_perturbed"]
    assert not table["cw_random_start"]
    assert "apgd_dlr_restarts" not in table
    with pytest.raises(ProfileError, match="a mirrored digit is none"):
        profiles.from_tables(given | {"stage": stages, "data": {"name": "svhn", "flip": True}})


def test_the_preset_paper_holds_what_its_text_is_quoted_with() -> None:
    profile = profiles.from_tables(
        deepcopy(PRESET) | {"preset": "paper", "data": {"name": "cifar10"}, "model": {"name": "vgg16"}}
    )
    assert profile.threat.eps == 8 / 255
    adv, _, inoculate, *_ = to_tables(profile)["stage"]
    for stage, lr in ((adv, 0.2), (inoculate, 0.1)):
        assert (stage["epochs"], stage["lr"]) == (120, lr)
        assert stage["adversary"]["step_size"] * profile.threat.eps == pytest.approx(0.0072, abs=5e-5)
    assert inoculate["warmup_epochs"] == 60, "the code lets the rate rise for half of the epochs"
    assert inoculate["features"] == "train"
    tiny = profiles.from_tables(deepcopy(PRESET) | {"preset": "paper"})
    assert tiny.threat.eps == 4 / 255
    assert to_tables(tiny)["stage"][2]["epochs"] == 4, "nothing is quoted of Tiny-ImageNet"


@pytest.mark.parametrize("data", ["cifar10", "svhn", "tiny-imagenet"])
def test_a_run_of_an_earlier_release_goes_on_as_it_began(data: str) -> None:
    """Its profile names its preset and all keys that there were: presets fill none of those that came later."""
    given = deepcopy(PRESET) | {"preset": "paper-code", "data": {"name": data}}
    then = to_tables(profiles.from_tables(given))
    for table, keys in [(then["data"], ("border", "flip")), *((stage, LATER) for stage in then["stage"])]:
        for key in keys:
            table.pop(key, None)
    now = profiles.from_tables(then)
    assert now.data.border == "black"
    assert now.data.facts.flip is DATA_FACTS[data].flip
    for stage, old in zip(to_tables(now)["stage"], then["stage"], strict=True):
        assert {key: value for key, value in stage.items() if key not in LATER} == old
        assert {key: stage[key] for key in LATER if key in stage} == {key: OFF[key] for key in LATER if key in stage}
    old = {key: value for key, value in settings(now, "adv").items() if not key.endswith(("border", "momentum_low"))}
    assert changed(old, settings(now, "adv")) == "", "a checkpoint of that release fits"


LATER = ("momentum_low", "invert_perturbed", "statistics", "apgd_dlr_restarts", "cw_random_start")
OFF = {"invert_perturbed": False, "statistics": "treatment", "cw_random_start": False}


def test_a_preset_is_inherited_and_follows_the_data_of_the_child(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('preset = "standard"\nname = "b"\n[[stage]]\nkind = "train"\n', "utf-8")
    child = tmp_path / "child.toml"
    child.write_text('extends = "base.toml"\nname = "c"\n[data]\nname = "svhn"\n', "utf-8")
    profile = profiles.load(str(child)).profile
    assert profile.threat.eps == 8 / 255
    assert profiles.load(str(child), ["threat.norm=l2", "threat.eps=0.5"]).profile.threat.eps == 0.5
    assert profiles.load(str(child), ["data.name=imagenet"]).profile.stage[0].adversary.attack == "fgsm"  # type: ignore[union-attr]
    with pytest.raises(ProfileError, match='did you mean "standard"'):
        profiles.load(str(child), ["preset=standart"])
