"""Named settings: defaults by data set and network, which a profile's own keys override.

`standard` holds sound settings, `paper-code` what the code of the CAFE authors does, its shortcuts included.
"""

from __future__ import annotations

from typing import Any, Literal

from engine.contract.profile.catalogue import DEFENCES

Preset = Literal["standard", "paper-code"]
Tables = dict[str, Any]

_SMALL_IMAGES = ("cifar10", "cifar100", "svhn")
_EPS = {"tiny-imagenet": "4/255", "imagenet": "2/255"}
_GAMMA: dict[str, dict[str, float | str]] = {
    "cifar10": {"vgg": 0.03, "resnet": "4/255", "wrn": "2/255"},
    "cifar100": {"vgg": 0.03, "resnet": "4/255", "wrn": "2/255"},
    "svhn": {"vgg": "4/255", "resnet": "1/255", "wrn": "1/255"},
    "tiny-imagenet": {"vgg": "1/255", "resnet": "0.5/255", "wrn": "0.5/255"},
}
"""Radius of the causal inversion."""
_ATTACKS = ["clean", "fgsm", "pgd", "cw", "apgd-ce", "apgd-dlr"]


def fill(tables: Tables, origins: dict[str, str]) -> None:
    """Add to the tables of a profile, in place, what its preset says and they do not; `origins` tells which keys."""
    preset = tables.get("preset")
    if preset not in ("standard", "paper-code"):
        return  # none, or a mistake that is told elsewhere
    sections = {key: tables.setdefault(key, {}) for key in ("data", "model", "threat")}
    stages = tables.get("stage")
    if not all(isinstance(section, dict) for section in sections.values()) or not isinstance(stages, list):
        return
    data, model = str(sections["data"].get("name")), str(sections["model"].get("name"))
    origin = f"preset {preset}"
    if sections["threat"].get("norm", "linf") == "linf":
        _default(sections["threat"], _eps(preset, data), "threat.", origins, origin)
    if preset == "paper-code" and model.startswith("wrn"):
        _default(sections["model"], {"dropout": 0.3}, "model.", origins, origin)
    for i, stage in enumerate(stages):
        if isinstance(stage, dict):
            _default(stage, _of_stage(stage, preset, sections["data"], model), f"stage.{i}.", origins, origin)


def _default(table: Tables, defaults: Tables, prefix: str, origins: dict[str, str], origin: str) -> None:
    for key, value in defaults.items():
        if isinstance(value, dict):
            inner = table.setdefault(key, {})
            if isinstance(inner, dict):
                _default(inner, value, f"{prefix}{key}.", origins, origin)
        elif key not in table:
            table[key] = value
            origins[f"{prefix}{key}"] = origin


def _eps(preset: Preset, data: str) -> Tables:
    if data in _EPS:
        return {"eps": _EPS[data]}
    if preset == "paper-code":
        return {"eps": 0.03}
    return {"eps": "8/255"} if data in _SMALL_IMAGES else {}


def _of_stage(stage: Tables, preset: Preset, section: Tables, model: str) -> Tables:
    """The settings of a stage by what it does: train from new weights, play, go on training, evaluate."""
    kind, data = str(stage.get("kind")), str(section.get("name"))
    if kind == "game":
        return _game(preset, data, model)
    if kind == "evaluate":
        return _evaluate(stage, preset)
    if kind == "inoculate" or (kind == "train" and "start" in stage):
        return _further(kind, preset, data, model)
    if kind == "train":
        defence = DEFENCES.get(str(stage.get("defence")))
        plain = defence is not None and not defence.attacks
        short = data == "tiny-imagenet" and not plain
        schedule: Tables = {"epochs": 4, "warmup_epochs": 2} if short else {"epochs": 30, "warmup_epochs": 5}
        attacked = {} if plain else {"adversary": _adversary(data, "mixed")}
        rising = data == "imagenet" and not plain and "size" not in section
        ramp = {"resolution": [160, 192], "ramp": [18, 25]} if rising else {}
        return {**schedule, "batch_size": 128, "lr": 0.1, **attacked, **ramp}
    return {}


def _adversary(data: str, of_tiny: str) -> Tables:
    return {"attack": {"tiny-imagenet": of_tiny, "imagenet": "fgsm"}.get(data, "pgd")}


def _game(preset: Preset, data: str, model: str) -> Tables:
    adam: Tables = {"lr": 1e-4, "weight_decay": 1e-5, "amsgrad": True}
    if data in _EPS:
        adam |= {"weight_decay": 1e-4, "betas": [0.5, 0.999]}
    # On Tiny-ImageNet the paper's code plays with PGD-10, but with the mixed adversary on wide networks.
    adversary = _adversary(data, "mixed" if model.startswith("wrn") else "pgd")
    reused = {"reuse_epochs": 1} if preset == "paper-code" else {}
    return {"epochs": 10, "batch_size": 128, **adam, **reused, "adversary": adversary}


def _further(kind: str, preset: Preset, data: str, model: str) -> Tables:
    """A defence, with or without inoculation, from the adversarially trained network on."""
    found: Tables = {"epochs": 4, "warmup_epochs": 2, "batch_size": 64, "lr": 1e-3}
    found["adversary"] = _adversary(data, "fgsm")
    if kind == "inoculate":
        gamma = _GAMMA.get(data, {}).get(next((f for f in ("vgg", "resnet", "wrn") if f in model), ""))
        found["inversion_steps"] = 3 if data == "tiny-imagenet" else 10
        found |= {"gamma": gamma} if gamma is not None else {}
        found["features"] = "train" if preset == "paper-code" else "eval"
    return found


def _evaluate(stage: Tables, preset: Preset) -> Tables:
    attacks = stage.get("attacks")
    if preset == "standard":
        return {"attacks": [*_ATTACKS, "aa"]}
    whole = isinstance(attacks, list) and "aa-paper" in attacks  # 100 steps there, and 30 in columns of their own
    return {"attacks": _ATTACKS, "apgd_steps": 100 if whole else 30}
