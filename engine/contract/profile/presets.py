"""Named settings: defaults by data set and network, which a profile's own keys override.

`standard` holds sound settings, `paper-code` what the code of the CAFE authors does, its shortcuts included, and
`paper` that with what the text of the paper is quoted with. docs/profile.md says how they differ.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from engine.contract.profile.catalogue import DEFENCES, MODELS

Preset = Literal["standard", "paper-code", "paper"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
AS_PUBLISHED: tuple[Preset, ...] = ("paper-code", "paper")
"""Those that follow the published code."""
Tables = dict[str, Any]

_SMALL_IMAGES = ("cifar10", "cifar100", "svhn")
_EPS = {"tiny-imagenet": "4/255", "imagenet": "2/255"}
_GAMMA: dict[str, dict[str, float | str]] = {
    "cifar10": {"vgg": 0.03, "resnet": "4/255", "wrn": "2/255"},
    "cifar100": {"vgg": 0.03, "resnet": "4/255", "wrn": "2/255"},
    "svhn": {"vgg": "4/255", "resnet": "1/255", "wrn": "1/255"},
    "tiny-imagenet": {"vgg": "1/255", "resnet": "0.5/255", "wrn": "0.5/255"},
}
"""Radius of the causal inversion, by data set and family of the network."""
_LOW_MOMENTUM = 0.8
"""At the highest rate, where the paper's code lets the momentum cycle against it."""
_SIGNS = {
    "data": {"augment", "residency", "validation"},
    "train": {"adversary", "id", "momentum", "select"},
    "inoculate": {"adversary", "id", "momentum", "select"},
    "game": {"adversary", "bank", "id", "lambda"},
    "evaluate": {"checks", "fold", "id", "samples"},
}
"""By section or kind of stage, keys that all stand in the profile of a run, where nothing but an empty key is open."""
_LATER = {
    "border",
    "flip",
    "momentum_low",
    "invert_perturbed",
    "statistics",
    "apgd_dlr_restarts",
    "cw_random_start",
}
"""Keys that presets have filled since 0.1.0: a run of that release is without them, and goes on as it began."""
_ATTACKS = ["clean", "fgsm", "pgd", "cw", "apgd-ce", "apgd-dlr"]


def fill(tables: Tables, origins: dict[str, str]) -> None:
    """Add to the tables of a profile, in place, what its preset says and they do not; `origins` tells which keys."""
    given = tables.get("preset")
    preset = next((preset for preset in PRESETS if preset == given), None)
    if preset is None:
        return  # none, or a mistake that is told elsewhere
    sections = {key: tables.setdefault(key, {}) for key in ("data", "model", "threat")}
    stages = tables.get("stage")
    if not all(isinstance(section, dict) for section in sections.values()) or not isinstance(stages, list):
        return
    data, model = str(sections["data"].get("name")), str(sections["model"].get("name"))
    family = MODELS[model].family if model in MODELS else ""
    origin = f"preset {preset}"
    if sections["threat"].get("norm", "linf") == "linf":
        _default(sections["threat"], _eps(preset, data), "threat.", origins, origin)
    if preset in AS_PUBLISHED:
        if family == "wrn":
            _default(sections["model"], {"dropout": 0.3}, "model.", origins, origin)
        _default(sections["data"], _not_later(_augmentation(data), sections["data"], "data"), "data.", origins, origin)
    for i, stage in enumerate(stages):
        if isinstance(stage, dict):
            defaults = _not_later(_of_stage(stage, preset, sections["data"], family), stage, str(stage.get("kind")))
            _default(stage, defaults, f"stage.{i}.", origins, origin)


def _not_later(defaults: Tables, table: Tables, kind: str) -> Tables:
    """The defaults for a table, without the later ones where it stands in the profile of a run."""
    if not _SIGNS.get(kind, {"?"}) <= table.keys():
        return defaults
    return {key: value for key, value in defaults.items() if key not in _LATER}


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
    if preset == "paper":
        return {"eps": "8/255"}
    return {"eps": "8/255"} if data in _SMALL_IMAGES else {}


def _augmentation(data: str) -> Tables:
    """The code mirrors every data set that it knows, house numbers too, and fills borders with the mean colour."""
    return {"border": "mean"} | ({"flip": True} if data in (*_SMALL_IMAGES, *_EPS) else {})


def _of_stage(stage: Tables, preset: Preset, section: Tables, family: str) -> Tables:
    """The settings of a stage by what it does: train from new weights, play, go on training, evaluate."""
    kind, data = str(stage.get("kind")), str(section.get("name"))
    if kind == "game":
        return _game(preset, data, family)
    if kind == "evaluate":
        return _evaluate(stage, preset)
    if kind == "inoculate" or (kind == "train" and "start" in stage):
        return _further(kind, preset, data, family)
    if kind == "train":
        defence = DEFENCES.get(str(stage.get("defence")))
        plain = defence is not None and not defence.attacks
        short = data == "tiny-imagenet" and not plain
        schedule: Tables = {"epochs": 4, "warmup_epochs": 2} if short else {"epochs": 30, "warmup_epochs": 5}
        schedule |= _quoted(preset, data) if not plain else {}
        schedule |= _momentum(preset)
        attacked = {} if plain else {"adversary": _adversary(data, "mixed")}
        rising = data == "imagenet" and not plain and "size" not in section
        ramp = {"resolution": [160, 192], "ramp": [18, 25]} if rising else {}
        return {"batch_size": 128, "lr": 0.1, **schedule, **attacked, **ramp}
    return {}


def _quoted(preset: Preset, data: str) -> Tables:
    """What the paper's text is said to train for; of Tiny-ImageNet and ImageNet nothing is quoted."""
    return {"epochs": 120, "lr": 0.1} if preset == "paper" and data not in _EPS else {}


def _momentum(preset: Preset) -> Tables:
    return {} if preset == "standard" else {"momentum_low": _LOW_MOMENTUM}


def _adversary(data: str, of_tiny: str) -> Tables:
    return {"attack": {"tiny-imagenet": of_tiny, "imagenet": "fgsm"}.get(data, "pgd")}


def _game(preset: Preset, data: str, family: str) -> Tables:
    adam: Tables = {"lr": 1e-4, "weight_decay": 1e-5, "amsgrad": True}
    if data in _EPS:
        adam |= {"weight_decay": 1e-4, "betas": [0.5, 0.999], "amsgrad": preset == "standard"}
    # On Tiny-ImageNet the paper's code plays with PGD-10, but with the mixed adversary on wide networks.
    adversary = _adversary(data, "mixed" if family == "wrn" else "pgd")
    reused = {} if preset == "standard" else {"reuse_epochs": 1, "statistics": "both"}
    return {"epochs": 10, "batch_size": 128, **adam, **reused, "adversary": adversary}


def _further(kind: str, preset: Preset, data: str, family: str) -> Tables:
    """A defence, with or without inoculation, from the adversarially trained network on."""
    found: Tables = {"epochs": 4, "warmup_epochs": 2, "batch_size": 64, "lr": 1e-3}
    if quoted := _quoted(preset, data):
        found |= quoted | {"warmup_epochs": quoted["epochs"] / 2}
    found |= _momentum(preset)
    found["adversary"] = _adversary(data, "fgsm")
    if kind == "inoculate":
        gamma = _GAMMA.get(data, {}).get(family)
        found["inversion_steps"] = 3 if data == "tiny-imagenet" else 10
        found |= {"gamma": gamma} if gamma is not None else {}
        found |= {"features": "eval"} if preset not in AS_PUBLISHED else {"features": "train", "invert_perturbed": True}
    return found


def _evaluate(stage: Tables, preset: Preset) -> Tables:
    attacks = stage.get("attacks")
    if preset == "standard":
        return {"attacks": [*_ATTACKS, "aa"]}
    whole = isinstance(attacks, list) and "aa-paper" in attacks  # 100 steps there, and 30 in columns of their own
    budgets: Tables = {"apgd_steps": 100} if whole else {"apgd_steps": 30, "apgd_dlr_restarts": 2}
    return {"attacks": _ATTACKS, "cw_random_start": True, **budgets}
