"""Weights that other programs have saved: read without running code, and matched to a network of ours.

Facts about files of the method's published code (github.com/ByungKwanLee/Causal-Adversarial-Instruments): a classifier
is saved by torch under `net`, a game as `c_net` (the hypothesis model) and `z_net` (the test function), each name after
`module.`, beside the options of the command as an argparse.Namespace; the constants that images are normalised with are
not in the file.
"""

from __future__ import annotations

import argparse
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from engine import data
from engine.checkpoints.own import save_weights
from engine.contract.errors import CheckpointError, DiskError, UsageError
from engine.contract.profile.catalogue import DATA_FACTS
from engine.contract.profile.schema import Data
from engine.contract.weights import read_facts
from engine.models import build
from engine.models.base import Classifier, Normalise
from engine.models.treatment import Treatment, build_treatment

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "ema")
"""Keys under which programs put the weights in a file of several things."""
PREFIXES = ("module.", "_orig_mod.", "model.", "classifier.", "network.")
"""What DataParallel, torch.compile and wrappers put before every name."""
PLAYERS = {"hypothesis": "c_net", "test_function": "z_net"}
"""The networks of a game, and their keys in a file of the published code."""
PUBLISHED = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "svhn": ((0.43090966, 0.4302428, 0.44634357), (0.19759192, 0.20029082, 0.19811132)),
}
"""Mean and deviation that the published code normalises images with; others who save under `net` take the same."""
TRIED = 8
"""Images of the forward pass."""


class Weights(NamedTuple):
    """Tensors by name. `key` is the one they were under, if any; `ordered` tells that they come layer after layer."""

    tensors: dict[str, Tensor]
    key: str = ""
    ordered: bool = True


@dataclass
class Recognised:
    """What was found out about a file, in words; `normalised` tells whether it decided mean and deviation."""

    words: list[str] = field(default_factory=list)
    normalised: bool = False


def load_foreign(path: Path, network: nn.Module, *, data_name: str = "", player: str = "") -> Recognised:
    """Fill a network from any file of weights: ours, another safetensors file, or a state dict saved by torch.

    Names may carry the prefixes that wrappers add. Where they are others than those of a network of ours, its layers
    and those of the file must be the same, with the same shapes, in the same order. The data's mean and deviation may
    be missing; then they stay, or become those of the published code for `data_name` if the file looks like one of it.
    `player` is the network of a game to take from a file of several. Nothing in the file is executed.

    Raises CheckpointError.
    """
    found = _weights(path, PLAYERS.get(player, ""))
    expected = network.state_dict()
    recognised = Recognised()
    for candidate in _renamed(found.tensors, expected):
        missing = [key for key in expected if key not in candidate and not key.endswith((".mean", ".std"))]
        wrong = [key for key in candidate if key not in expected or candidate[key].shape != expected[key].shape]
        if not missing and not wrong:
            _check_formats(path, candidate, expected)
            network.load_state_dict(candidate, strict=False)
            recognised.normalised = any(key.endswith(".mean") for key in candidate)
            recognised.words.append(f"{len(candidate)} tensors with the names of the network")
            break
    else:
        if not isinstance(network, Classifier | Treatment):
            raise _another(path, _first_difference(found.tensors, expected))
        recognised.words += _fill_in_order(path, found, network)
    if found.key == "net" and not recognised.normalised and data_name in PUBLISHED:
        normalise_with(network, *PUBLISHED[data_name])
        recognised.normalised = True
        recognised.words.append("images normalised as by the published code, which does not keep the constants")
    return recognised


def normalise_with(network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Make these constants, one of each for a channel, those that the network normalises images with."""
    for module in network.modules():
        if isinstance(module, Normalise):
            for buffer, values in ((module.mean, mean), (module.std, std)):
                buffer.copy_(torch.tensor(values).view(1, -1, 1, 1))


def convert(
    path: Path,
    out: Path,
    *,
    model: str,
    data_name: str,
    kind: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> list[str]:
    """Write the weights of a file in our format, with facts, after a forward pass; returns what to tell the user.

    `kind` is classifier, hypothesis or test_function, by default what the file is seen to hold. `mean` and `std`, one
    value a channel, go before what the file says. Raises CheckpointError for the file, UsageError for the options,
    DiskError.
    """
    if (mean is None) != (std is None):
        raise UsageError("--mean and --std go together", "Give one value a channel for both.")
    if out.exists():
        raise UsageError(f"{out} exists", "Name another file with --out.")
    if not out.parent.is_dir():
        raise UsageError(f"{out}: there is no folder {out.parent}", "Make it, or name another file with --out.")
    if path.is_file() and read_facts(path) is not None:
        raise UsageError(f"{path} is a checkpoint of ours already", f"`cafe attack {path}` takes it as it is.")
    images = DATA_FACTS[data_name]
    try:
        built = build(
            model,
            classes=images.classes,
            channels=images.channels,
            size=images.size,
            mean=mean or (0.0,) * images.channels,
            std=std or (1.0,) * images.channels,
            seed=0,
            folder=str(Path.cwd()),
        )
    except ValueError as error:
        raise UsageError(f"{model} with images of {data_name}: {error}") from None
    facts: dict[str, Any] = {
        "model": model,
        "data": data_name,
        "classes": images.classes,
        "channels": images.channels,
        "size": images.size,
        "imported": path.name,
    }
    seen = _kind(path) if kind is None else kind
    if seen == "classifier":
        words = _classifier(path, built, data_name, mean, std)
        normalise = next((m for m in built.modules() if isinstance(m, Normalise)), None)
        if normalise is not None:
            facts |= {"mean": normalise.mean.flatten().tolist(), "std": normalise.std.flatten().tolist()}
        _write(out, {"classifier": built}, facts)
        return [*words, f"written: {out}", f'next: cafe attack {out}    or in a profile: [model] checkpoint = "{out}"']
    if not isinstance(built, Classifier):
        raise UsageError(f"{model} is not cut into features and head, so that no game is played on it")
    players = tuple(PLAYERS) if seen == "game" else (seen,)
    words, networks = [], {}
    for player in players:
        networks[player] = build_treatment(built.feature_shape, seed=0)
        words += [f"{player}: {word}" for word in load_foreign(path, networks[player], player=player).words]
        with torch.no_grad():
            features = torch.randn(TRIED, *built.feature_shape, generator=torch.Generator().manual_seed(0))
            _check(path, networks[player].eval()(features), features.shape)
    shape = "x".join(map(str, built.feature_shape))
    words.append(f"forward pass: finite, features of {shape} to features of {shape}")
    _write(out, dict(networks), facts | {"features": list(built.feature_shape), "readings": {}})
    return [
        *words,
        f"written: {out}",
        *([f'next: [model] hypothesis = "{out}" in a profile that inoculates'] if "hypothesis" in networks else []),
    ]


def _write(out: Path, networks: dict[str, nn.Module], facts: dict[str, Any]) -> None:
    try:
        save_weights(out, networks, facts)
    except DiskError as error:
        raise DiskError(error.message, "Free some space, or name a file in another folder with --out.") from None


def _classifier(
    path: Path, network: nn.Module, data_name: str, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> list[str]:
    """Fill the network and try it."""
    recognised = load_foreign(path, network, data_name=data_name)
    if mean and std:
        normalise_with(network, mean, std)
        recognised.words.append("images normalised as --mean and --std say")
    elif not recognised.normalised and any(isinstance(module, Normalise) for module in network.modules()):
        source = data.read(Data(name=data_name))
        normalise_with(network, source.mean, source.std)
        recognised.words.append(f"images normalised by the statistics of {data_name}: the file has none")
    facts = DATA_FACTS[data_name]
    shape = (TRIED, facts.channels, facts.size, facts.size)
    with torch.no_grad():
        z = network.eval()(torch.rand(shape, generator=torch.Generator().manual_seed(0)))
    _check(path, z, (TRIED, facts.classes))
    image = "x".join(map(str, shape[1:]))
    return [*recognised.words, f"forward pass: finite logits of {facts.classes} classes for images of {image}"]


def _check(path: Path, answer: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(answer.shape) != tuple(shape):
        raise _another(path, f"it answers with {tuple(answer.shape)}, not {tuple(shape)}")
    if not bool(answer.isfinite().all()):
        raise CheckpointError(f"{path}: a forward pass gives values that are not finite", "Did its training diverge?")


# --- reading ---------------------------------------------------------------------------------------------------------


def _opened(path: Path) -> tuple[Any, bool]:
    """What torch or safetensors has saved in a file, and whether its tensors are in the order of the layers."""
    if not path.is_file():
        raise CheckpointError(f"checkpoint not found: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, False  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError):
        pass
    try:
        _check_sums(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings(action="ignore"):
            # a Namespace is a bag of values, which runs nothing; torch warns of files that are no checkpoints
            return torch.load(path, map_location="cpu", weights_only=True), True
    except CheckpointError:
        raise
    except Exception as error:  # torch raises many kinds for one meaning
        raise CheckpointError(
            f"{path}: neither a safetensors file nor a state dict that can be read without running code "
            f"({type(error).__name__})",
            "Save the weights alone: torch.save(network.state_dict(), FILE).",
        ) from None


def _check_sums(path: Path) -> None:
    """Raise CheckpointError where a part of a zip file, as torch writes, is not as it was written.

    torch writes the checksums but does not look at them when it reads.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as members:
            damaged = members.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path}: damaged: the checksum of {damaged} in it is wrong", "Fetch it again.")


def _weights(path: Path, key: str = "") -> Weights:
    """The tensors of a file, those under `key` if it has it. Raises CheckpointError."""
    saved, ordered = _opened(path)
    wanted, key = (key, *WRAPPERS), ""
    for _ in range(3):
        inner = next((w for w in wanted if isinstance(saved, dict) and isinstance(saved.get(w), dict)), None)
        if inner is None:
            break
        saved, key = saved[inner], inner
    tensors = {str(k): v for k, v in saved.items() if isinstance(v, Tensor)} if isinstance(saved, dict) else {}
    if not tensors:
        raise CheckpointError(
            f"{path}: holds no weights", f"Looked for a state dict, also under {', '.join(WRAPPERS)}."
        )
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_meta:
            kind = "a shape without values" if value.is_meta else f"{value.layout}".removeprefix("torch.")
            raise CheckpointError(
                f"{path}: {name} is {kind}; needed: plain tensors", "Save the values themselves, dense."
            )
    return Weights(tensors, key, ordered)


def _kind(path: Path) -> str:
    """What a file holds, by its keys and shapes: classifier or game. Raises UsageError where one cannot tell."""
    saved, _ = _opened(path)
    if isinstance(saved, dict) and all(isinstance(saved.get(key), dict) for key in PLAYERS.values()):
        return "game"
    if any("decoder." in name for name in _weights(path).tensors):
        raise UsageError(
            f"{path}: looks like a network of the game, and both have the same layers",
            "Say which it is: --kind hypothesis or --kind test_function.",
        )
    return "classifier"


def _check_formats(path: Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise CheckpointError where whole or complex numbers are found for floating ones. (Counters may be floating.)"""
    for name, value in found.items():
        if expected[name].is_floating_point() and not value.is_floating_point():
            kinds = (f"{tensor.dtype}".removeprefix("torch.") for tensor in (value, expected[name]))
            raise CheckpointError(
                f"{path}: holds {' where the network has '.join(kinds)}: {name}",
                "Save the weights as floating numbers.",
            )


# --- matching --------------------------------------------------------------------------------------------------------


def _renamed(found: dict[str, Tensor], expected: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The tensors under the names that the network may know them by."""
    names = found
    for _ in range(4):
        yield names
        for inner in {key.split(".", 1)[0] for key in expected if "." in key}:  # the network wraps what the file holds
            yield {f"{inner}.{key}": value for key, value in names.items()}
        prefix = next((p for p in PREFIXES if all(key.startswith(p) for key in names)), None)
        if prefix is None:
            return
        names = {key.removeprefix(prefix): value for key, value in names.items()}


def _fill_in_order(path: Path, found: Weights, network: nn.Module) -> list[str]:
    """Fill a network of ours layer by layer.

    A bias that ours has no place for, because BatchNorm follows and takes the mean away, is moved into that mean.
    """
    theirs, ours = _layers(found.tensors), _layers(network.state_dict())
    ours = {name: tensors for name, tensors in ours.items() if tensors.keys() != {"mean", "std"}}
    if not found.ordered or len(theirs) != len(ours):
        raise _another(path, _first_difference(found.tensors, network.state_dict()))
    filled: dict[str, Tensor] = {}
    moved: dict[str, Tensor] = {}
    norms = _norm_after(network)
    for (name, layer), (own_name, own) in zip(theirs.items(), ours.items(), strict=True):
        layer = {"num_batches_tracked": torch.tensor(0)} | layer if "num_batches_tracked" in own else dict(layer)
        if layer.keys() - own.keys() == {"bias"} and own_name in norms:
            moved[norms[own_name]] = layer.pop("bias")
        if own_name in moved and "running_mean" in layer and layer["running_mean"].shape == moved[own_name].shape:
            layer["running_mean"] = layer["running_mean"] - moved[own_name]
        shapes, own_shapes = ({k: tuple(v.shape) for k, v in each.items()} for each in (layer, own))
        if shapes != own_shapes:
            raise _another(
                path, f"{name} has {_told(shapes)} where the network has {own_name} with {_told(own_shapes)}"
            )
        filled |= {f"{own_name}.{key}": value for key, value in layer.items()}
    _check_formats(path, filled, network.state_dict())
    network.load_state_dict(filled, strict=False)
    words = [f"{len(ours)} layers with weights, the same as those of the network, in order, from {next(iter(theirs))}"]
    if moved:
        words.append(f"biases of {len(moved)} convolutions moved into the BatchNorm after each")
    return words


def _layers(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors of each layer, layers in the order in which they first appear."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        layer, _, key = name.rpartition(".")
        layers.setdefault(layer, {})[key] = value
    return layers


def _norm_after(network: nn.Module) -> dict[str, str]:
    """Names of the convolutions that nothing but a BatchNorm reads, and of that BatchNorm."""
    pairs = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Sequential):
            inside = [(f"{name}.{key}" if name else key, child) for key, child in module.named_children()]
            for (first, before), (second, after) in pairwise(inside):
                if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                    pairs[first] = second
    return pairs


def _told(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{key} {'x'.join(map(str, shape)) or 'number'}" for key, shape in sorted(shapes.items()))


def _first_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    shapes = [key for key in found if key in expected and found[key].shape != expected[key].shape]
    first = next((key for key in (*shapes, *expected) if key not in found or key in shapes), "")
    if first in found:
        return f"{first} has shape {tuple(found[first].shape)}, the network {tuple(expected[first].shape)}"
    return f"it has {len(found)} tensors, the network {len(expected)}, and no {first}"


def _another(path: Path, detail: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: holds the weights of another network: {detail}",
        "Name its network: --model NAME, or model.name in a profile.",
    )
