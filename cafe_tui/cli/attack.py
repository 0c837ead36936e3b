"""cafe attack: one robust-accuracy table for any checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cafe_tui.cli.options import Devices, Plain, Runs
from cafe_tui.locations import runs_folder

if TYPE_CHECKING:
    from engine.contract.profile.schema import Data

OF_IMAGES = ("path", "size", "config", "label", "image", "test")
"""Keys of [data] that a checkpoint of ours knows of an image folder, of ImageNet and of a set of the hub."""
DEFAULTS = {"model": "small", "data": "digits", "eps": "8/255", "norm": "linf"}
"""What is used where neither an option nor the checkpoint says."""


def attack(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Weights: a checkpoint of ours, a safetensors file or a state dict; - where the network has its own.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="Its network: a name, timm:NAME or PACKAGE.MODULE:FUNCTION. [default: its own]")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Data set to test on. [default: its own]")] = None,
    attacks: Annotated[str, typer.Option(help="Columns of the table, separated by commas.")] = "clean,aa",
    eps: Annotated[
        str | None, typer.Option(help="Radius, or several separated by commas: 4/255,8/255. [default: its own]")
    ] = None,
    norm: Annotated[Literal["linf", "l2"] | None, typer.Option(help="[default: its own]", show_default=False)] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many test images, of all classes in turn.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples attacked at once.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the attacks.")] = 0,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other key: stage.evaluate.square_queries=1000."),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given several times.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    devices: Devices = None,
    detach: Annotated[bool, typer.Option("--detach", help="Print the run id and return at once.")] = False,
    plain: Plain = False,
    json: Annotated[bool, typer.Option("--json", help="The table as one JSON document at the end.")] = False,
    runs: Runs = None,
) -> None:
    """Attack a trained network, show the table while it fills, and keep it as a run like any other.

    Of a checkpoint of ours, network, data set (with the folder and the size of its images) and threat are known and
    need no option.
    """
    from functools import partial

    from cafe_tui.launch import local
    from engine.contract.profile import files as profiles

    facts = _facts(checkpoint)
    known = DEFAULTS | facts | _given(model=model, data=data, norm=norm)
    own = known["data"] == facts.get("data")
    tables: dict[str, Any] = {
        "name": "attack",
        "description": f"robust accuracy of {Path(checkpoint).name}",
        "seed": seed,
        "data": {"name": known["data"]} | (_images(facts) if own else {}),
        "model": {"name": known["model"], "checkpoint": _absolute(checkpoint)},
        "threat": {"norm": known["norm"], "eps": known["eps"]},
        "stage": [{"kind": "evaluate", "attacks": _words(attacks)} | _given(limit=limit, batch_size=batch_size)],
    }
    if known.get("dropout"):
        tables["model"]["dropout"] = known["dropout"]
    if own and known["norm"] == "linf":
        tables["threat"] |= _given(eps_l2=_eps_l2(checkpoint, facts))
    tables["compute"] = _given(device=device, devices=devices)
    radii = [_radius(word) for word in _words(eps)] if eps else []
    if len(radii) == 1:
        tables["threat"]["eps"] = radii[0]
    elif radii:
        tables["stage"][0]["eps"] = radii
        tables["threat"]["eps"] = radii[0]
    loaded = profiles.from_given(tables, "cafe attack", sets or [])
    if own and loaded.profile.data.name == facts["data"]:
        _check_classes(facts, loaded.profile.data)
    start = partial(local.start, runs_folder(runs), loaded, tags=tag or [], command=["cafe", *sys.argv[1:]])
    if detach:
        print(start()[0].id)
        return
    from cafe_tui.console.follow import follow

    raise typer.Exit(follow(start, plain=plain, json=json, records=False))


def _facts(checkpoint: str) -> dict[str, Any]:
    """What a checkpoint of ours says about itself; nothing for any other."""
    from engine.contract.errors import UsageError
    from engine.contract.profile.catalogue import NO_WEIGHTS
    from engine.contract.weights import read_facts

    if checkpoint == NO_WEIGHTS:
        return {}
    path = Path(checkpoint).expanduser()
    if not path.is_file():
        raise UsageError(f"checkpoint not found: {checkpoint}", "Those of a run lie in its folder checkpoints/.")
    return read_facts(path) or {}


def _images(facts: dict[str, Any]) -> dict[str, Any]:
    """[data] of a checkpoint whose images have a size of their own; where their folder is gone, also their counts."""
    from engine.contract.datasets import COUNTED
    from engine.contract.profile.catalogue import DATA_SETS, HUB, is_any_folder

    if DATA_SETS.get(str(facts["data"]), HUB).had not in ("folder", "hub"):
        return {}
    trained = facts.get("settings")
    trained = trained if isinstance(trained, dict) else {}
    section = _given(**{"size": facts.get("size")} | {key: trained.get(f"data.{key}") for key in OF_IMAGES})
    if is_any_folder(str(facts["data"])) and not Path(str(section.get("path"))).is_dir():
        section |= _given(**{key: trained.get(f"data.{key}") for key in COUNTED})
    return section


def _eps_l2(checkpoint: str, facts: dict[str, Any]) -> object:
    """The L2 radius beside that of Linf; of a checkpoint of an earlier release it stands in the profile of its run."""
    from engine.contract.errors import CafeError
    from engine.contract.profile.files import read_toml

    if "eps_l2" in facts:
        return facts["eps_l2"]
    try:
        threat = read_toml(Path(checkpoint).expanduser().absolute().parent.parent / "profile.toml").get("threat")
    except CafeError:
        return None
    return threat.get("eps_l2") if isinstance(threat, dict) else None


def _check_classes(facts: dict[str, Any], data: Data) -> None:
    """Raise UsageError where the images have changed so much that the network does not fit them."""
    from engine.contract.errors import UsageError

    now = data.facts
    for key, count in (("classes", now.classes), ("channels", now.channels)):
        then = facts.get(key)
        if isinstance(then, int) and then != count:
            raise UsageError(
                f"the network was trained on images of {then} {key}; {data.path or data.name} has {count} now",
                "Put back the images that it was trained on, or name others with --data and --set data.path=FOLDER.",
            )


def _absolute(checkpoint: str) -> str:
    from engine.contract.profile.catalogue import NO_WEIGHTS

    return checkpoint if checkpoint == NO_WEIGHTS else str(Path(checkpoint).expanduser().absolute())


def _given(**options: object) -> dict[str, object]:
    return {key: value for key, value in options.items() if value is not None}


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _radius(word: str) -> object:
    """A number where it is one; fractions and mistakes are left to the profile's check."""
    try:
        return float(word)
    except ValueError:
        return word
