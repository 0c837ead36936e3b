"""The JSON Schema and the reference of keys: current, and of one mind with the loader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import tomli_w
from hypothesis import given

from cafe_tui.cli.attack import DEFAULTS
from engine.contract.errors import CafeError
from engine.contract.profile import files as profiles
from engine.contract.profile import schema
from engine.contract.profile.schema import Data, Model, Threat
from engine.contract.profile.tables import to_tables
from tests.contract.written import METHOD, OVERRIDES, SAME_FOLDER, load, with_keys, write

pytestmark = pytest.mark.usefixtures("elsewhere")


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


def test_cafe_attack_begins_with_the_defaults_of_profiles() -> None:
    threat, model, data = Threat(), Model(), Data()
    assert DEFAULTS["model"] == model.name
    assert DEFAULTS["data"] == data.name
    assert DEFAULTS["norm"] == threat.norm
    numerator, _, denominator = DEFAULTS["eps"].partition("/")
    assert int(numerator) / int(denominator) == threat.eps
