"""How each mistake in a profile is reported, alone and among others."""

from __future__ import annotations

import msgspec
import pytest

from engine.contract.errors import UsageError
from engine.contract.profile import files as profiles
from engine.contract.profile.checking import parse_fraction
from tests.contract.written import METHOD, load, problem, problems

pytestmark = pytest.mark.usefixtures("elsewhere")


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
