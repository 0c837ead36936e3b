"""Weights that other programs have saved, into a network built here: read, matched, and its constants set."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from engine.checkpoints import foreign
from engine.checkpoints.matching import Recognised, fill
from engine.models.base import Classifier, normalise_with
from engine.models.treatment import Treatment

PLAYERS = {"hypothesis": "c_net", "test_function": "z_net"}
"""The networks of a game, and their keys in a file of the published code."""
CLASSIFIER = "net"
"""The key of a classifier there."""
PUBLISHED = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "svhn": ((0.43090966, 0.4302428, 0.44634357), (0.19759192, 0.20029082, 0.19811132)),
}
"""Mean and deviation that the published code normalises images with; others who save under `net` take the same."""


def load_foreign(path: Path, network: nn.Module, *, data_name: str = "", player: str = "") -> Recognised:
    """Fill a network from any file of weights: ours, another safetensors file, or a state dict saved by torch.

    See `fill_from`. Raises CheckpointError.
    """
    return fill_from(foreign.read(path), network, data_name=data_name, player=player)


def fill_from(saved: foreign.Saved, network: nn.Module, *, data_name: str = "", player: str = "") -> Recognised:
    """Fill a network from what another program has saved.

    Names may carry the prefixes that wrappers add. Where they are others than those of a network of ours, its layers
    and those of the file must be the same, with the same shapes, in the same order. The data's mean and deviation may
    be missing; then they stay, or become those of the published code for `data_name` if the file looks like one of it.
    `player` is the network of a game to take from a file of several.

    Raises CheckpointError.
    """
    weights = foreign.find_weights(saved, PLAYERS.get(player, ""))
    recognised = fill(network, weights, in_order=isinstance(network, Classifier | Treatment))
    if weights.key == CLASSIFIER and not recognised.normalised and data_name in PUBLISHED:
        normalise_with(network, *PUBLISHED[data_name])
        recognised.normalised = True
        recognised.words.append("images normalised as by the published code, which does not keep the constants")
    return recognised
