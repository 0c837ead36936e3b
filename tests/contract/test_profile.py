"""Profiles through `load`: what is inherited, overridden, resolved, and how each mistake is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
import tomli
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.contract.errors import CafeError, ProfileError, UsageError
from engine.contract.profile import files as profiles
from engine.contract.profile import schema
from engine.contract.profile.checking import parse_fraction
from engine.contract.profile.explain import explain
from engine.contract.profile.schema import Evaluate, Game, Inoculate, Train
from engine.contract.profile.tables import to_tables

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


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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


# --- resolving -------------------------------------------------------------------------------------------------------


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


# --- inheritance and overrides ---------------------------------------------------------------------------------------


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


# --- fractions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("8/255", 8 / 255), (" 8 / 255 ", 8 / 255), ("0.5/255", 0.5 / 255), ("1/1.0", 1.0)],
)
def test_fractions(text: str, value: float) -> None:
    assert parse_fraction(text) == value
    assert load(METHOD, f'threat.eps="{text}"').profile.threat.eps == value


@pytest.mark.parametrize("text", ["8/0", "0/255", "0.0/1", "-8/255", "8/255/2", "8", "/255", "1e1/255", "8/255\n1", ""])
def test_what_is_no_fraction(text: str) -> None:
    assert parse_fraction(text) is None
    assert problem(METHOD, f"threat.eps={msgspec.json.encode(text).decode()}").startswith("threat.eps: found ")


def test_only_radii_take_fractions() -> None:
    assert problem(METHOD, "stage.0.lr=1/10") == 'stage.0.lr: found "1/10"; allowed: a number > 0'


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("threat.eps=-0.1", 'threat.eps: found -0.1; allowed: a number > 0, or a fraction such as "8/255"'),
        ("threat.eps=nan", 'threat.eps: found nan; allowed: a number > 0, or a fraction such as "8/255"'),
        ("threat.eps=inf", 'threat.eps: found inf; allowed: a number > 0, or a fraction such as "8/255"'),
        ("threat.eps=true", 'threat.eps: found true; allowed: a number > 0, or a fraction such as "8/255"'),
        ("threat.eps=2", "threat.eps: found 2.0; allowed: at most 1 for linf, images lie in [0,1]"),
        ("stage.0.epochs=0", "stage.0.epochs: found 0; allowed: a whole number >= 1"),
        ("stage.0.epochs=true", "stage.0.epochs: found true; allowed: a whole number >= 1"),
        ("stage.0.epochs=3.0", "stage.0.epochs: found 3.0; allowed: a whole number >= 1"),
        ("stage.0.epochs=three", 'stage.0.epochs: found "three"; allowed: a whole number >= 1'),
        ("seed=-1", "seed: found -1; allowed: a whole number >= 0 and < 2147483648"),
        ("seed=1979-05-27", "seed: found datetime.date(1979, 5, 27); allowed: a whole number >= 0 and < 2147483648"),
        ("stage.0.momentum=1", "stage.0.momentum: found 1; allowed: a number >= 0 and < 1"),
        ("data.augment=1", "data.augment: found 1; allowed: true or false"),
        ("data=3", "data: found 3; allowed: a section with keys"),
        ("threat.norm=l_inf", 'threat.norm: found "l_inf"; allowed: one of l2, linf; did you mean "linf"?'),
        ("stage.1.betas=[0.9]", "stage.1.betas: found [0.9]; allowed: a list of 2: a number >= 0 and < 1"),
        ("stage.1.betas=[0.9, 1]", "stage.1.betas.1: found 1; allowed: a number >= 0 and < 1"),
        ("stage.3.models=[]", "stage.3.models: found []; allowed: a list with at least 1 of: at most 40 cha"),
        ("stage.3.attacks=pgd", 'stage.3.attacks: found "pgd"; allowed: a list with at least 1 of: one of aa, aa-l2,'),
        ('stage.3.attacks=["clean", "pdg"]', 'stage.3.attacks.1: found "pdg"; allowed: one of aa, aa-l2,'),
        ('stage.3.attacks=["pgd", "pgd"]', "stage.3.attacks: a name occurs twice; each may occur once"),
        (
            "stage.0.kind=trian",
            'stage.0.kind: found "trian"; allowed: train, game, inoculate, evaluate; did you mean "',
        ),
        ("stage.0.epoch=3", "stage.0.epoch: unknown key; did you mean `epochs`?"),
        ("stage.1.adversary.setps=3", "stage.1.adversary.setps: unknown key; did you mean `steps`?"),
        (
            "zzz=3",
            "zzz: unknown key; allowed: name, preset, description, seed, data, model, threat, compute, ",
        ),
        ("treat.eps=0.1", "treat: unknown key; did you mean `threat`?"),
        ("seed.x=1", "seed: found {'x': 1}; allowed: a whole number"),
        ("stage.0.id=Über", 'stage.0.id: found "Über"; allowed: at most 40 characters: letters'),
        ("compute.device=gpu", 'compute.device: found "gpu"; allowed: auto, cpu, cuda or cuda:N'),
        ("compute.devices=0,1,00", 'compute.devices: found "0,1,00"; allowed: each GPU once'),
        (
            "compute.devices=cpu:200",
            'compute.devices: found "cpu:200"; allowed: at most stage.2.batch_size = 64 processes, each with an image',
        ),
        ("compute.devices=cpu:10000", 'compute.devices: found "cpu:10000"; allowed: GPUs by index'),
        ("compute.devices=2,", 'compute.devices: found "2,"; allowed: GPUs by index, such as 0 or 0,1, or cpu:N for N'),
        ("stage.0.warmup_epochs=31", "stage.0.warmup_epochs: found 31.0; allowed: at most epochs = 30"),
        ("stage.2.gamma=1.5", "stage.2.gamma: found 1.5; allowed: at most 1, images lie in [0,1]"),
        ("model.name=vgg16", "model.name: vgg16 needs images of at least 32x32; digits has 8x8; `small` fits"),
        ('stage.3.attacks=["pgd-l2"]', "threat.eps_l2: missing; needed: the L2 radius of pgd-l2"),
        (
            "stage.0.start=game",
            'stage.0.start: found "game"; no earlier stage trains a network; add a [[stage]] of kind',
        ),
        (
            "stage.1.base=evaluate",
            'stage.1.base: found "evaluate"; allowed: an earlier stage that trains a network: tr',
        ),
        ("stage.2.game=train", 'stage.2.game: found "train"; allowed: an earlier stage that plays the game: game'),
        (
            'stage.3.models=["game"]',
            'stage.3.models.0: found "game"; allowed: an earlier stage that trains a network: ',
        ),
        ("stage.1.id=train", 'stage.1.id: "train" is taken by stage 0; ids must differ'),
        (
            "stage.7.epochs=1",
            "stage.7.epochs: no stage '7'; allowed: an index from 0 or one of train, game, inoculate, ",
        ),
        ("stage.-1.epochs=1", "stage.-1.epochs: no stage '-1'; allowed: an index"),
        ("stage.0=3", "stage.0: names a whole stage; needed: one of its keys, such as stage.0.epochs"),
        ("seed", "--set seed: needs the form KEY=VALUE, such as threat.eps=8/255"),
        ("=3", "--set =3: needs the form KEY=VALUE"),
        ("description=\udcff", 'description: found "\\udcff"; allowed: text in quotes'),
        ('name="a\\n"', 'name: found "a\\n"; allowed: at most 60 characters: letters'),
        ("description=[", None),
    ],
)
def test_what_a_single_mistake_is_told_as(override: str, told: str | None) -> None:
    if told is None:
        assert load(METHOD, override).profile.description == "["
    else:
        assert problem(METHOD, override).startswith(told)


def test_a_number_where_a_text_belongs_is_told_to_be_quoted() -> None:
    assert problem(METHOD, "compute.devices=2").endswith('; as text, in quotes: "2"')
    assert load(METHOD, 'compute.devices="2"').profile.compute.devices == "2"


def test_no_key_tells_its_pattern() -> None:
    """Every text with a pattern says in words what it may be: in errors, forms, the reference and editors."""
    properties = [
        entry
        for section in schema.json_schema()["$defs"].values()
        for entry in section.get("properties", {}).values()
        if "'pattern': '^[" in repr(entry) or "'pattern': '^(" in repr(entry)
    ]
    assert len(properties) > 10
    assert all("; allowed: " in entry["description"] for entry in properties)


def test_l2_needs_a_radius_for_the_inversion() -> None:
    assert problem(METHOD, "threat.norm=l2", "threat.eps=0.5").startswith("stage.2.gamma: missing; needed:")
    assert load(METHOD, "threat.norm=l2", "threat.eps=3.5", "stage.2.gamma=1/255").profile.threat.eps == 3.5


def test_a_number_beyond_floats_is_told() -> None:
    assert problem(METHOD, f"stage.0.lr=1{'0' * 400}").startswith("stage.0.lr: found 1000")


def test_every_mistake_is_told_at_once() -> None:
    text = """
    nmae = "typo"
    seed = true
    extends = 3
    [threat]
    eps = -1
    norm = "l3"
    [[stage]]
    kind = "train"
    epochs = 0
    start = "nowhere"
    [[stage]]
    kind = "train"
    warmup_epochs = 99
    [stage.adversary]
    steps = 0
    """
    assert [line.split(":")[0] for line in problems(text, "stage.5.lr=1", "x")] == [
        "extends",
        "stage.5.lr",
        "--set x",
        "nmae",
        "seed",
        "threat.eps",
        "threat.norm",
        "stage.0.epochs",
        "stage.1.adversary.steps",
        "name",
        "stage.0.start",
        "stage.1.warmup_epochs",
    ]


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (("threat.norm=l3", "threat.eps=3"), ["threat.norm"]),
        (("data.name=cifar", "model.name=vgg16"), ["data.name"]),
        (("stage.0.id=A", "stage.1.base=a"), ["stage.0.id"]),
        (("stage.0.epochs=0", "stage.0.warmup_epochs=31"), ["stage.0.epochs"]),
        (("stage.3.models=[3]",), ["stage.3.models.0"]),
        (("stage.1.kind=gmae",), ["stage.1.kind"]),
    ],
)
def test_what_only_follows_from_a_mistake_is_not_told(overrides: tuple[str, ...], keys: list[str]) -> None:
    assert [line.split(":")[0] for line in problems(METHOD, *overrides)] == keys


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["name: missing", "stage: missing"]),
        ('name = "x"\nstage = []', ["stage: found []; allowed: a list with at least 1"]),
        ('name = "x"\nstage = 3', ["stage: found 3"]),
        ('name = "x"\nstage = [1]', ["stage.0: found 1; allowed: a table with `kind`"]),
        ('name = "x"\n[stage]\nkind = "train"', ["stage: found {'kind': 'train'}"]),
        ('name = "x"\n[[stage]]\nepochs = 3', ["stage.0.kind: missing; allowed: train, game, inoculate, evaluate"]),
        ('name = "x"\n[[stage]]\nkind = "game"', ["stage.0.base: no earlier stage trains a network; add a [[stage]]"]),
        ('name = "x"\n[[stage]]\nkind = "evaluate"', ["stage.0.models: no earlier stage trains a network"]),
        ('name = "x"\nset = 3\n[[stage]]\nkind = "train"', ["set: found 3; allowed: a table such as"]),
        ('name = "x"\n[[stage]]\nkind = "train"\n[set]\nseed.x = 3', ["set.seed: write the whole key path in quotes"]),
    ],
)
def test_mistakes_of_form(text: str, told: list[str]) -> None:
    found = problems(text)
    assert len(found) == len(told)
    assert all(line.startswith(start) for line, start in zip(found, told, strict=True))


def test_control_characters_of_a_file_do_not_reach_the_terminal() -> None:
    told = problem(METHOD, r'"\u001b[2J\u009b"="a\u0007"')
    assert told.isprintable()
    told = problem('"a\\u001b" = 1\n' + METHOD)
    assert told.startswith("a\\x1b: unknown key")
    with pytest.raises(UsageError, match=r"unknown profile: \\x1b\[2J\n"):
        profiles.find("\x1b[2J")


# --- files -----------------------------------------------------------------------------------------------------------


def test_broken_toml_is_told_with_line_and_column() -> None:
    with pytest.raises(UsageError, match=r"^it\.toml: not valid TOML: .*line 2, column 8"):
        load('name = "x"\nseed = = 3\n')


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'name = "\xff"', r"not UTF-8 text \(byte 8\)"),
        (b"seed = " + b"[" * 5000, "not readable as TOML: .*nested"),
        (b"seed = 1" + b"0" * 5000, "not readable as TOML: .*digits"),
        (b"\x00\x01\x02", "not valid TOML"),
    ],
)
def test_files_that_are_no_toml(content: bytes, told: str) -> None:
    Path("it.toml").write_bytes(content)
    with pytest.raises(UsageError, match=f"^it.toml: {told}"):
        profiles.load("it.toml")


def test_a_directory_is_no_profile() -> None:
    Path("it.toml").mkdir()
    with pytest.raises(UsageError, match=r"profile file not found: it\.toml"):
        profiles.load("it.toml")


@pytest.mark.parametrize("name", ["nothing", "no/such/file.toml", "x" * 5000, "nul\0", "", ".", "..", "/"])
def test_names_that_lead_nowhere(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        profiles.load(name)
    assert caught.value.hint


# --- writing and listing ---------------------------------------------------------------------------------------------

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


@SAME_FOLDER
@given(OVERRIDES)
def test_what_is_written_reads_back_equal_and_resolved(overrides: dict[str, Any]) -> None:
    first = with_keys(overrides)
    text = profiles.dumps(first)
    again = profiles.from_tables(tomli.loads(text))
    assert again == first
    assert profiles.dumps(again) == text


def with_keys(overrides: dict[str, Any]) -> schema.Profile:
    Path("it.toml").write_text(METHOD + tomli_w.dumps({"set": overrides}), encoding="utf-8")
    return profiles.load("it.toml").profile


def test_a_resolved_profile_names_no_default() -> None:
    Path("again.toml").write_text(profiles.dumps(load(METHOD).profile), encoding="utf-8")
    again = profiles.load("again.toml")
    assert again.profile == load(METHOD).profile
    assert set(again.origins.values()) == {"again.toml"}


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


def test_explain_shows_every_line_of_the_file_and_where_it_comes_from() -> None:
    loaded = load(METHOD, "stage.game.lr=0.5")
    lines = explain(loaded)
    assert profiles.from_tables(tomli.loads("\n".join(line for line, _ in lines))) == loaded.profile
    origins = dict(lines)
    assert origins["lr = 0.5"] == "--set"
    assert origins['name = "whole"'] == "it.toml"
    assert origins["seed = 0"] == "default"


def test_every_shipped_profile_loads_and_is_listed_with_a_description() -> None:
    folder = profiles.shipped_folder()
    files = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml")}
    entries = {entry.name: entry for entry in profiles.available() if entry.shipped}
    assert set(entries) == files
    assert "quickstart" in files
    for name, entry in entries.items():
        assert entry.description, name
        sweep = profiles.load_sweep(name)
        assert {point.path for point in (sweep.points if sweep else [profiles.load(name)])} == {entry.path}


def test_a_local_profile_hides_the_shipped_one_of_its_name() -> None:
    write(Path("quickstart.toml"), METHOD)
    write(Path("pyproject.toml"), "[project]\nname = 'no profile'\n")
    write(Path("broken.toml"), "= = =")
    assert [entry.shipped for entry in profiles.available() if entry.name == "quickstart"] == [False]
    assert not {"pyproject", "broken"} & {entry.name for entry in profiles.available()}
    assert profiles.load("quickstart").profile.name == "whole"


# --- JSON Schema -----------------------------------------------------------------------------------------------------


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
    given = {**PRESET, "preset": "paper-code"}
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


def test_the_shipped_schema_is_current() -> None:
    shipped = (profiles.shipped_folder() / "profile.schema.json").read_text(encoding="utf-8")
    printed = subprocess.run(
        [sys.executable, "-m", "engine.contract.profile.schema"],
        cwd=Path(schema.__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shipped == printed.stdout, "the profile keys have changed: renew the file with `make schema`"


def test_the_reference_of_keys_is_current() -> None:
    docs = Path(schema.__file__).parents[3] / "docs"
    script = "import make_reference, sys; sys.stdout.write(make_reference.reference())"
    printed = subprocess.run([sys.executable, "-c", script], cwd=docs, capture_output=True, text=True, check=True)
    page = (docs / "profile.md").read_text(encoding="utf-8")
    assert page == printed.stdout, "the profile keys have changed: renew the page with `make schema`"
    assert '| `eps_l2` | a number > 0, or a fraction such as "8/255" |' in page


VALID: list[dict[str, Any]] = [
    {},
    {"threat": {"eps": "8/255"}},
    {"threat": {"eps": " 0.5 / 255"}},
    {"threat": {"eps": 1}},
    {"seed": 2**31 - 1},
    {"compute": {"device": "cuda:1", "threads": 4}},
    {"stage": [{"kind": "train", "id": "a-b_9", "lr": 1, "adversary": {"attack": "fgsm", "step_size": 1.25}}]},
    {"stage": [{"kind": "train"}, {"kind": "game", "lambda": 0, "betas": [0.5, 0.999]}]},
    {"stage": [{"kind": "train"}, {"kind": "game"}, {"kind": "inoculate", "gamma": "1/255"}]},
    {"stage": [{"kind": "train"}, {"kind": "evaluate", "models": ["train"], "samples": 0, "attacks": ["clean"]}]},
]
INVALID: list[dict[str, Any]] = [
    {"name": ""},
    {"name": "a/b"},
    {"name": 3},
    {"seed": -1},
    {"seed": 2**31},
    {"seed": True},
    {"seed": 0.5},
    {"colour": "red"},
    {"data": {"name": "digit"}},
    {"data": {"augment": 1}},
    {"data": {"validation": 0}},
    {"data": {"validation": 1}},
    {"data": 3},
    {"threat": {"eps": 0}},
    {"threat": {"eps": -0.1}},
    {"threat": {"eps": "8/0"}},
    {"threat": {"eps": "0/255"}},
    {"threat": {"eps": "0.1"}},
    {"threat": {"norm": "l3"}},
    {"compute": {"device": "gpu"}},
    {"stage": []},
    {"stage": [3]},
    {"stage": [{}]},
    {"stage": [{"kind": "trian"}]},
    {"stage": [{"kind": "train", "epochs": 0}]},
    {"stage": [{"kind": "train", "lr": "1/10"}]},
    {"stage": [{"kind": "train", "adversary": {"loss": "dlr"}}]},
    {"stage": [{"kind": "train"}, {"kind": "game", "betas": [0.9]}]},
    {"stage": [{"kind": "train"}, {"kind": "game", "betas": [0.9, 1]}]},
    {"stage": [{"kind": "train"}, {"kind": "game", "defence": "adv"}]},
    {"stage": [{"kind": "train"}, {"kind": "evaluate", "attacks": []}]},
    {"stage": [{"kind": "train"}, {"kind": "evaluate", "attacks": ["bim"]}]},
]


def accepted(tables: dict[str, Any]) -> tuple[bool, bool]:
    """Whether the loader and the JSON Schema accept a file."""
    try:
        load(tomli_w.dumps(tables))
        loads = True
    except CafeError:
        loads = False
    return loads, jsonschema.Draft202012Validator(schema.json_schema()).is_valid(tables)


@pytest.mark.parametrize("change", VALID, ids=str)
def test_the_schema_accepts_what_the_loader_accepts(change: dict[str, Any]) -> None:
    assert accepted({"name": "x", "stage": [{"kind": "train"}], **change}) == (True, True)


@pytest.mark.parametrize("change", INVALID, ids=str)
def test_the_schema_refuses_what_the_loader_refuses(change: dict[str, Any]) -> None:
    assert accepted({"name": "x", "stage": [{"kind": "train"}], **change}) == (False, False)


def test_the_schema_knows_what_a_file_may_leave_to_its_parent() -> None:
    write(Path("base.toml"), METHOD)
    assert accepted({"extends": "base", "set": {"stage.train.epochs": 3}}) == (True, True)
    assert accepted({"name": "x"}) == (False, False)
    assert accepted({"extends": 3, "name": "x", "stage": [{"kind": "train"}]}) == (False, False)


@SAME_FOLDER
@given(OVERRIDES)
def test_the_schema_accepts_every_resolved_profile(overrides: dict[str, Any]) -> None:
    tables = to_tables(with_keys(overrides))
    assert jsonschema.Draft202012Validator(schema.json_schema()).is_valid(tables)


def test_every_shipped_file_fits_the_schema() -> None:
    validator = jsonschema.Draft202012Validator(schema.json_schema())
    validator.check_schema(validator.schema)
    for path in profiles.shipped_folder().rglob("*.toml"):
        validator.validate(profiles.read_toml(path))
