"""Tensors of another program to the layers of a network: by name, or layer by layer in order.

Nothing here knows a file format or one of our networks by its class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.checkpoints.foreign import Weights
from engine.contract.errors import CheckpointError

PREFIXES = ("module.", "_orig_mod.", "model.", "classifier.", "network.")
"""What DataParallel, torch.compile and wrappers put before every name."""
RENAMINGS = 4
"""Prefixes inside each other that are taken off, less one."""
Layer = dict[str, Tensor]
"""The tensors of a layer by the last part of their names: weight, bias, running_mean, ..."""
CONSTANTS = {"mean", "std"}
"""The tensors of the layer that normalises images; a file may lack it."""


@dataclass
class Recognised:
    """What was found out about a file, in words; `normalised` tells whether it decided mean and deviation."""

    words: list[str] = field(default_factory=list)
    normalised: bool = False


def fill(network: nn.Module, weights: Weights, *, in_order: bool) -> Recognised:
    """Fill a network. Names may carry the prefixes that wrappers add; mean and deviation may be missing.

    Where names are others, and only with `in_order`, the layers of the network and those of the weights must be the
    same, with the same shapes, in the same order. Raises CheckpointError.
    """
    expected = network.state_dict()
    for candidate in _renamed(weights.tensors, expected):
        if _fits(candidate, expected):
            _check_dtypes(weights, candidate, expected)
            network.load_state_dict(candidate, strict=False)
            return Recognised(
                [f"{len(candidate)} tensors with the names of the network"],
                normalised=any(name.endswith(".mean") for name in candidate),
            )
    if not in_order:
        raise another_network(weights.path, _first_difference(weights.tensors, expected))
    return Recognised(_fill_in_order(network, weights))


def another_network(path: Path, detail: str) -> CheckpointError:
    """The error of weights that do not belong to the network."""
    return CheckpointError(
        f"{path}: holds the weights of another network: {detail}",
        "Name its network: --model NAME, or model.name in a profile.",
    )


def _renamed(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The tensors under the names that the network may know them by."""
    inners = {name.split(".", 1)[0] for name in expected if "." in name}
    for _ in range(RENAMINGS):
        yield tensors
        for inner in inners:  # the network wraps what the file holds
            yield {f"{inner}.{name}": value for name, value in tensors.items()}
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None)
        if prefix is None:
            return
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}


def _fits(candidate: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """Whether names and shapes are those of the network, which may have mean and deviation beside them."""
    missing = [name for name in expected.keys() - candidate.keys() if not name.endswith((".mean", ".std"))]
    wrong = [name for name, value in candidate.items() if name not in expected or value.shape != expected[name].shape]
    return not missing and not wrong


def _check_dtypes(weights: Weights, tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise CheckpointError where whole or complex numbers come for floating ones. (Counters may be floating.)"""
    for name, value in tensors.items():
        if expected[name].is_floating_point() and not value.is_floating_point():
            kinds = (f"{tensor.dtype}".removeprefix("torch.") for tensor in (value, expected[name]))
            raise CheckpointError(
                f"{weights.path}: holds {' where the network has '.join(kinds)}: {name}",
                "Save the weights as floating numbers.",
            )


def _fill_in_order(network: nn.Module, weights: Weights) -> list[str]:
    """Fill a network layer by layer; returns what was done, in words.

    A bias that the network has no place for, because BatchNorm follows and takes the mean away, is moved into that
    mean.
    """
    expected = network.state_dict()
    theirs, ours = by_layer(weights.tensors), by_layer(expected)
    ours = {name: layer for name, layer in ours.items() if layer.keys() != CONSTANTS}
    if not weights.ordered or len(theirs) != len(ours):
        raise another_network(weights.path, _first_difference(weights.tensors, expected))
    filled: dict[str, Tensor] = {}
    moved: dict[str, Tensor] = {}  # biases by the BatchNorm that takes them
    norms = _norm_after(network)
    for (name, layer), (own_name, own) in zip(theirs.items(), ours.items(), strict=True):
        layer = dict(layer)
        if "num_batches_tracked" in own:
            layer.setdefault("num_batches_tracked", torch.tensor(0))
        if own_name in norms and layer.keys() - own.keys() == {"bias"}:
            moved[norms[own_name]] = layer.pop("bias")
        if own_name in moved:
            _shift_mean(layer, moved[own_name])
        shapes, own_shapes = _shapes(layer), _shapes(own)
        if shapes != own_shapes:
            detail = f"{name} has {_in_words(shapes)} where the network has {own_name} with {_in_words(own_shapes)}"
            raise another_network(weights.path, detail)
        filled |= {f"{own_name}.{part}": value for part, value in layer.items()}
    _check_dtypes(weights, filled, expected)
    network.load_state_dict(filled, strict=False)
    words = [f"{len(ours)} layers with weights, the same as those of the network, in order, from {next(iter(theirs))}"]
    if moved:
        words.append(f"biases of {len(moved)} convolutions moved into the BatchNorm after each")
    return words


def by_layer(tensors: dict[str, Tensor]) -> dict[str, Layer]:
    """The tensors of each layer, layers in the order in which they first appear."""
    layers: dict[str, Layer] = {}
    for name, value in tensors.items():
        layer, _, part = name.rpartition(".")
        layers.setdefault(layer, {})[part] = value
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


def _shift_mean(norm: Layer, bias: Tensor) -> None:
    """Let a BatchNorm see its input without a bias (C,) that was added to it before."""
    if "running_mean" in norm and norm["running_mean"].shape == bias.shape:
        norm["running_mean"] = norm["running_mean"] - bias


def _shapes(layer: Layer) -> dict[str, tuple[int, ...]]:
    return {part: tuple(value.shape) for part, value in layer.items()}


def _in_words(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{part} {'x'.join(map(str, shape)) or 'number'}" for part, shape in sorted(shapes.items()))


def _first_difference(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    misshapen = [name for name in tensors if name in expected and tensors[name].shape != expected[name].shape]
    first = next((name for name in (*misshapen, *expected) if name not in tensors or name in misshapen), "")
    if first in tensors:
        return f"{first} has shape {tuple(tensors[first].shape)}, the network {tuple(expected[first].shape)}"
    return f"it has {len(tensors)} tensors, the network {len(expected)}, and no {first}"
