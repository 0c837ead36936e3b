"""Every attack, defence, model and data set is built and run by its name, and all lists of names are the same one."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import structs
from PIL import Image

from engine import attacks, data, defences, models, process
from engine.attacks.balls import Ball
from engine.attacks.setting import Setting
from engine.contract import archives, datasets, folders
from engine.contract.errors import ProfileError
from engine.contract.plan import budget_keys, plan
from engine.contract.profile import catalogue, schema
from engine.contract.profile import files as profiles
from engine.contract.profile.catalogue import (
    ATTACK_NAMES,
    ATTACKS,
    CLEAN,
    DATA_FACTS,
    DATA_SETS,
    DEFENCES,
    ENSEMBLES,
    MODELS,
    TRANSFERABLE,
    Norm,
    norms,
    parts,
    plain,
    smallest_image,
)
from engine.contract.profile.schema import Data, Evaluate
from engine.contract.run import rundir
from engine.contract.run.records import Cell
from engine.contract.run.rundir import RunDir
from engine.device import Compute
from engine.models.base import Inputs
from engine.registry import resolve
from tests.engine.test_archives import published, write, zip_of
from tests.engine.test_grid import keep_in_memory, noise_for

ROOT = Path(catalogue.__file__).parents[3]
TABLES: dict[str, Mapping[str, Any]] = {
    "attacks": ATTACKS,
    "defences": DEFENCES,
    "models": MODELS,
    "data": DATA_SETS,
}
TINY = {key: 2 for row in ATTACKS.values() for key in row.keys if type(getattr(Evaluate(), key)) is int} | {
    "eot": 2,
    "precision": "fp32",
    "samples": 1,
    "batch_size": 8,
    "limit": 8,
}
"""Budgets of every attack; whatever key a row may name."""
SMALLEST = {"threads": 1, "device": "cpu"}


def finished(run: RunDir) -> RunDir:
    assert process.run(run) == 0, run.log_file.read_text() if run.log_file.exists() else ""
    return run


def cells(run: RunDir) -> list[Cell]:
    results = run.results()
    assert results is not None
    return results.cells


# --- attacks ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a network that has learnt a little."""
    stage = {"kind": "train", "defence": "standard", "epochs": 2, "batch_size": 64}
    tables = {"name": "x", "data": {"validation": 0.8}, "compute": SMALLEST, "stage": [stage]}
    profile = profiles.from_tables(tables)
    folder = tmp_path_factory.mktemp("runs")
    run = finished(rundir.create(folder, profile.name, profiles.dumps(profile)))
    return run.checkpoints / "train.safetensors"


@pytest.mark.parametrize("name", ATTACK_NAMES)
def test_an_attack_runs_by_its_name(name: str, network: Path, quick_run: Callable[..., RunDir]) -> None:
    """On the network itself and, where it can be, crafted on a network to be tried on another."""
    norm: Norm = norms(name)[0] if plain(name) == name else "linf"
    stages = [{"kind": "evaluate", "attacks": [CLEAN, name] if name != CLEAN else [CLEAN], **TINY}]
    crafted = {"kind": "evaluate", "id": "crafted", "source": "checkpoint", "attacks": [name], **TINY}
    tables: dict[str, Any] = {
        "name": "x",
        "model": {"checkpoint": str(network)},
        "threat": {"norm": norm, "eps": 0.1 if norm == "linf" else 0.5} | ({"eps_l2": 0.5} if norm == "linf" else {}),
        "compute": SMALLEST,
        "stage": stages,
    }
    if plain(name) in TRANSFERABLE:
        stages.append(crafted)
    else:
        with pytest.raises(ProfileError, match="with a source allowed are"):
            profiles.from_tables(tables | {"stage": [*stages, crafted]})
    assert all(stage.cost >= stage.steps for stage in plan(profiles.from_tables(tables)))
    found = {cell.attack: cell for cell in cells(finished(quick_run(tables=tables)))}
    cell, clean = found[name], found[CLEAN]
    assert clean.total == cell.total == TINY["limit"]
    assert 0 <= cell.correct <= clean.correct
    assert [part.attack for part in cell.parts] == (list(parts(name)) if plain(name) in ENSEMBLES else [])
    asked = any(ATTACKS[plain(part)].gradients for part in parts(name))
    assert bool(cell.gradient_steps) == asked
    assert bool(cell.forwards)


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_an_attack_that_is_crafted_elsewhere_goes_on_to_its_end(name: str) -> None:
    setting = Setting(Ball("linf", 0.1), Evaluate(source="other"), 0, classes=10)
    told = "a search takes `stops=setting.stops` where its row is `transferable`, and only there"
    assert attacks.ATTACKS[name].search(setting).stops != ATTACKS[plain(name)].transferable, told


def test_an_attack_that_is_not_made_in_a_norm_is_refused() -> None:
    stages = [{"kind": "train"}, {"kind": "evaluate", "attacks": list(ATTACKS)}]
    for norm in catalogue.NORMS:
        tables = {"name": "x", "threat": {"norm": norm, "eps": 0.5}, "stage": stages}
        try:
            profiles.from_tables(tables)
            refused = set()
        except ProfileError as error:
            refused = set(re.findall(r"attacks: (\S+) is an \S+ attack", str(error)))
        assert refused == {name for name, row in ATTACKS.items() if norm not in row.norms}


@pytest.mark.parametrize("name", ATTACK_NAMES)
def test_what_an_attack_depends_on_is_a_key_of_its_stage(name: str) -> None:
    assert set(budget_keys(name)) <= {field.name for field in structs.fields(Evaluate)}
    for part in parts(name):
        row = ATTACKS[plain(part)]
        values = [getattr(Evaluate(), key) for key in row.keys]
        assert row.steps(*values) > 0
        assert all(isinstance(row.note(classes, *values), str) for classes in (2, 3, 4, 10))
        inspect.signature(row.steps).bind(*row.keys)


# --- defences --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEFENCES)
def test_a_defence_runs_by_its_name_alone_and_inoculated(name: str, quick_run: Callable[..., RunDir]) -> None:
    quick = {"epochs": 1, "batch_size": 64, "adversary": {"steps": 2}}
    unattacked = next(other for other, row in DEFENCES.items() if not row.attacks)
    stages = [
        {"kind": "train", "id": "plain", "defence": unattacked, **quick},
        {"kind": "train", "defence": name, **quick},
        {"kind": "game", "regret_steps": 2, **quick},
        {"kind": "inoculate", "defence": name, "inversion_steps": 2, **quick},
    ]
    tables = {"name": "x", "data": {"validation": 0.8}, "compute": SMALLEST, "stage": stages}
    run = finished(quick_run(tables=tables))
    assert (run.checkpoints / "inoculate.safetensors").exists()
    resolved = profiles.load(str(run.profile_file)).profile
    for stage in (resolved.stage[1], resolved.stage[3]):
        assert isinstance(stage, schema.Train | schema.Inoculate)
        assert stage.beta == DEFENCES[name].beta
        assert (stage.helper == "plain") == DEFENCES[name].helper
        assert stage.adversary.attack == (DEFENCES[name].adversary or "pgd")
    assert all(stage.cost > 0 for stage in plan(resolved))


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_model_runs_by_its_name(name: str, quick_run: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of training on two images of the smallest size that it takes, and a table of two."""
    size = smallest_image(name)
    stand_in = next(other for other, facts in DATA_FACTS.items() if facts.size >= size)
    monkeypatch.setitem(DATA_FACTS, stand_in, replace(DATA_FACTS[stand_in], size=size))
    noise_for(stand_in, monkeypatch)
    keep_in_memory(monkeypatch)
    options = dict.fromkeys(MODELS[name].options, 0.1)
    tables: dict[str, object] = {
        "name": "x",
        "data": {"name": stand_in, "validation": 0.34},
        "model": {"name": name, **options},
        "compute": SMALLEST,
        "stage": [
            {"kind": "train", "defence": "standard", "epochs": 1, "batch_size": 2},
            {"kind": "evaluate", "attacks": [CLEAN, "fgsm"], "checks": False, "batch_size": 2, "samples": 0},
        ],
    }
    assert [cell.attack for cell in cells(finished(quick_run(tables=tables)))] == [CLEAN, "fgsm"]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_what_it_takes(name: str) -> None:
    inputs = Inputs(10, 3, smallest_image(name) - 1, mean=(0.5,) * 3, std=(0.2,) * 3)
    with pytest.raises(ValueError, match=f"at least {smallest_image(name)}x"):
        models.build(name, inputs, seed=0)
    _, *taken = inspect.signature(resolve(MODELS[name].builder)).parameters
    assert set(taken) == {*MODELS[name].arguments, *MODELS[name].options}
    assert set(MODELS[name].options) <= {field.name for field in structs.fields(schema.Model)}


# --- data sets -------------------------------------------------------------------------------------------------------


def pictures_in(folder: Path) -> Path:
    """Two classes, with six pictures each to train on and two to test on."""
    for part, count in (("train", 6), ("val", 2)):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng(i).integers(0, 256, (32, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder


def archives_of(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files in the published form, which count as the published ones."""
    if name == "tiny-imagenet":
        zip_of(folder / "tiny-imagenet-200.zip")
    else:
        write(folder, {"cifar10": "cifar10 binary", "cifar100": "cifar100 python"}.get(name, name))
    reference = str(DATA_SETS[name].recipe)
    recipe = published(resolve(reference), folder)
    module, _, constant = reference.partition(":")
    monkeypatch.setattr(f"{module}.{constant}", recipe)
    monkeypatch.setitem(data.RECIPES, name, recipe)
    monkeypatch.setitem(archives.PUBLISHED, name, recipe.alternatives)
    few = replace(
        DATA_FACTS[name], pool=50, test=10, classes=2 if name == "tiny-imagenet" else DATA_FACTS[name].classes
    )
    monkeypatch.setitem(DATA_FACTS, name, few)


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_data_set_is_prepared_and_trained_on_by_its_name(
    name: str, quick_run: Callable[..., RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, section = DATA_SETS[name], {"name": name}
    if row.had != "library":
        monkeypatch.setenv("CAFE_DATA", str(tmp_path))
        folders.counted.cache_clear()
    if row.had == "archives":
        archives_of(name, tmp_path, monkeypatch)
    elif row.had == "folder":
        section |= {"path": str(pictures_in(tmp_path / "pets")), "size": 16}  # type: ignore[dict-item]
        if row.facts is not None:
            monkeypatch.setitem(DATA_FACTS, name, replace(row.facts, classes=2, pool=12, test=4))
    profile = profiles.from_tables({"name": "x", "data": section, "stage": [{"kind": "train"}]})
    said: list[str] = []
    data.prepare(profile.data, said.append)
    assert said
    datasets.check_here(profile.data)
    facts = profile.data.facts
    source = data.read(profile.data)
    for images, labels, count in (
        (source.train_images, source.train_labels, facts.pool),
        (source.test_images, source.test_labels, facts.test),
    ):
        assert images.shape == (count, facts.channels, facts.size, facts.size)
        assert images.dtype == np.uint8
        assert labels.shape == (count,)
        assert 0 <= labels.min() <= labels.max() < facts.classes
    share = max(0.1, 1 - 32 / facts.pool)  # leaves some 32 images to train on
    stages = [
        {"kind": "train", "epochs": 1, "batch_size": 8, "adversary": {"steps": 1}},
        {"kind": "evaluate", "attacks": [CLEAN, "fgsm"], "limit": 4, "checks": False, "samples": 1},
    ]
    tables = {"name": "x", "data": section | {"validation": share}, "compute": SMALLEST, "stage": stages}
    assert [cell.total for cell in cells(finished(quick_run(tables=tables)))] == [4, 4]


@pytest.mark.parametrize("name", [name for name, row in DATA_SETS.items() if row.library is not None])
def test_a_data_set_without_its_library_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.contract.datasets.find_spec", lambda name: None)
    with pytest.raises(datasets.UsageError, match=str(DATA_SETS[name].library)) as caught:
        data.load(Data(name=name), seed=0, compute=Compute(torch.device("cpu")))
    assert f"cafe-tui[{name}]" in caught.value.hint


# --- names -----------------------------------------------------------------------------------------------------------


def references() -> Iterator[tuple[str, str]]:
    """Every reference to code, after the kind and the name of its row."""
    for kind, rows in TABLES.items():
        for name, row in rows.items():
            for value in structs.asdict(row).values():
                if isinstance(value, str) and re.fullmatch(r"engine(\.\w+)+:\w+", value):
                    yield f"{kind}-{name}", value


@pytest.mark.parametrize("reference", [pytest.param(text, id=name) for name, text in references()])
def test_a_reference_resolves_to_what_its_module_defines(reference: str) -> None:
    found = resolve(reference)
    assert not isinstance(found, ModuleType)
    if inspect.isfunction(found):
        assert f"{found.__module__}:{found.__name__}" == reference


def test_every_row_refers_to_its_code() -> None:
    rows = [f"{kind}-{name}" for kind, table in TABLES.items() for name in table]
    assert list(dict.fromkeys(name for name, _ in references())) == rows


def test_the_registries_have_the_names_of_the_catalogue() -> None:
    assert {CLEAN, *attacks.ATTACKS} == {name for name in ATTACK_NAMES if plain(name) not in ENSEMBLES}
    assert {part for name in ATTACK_NAMES for part in parts(name)} == set(attacks.ATTACKS)
    assert list(defences.LOSSES) == list(DEFENCES)
    assert list(models.MODELS) == list(MODELS)
    assert list(data.DATA) == list(DATA_SETS)
    assert not set(ATTACKS) & set(ENSEMBLES)


def in_schema(tables: dict[str, Any]) -> dict[str, set[str]]:
    """Kind -> the names that a JSON schema of profiles allows."""

    def of(section: str, key: str) -> dict[str, Any]:
        found: dict[str, Any] = tables["$defs"][section]["properties"][key]
        return found

    def words(section: str) -> set[str]:
        alternatives = of(section, "name")["pattern"].removeprefix("^(").removesuffix(")$").split("|")
        return {word for word in alternatives if re.fullmatch(r"[\w-]+", word)}

    assert of("Train", "defence")["enum"] == of("Inoculate", "defence")["enum"]
    return {
        "attacks": set(of("Evaluate", "attacks")["items"]["enum"]),
        "defences": set(of("Train", "defence")["enum"]),
        "models": words("Model"),
        "data": words("Data"),
    }


def in_reference(page: str) -> dict[str, set[str]]:
    """Kind -> the names that docs/profile.md allows."""
    sections = {part.partition("`\n")[0]: part for part in page.split("\n## `")}

    def of(section: str, key: str) -> set[str]:
        line = re.search(rf"^\| `{key}` \|.*?one of (.*?) \|", sections[section], re.MULTILINE)
        assert line is not None
        return {word for word in line[1].replace(" or ", ", ").split(", ") if re.fullmatch(r"[\w-]+", word)}

    assert of('[[stage]] kind = "train"', "defence") == of('[[stage]] kind = "inoculate"', "defence")
    return {
        "attacks": of('[[stage]] kind = "evaluate"', "attacks"),
        "defences": of('[[stage]] kind = "train"', "defence"),
        "models": of("[model]", "name"),
        "data": of("[data]", "name"),
    }


def in_readme(page: str) -> dict[str, set[str]]:
    """Kind -> the names in the first column of its table in README.md."""
    found = {}
    for kind in TABLES:
        block = page.partition(f"<!-- {kind}:")[2].partition("<!-- end of")[0]
        rows = block.strip().splitlines()[3:]
        found[kind] = {word for row in rows for word in re.findall(r"`([\w-]+)`", row.split("|")[1])}
    return found


NAMES = {"attacks": set(ATTACK_NAMES), "defences": set(DEFENCES), "models": set(MODELS), "data": set(DATA_SETS)}


@pytest.mark.parametrize("kind", TABLES)
def test_every_list_of_names_is_that_of_the_catalogue(kind: str) -> None:
    shipped = json.loads((ROOT / "profiles" / "profile.schema.json").read_text(encoding="utf-8"))
    assert in_schema(schema.json_schema())[kind] == NAMES[kind]
    assert in_schema(shipped)[kind] == NAMES[kind], "renew it with `make schema`"
    assert in_reference((ROOT / "docs" / "profile.md").read_text(encoding="utf-8"))[kind] == NAMES[kind]
    assert in_readme((ROOT / "README.md").read_text(encoding="utf-8"))[kind] == NAMES[kind] - {CLEAN}


def test_the_tables_of_the_readme_are_current() -> None:
    script = "import make_reference, sys; sys.stdout.write(make_reference.readme(sys.stdin.read()))"
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    command = [sys.executable, "-c", script]
    made = subprocess.run(command, cwd=ROOT / "docs", input=page, capture_output=True, text=True, check=True)
    assert page == made.stdout, "the catalogue has changed: renew the tables with `make schema`"


def test_a_wrong_name_is_told_the_names_of_its_kind() -> None:
    stages = [{"kind": "train", "defence": "nix"}, {"kind": "evaluate", "attacks": ["nix"]}]
    with pytest.raises(ProfileError) as caught:
        profiles.from_tables({"name": "x", "data": {"name": "nix"}, "model": {"name": "nix"}, "stage": stages})
    for kind in TABLES:
        assert f"one of {', '.join(sorted(NAMES[kind]))}" in str(caught.value), kind
