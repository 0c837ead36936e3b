"""Foreign checkpoints in our format: the work of `cafe import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engine import data
from engine.checkpoints import foreign
from engine.checkpoints.matching import another_network
from engine.checkpoints.own import save_weights
from engine.contract.errors import CheckpointError, DiskError, UsageError
from engine.contract.profile.catalogue import DATA_FACTS
from engine.contract.profile.schema import Data
from engine.contract.weights import read_facts
from engine.models import build
from engine.models.base import Classifier, Inputs, Normalise, normalise_with
from engine.models.loading import PLAYERS, fill_from
from engine.models.treatment import build_treatment

TRIED = 8
"""Images, or features, of the forward pass."""
Constants = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation, one value a channel, of images in [0,1]."""


class Converted(NamedTuple):
    """Networks by the names they are written under, what is known of them, and what to tell the user."""

    networks: dict[str, nn.Module]
    facts: dict[str, Any]
    words: list[str]


def convert(
    path: Path, out: Path, *, model: str, data_name: str, kind: str | None = None, constants: Constants | None = None
) -> list[str]:
    """Write the weights of a file in our format, with facts, after a forward pass; returns what to tell the user.

    `kind` is classifier, hypothesis or test_function, by default what the file is seen to hold. `constants` go before
    what the file says. Raises CheckpointError for the file, UsageError for the options, DiskError.
    """
    _check_places(path, out)
    network = _network(model, data_name, constants)
    facts = _facts(path, model, data_name)
    saved = foreign.read(path)
    kind = kind or _kind(saved)
    if kind == "classifier":
        converted = _classifier(saved, network, data_name, constants)
        what_next = [f'next: cafe attack {out}    or in a profile: [model] checkpoint = "{out}"']
    else:
        converted = _players(saved, tuple(PLAYERS) if kind == "game" else (kind,), network, model)
        inoculates = "hypothesis" in converted.networks
        what_next = [f'next: [model] hypothesis = "{out}" in a profile that inoculates'] if inoculates else []
    try:
        save_weights(out, converted.networks, facts | converted.facts)
    except DiskError as error:
        raise DiskError(error.message, "Free some space, or name a file in another folder with --out.") from None
    return [*converted.words, f"written: {out}", *what_next]


def _check_places(path: Path, out: Path) -> None:
    """Raise UsageError where `out` cannot be written, or `path` need not be converted."""
    if out.exists():
        raise UsageError(f"{out} exists", "Name another file with --out.")
    if not out.parent.is_dir():
        raise UsageError(f"{out}: there is no folder {out.parent}", "Make it, or name another file with --out.")
    if path.is_file() and read_facts(path) is not None:
        raise UsageError(f"{path} is a checkpoint of ours already", f"`cafe attack {path}` takes it as it is.")


def _network(model: str, data_name: str, constants: Constants | None) -> nn.Module:
    """The network that the weights are for; without constants it takes images as they are. Raises UsageError."""
    images = DATA_FACTS[data_name]
    mean, std = constants or ((0.0,) * images.channels, (1.0,) * images.channels)
    try:
        inputs = Inputs(images.classes, images.channels, images.size, mean, std)
        return build(model, inputs, seed=0, folder=str(Path.cwd()))
    except ValueError as error:
        raise UsageError(f"{model} with images of {data_name}: {error}") from None


def _facts(path: Path, model: str, data_name: str) -> dict[str, Any]:
    images = DATA_FACTS[data_name]
    return {
        "model": model,
        "data": data_name,
        "classes": images.classes,
        "channels": images.channels,
        "size": images.size,
        "imported": path.name,
    }


def _kind(saved: foreign.Saved) -> str:
    """What a file holds, by its keys and names: classifier or game. Raises UsageError where one cannot tell."""
    if saved.has(*PLAYERS.values()):
        return "game"
    if any("decoder." in name for name in foreign.find_weights(saved).tensors):
        raise UsageError(
            f"{saved.path}: looks like a network of the game, and both have the same layers",
            "Say which it is: --kind hypothesis or --kind test_function.",
        )
    return "classifier"


def _classifier(saved: foreign.Saved, network: nn.Module, data_name: str, constants: Constants | None) -> Converted:
    """Fill the network and try it."""
    recognised = fill_from(saved, network, data_name=data_name)
    words = recognised.words
    normalise = next((module for module in network.modules() if isinstance(module, Normalise)), None)
    if constants:
        normalise_with(network, *constants)
        words.append("images normalised as --mean and --std say")
    elif not recognised.normalised and normalise is not None:
        source = data.read(Data(name=data_name))
        normalise_with(network, source.mean, source.std)
        words.append(f"images normalised by the statistics of {data_name}: the file has none")
    images = DATA_FACTS[data_name]
    shape = (images.channels, images.size, images.size)
    x = torch.rand((TRIED, *shape), generator=torch.Generator().manual_seed(0))
    _try(saved.path, network, x, (TRIED, images.classes))
    words.append(f"forward pass: finite logits of {images.classes} classes for images of {_by(shape)}")
    facts = {}
    if normalise is not None:
        facts = {"mean": normalise.mean.flatten().tolist(), "std": normalise.std.flatten().tolist()}
    return Converted({"classifier": network}, facts, words)


def _players(saved: foreign.Saved, players: tuple[str, ...], classifier: nn.Module, model: str) -> Converted:
    """Fill the networks of a game, which see features of the classifier `model`, and try them."""
    if not isinstance(classifier, Classifier):
        raise UsageError(f"{model} is not cut into features and head, so that no game is played on it")
    shape = classifier.feature_shape
    words: list[str] = []
    networks: dict[str, nn.Module] = {}
    for player in players:
        networks[player] = build_treatment(shape, seed=0)
        words += [f"{player}: {word}" for word in fill_from(saved, networks[player], player=player).words]
        features = torch.randn((TRIED, *shape), generator=torch.Generator().manual_seed(0))
        _try(saved.path, networks[player], features, features.shape)
    words.append(f"forward pass: finite, features of {_by(shape)} to features of {_by(shape)}")
    return Converted(networks, {"features": list(shape), "readings": {}}, words)


def _try(path: Path, network: nn.Module, x: Tensor, shape: tuple[int, ...]) -> None:
    """Raise CheckpointError unless the network answers x, in eval mode, with finite numbers of a shape."""
    with torch.no_grad():
        answer = network.eval()(x)
    if tuple(answer.shape) != tuple(shape):
        raise another_network(path, f"it answers with {tuple(answer.shape)}, not {tuple(shape)}")
    if not bool(answer.isfinite().all()):
        raise CheckpointError(f"{path}: a forward pass gives values that are not finite", "Did its training diverge?")


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
