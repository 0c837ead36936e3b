"""Reading and matching apart: tensors are found without a network, and fitted to any module without a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.checkpoints.foreign import Weights, find_weights, read
from engine.checkpoints.matching import fill
from engine.contract.errors import CheckpointError

NOWHERE = Path("x.pt")


def convolution(*, bias: bool) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3, bias=bias), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3)).eval()


@pytest.mark.parametrize(
    ("content", "preferred", "key"),
    [
        ({"w": torch.ones(1)}, "", ""),
        ({"epoch": 3, "state_dict": {"w": torch.ones(1)}}, "", "state_dict"),
        ({"state_dict": {"model": {"w": torch.ones(1)}}}, "", "model"),
        ({"net": {"w": torch.zeros(1)}, "z_net": {"w": torch.ones(1)}}, "z_net", "z_net"),
    ],
)
def test_weights_are_found_under_the_keys_of_wrappers(
    content: dict[str, object], preferred: str, key: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "x.pt")
    saved = read(tmp_path / "x.pt")
    weights = find_weights(saved, preferred)
    assert (weights.path, weights.key, weights.ordered) == (tmp_path / "x.pt", key, True)
    assert weights.tensors["w"].item() == 1.0
    assert saved.has(key) == bool(key and key != "model")
    assert not saved.has("epoch")


def test_safetensors_have_no_order(tmp_path: Path) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "x.safetensors")
    assert not find_weights(read(tmp_path / "x.safetensors")).ordered


@pytest.mark.parametrize("rename", [str, "module.{}".format, "_orig_mod.module.{}".format])
def test_a_module_takes_tensors_of_its_names(rename: Callable[[str], str]) -> None:
    theirs, ours = nn.Linear(2, 3), nn.Linear(2, 3)
    tensors = {rename(name): value for name, value in theirs.state_dict().items()}
    recognised = fill(ours, Weights(NOWHERE, tensors, ordered=False), in_order=False)
    assert recognised.words == ["2 tensors with the names of the network"]
    assert torch.equal(ours.weight, theirs.weight)


def under_other_names(network: nn.Module) -> dict[str, Tensor]:
    return {name.translate(str.maketrans("013", "abc")): value for name, value in network.state_dict().items()}


def test_a_module_takes_layers_in_order_and_a_bias_moves_into_batchnorm() -> None:
    theirs, ours = convolution(bias=True), convolution(bias=False)
    tensors = under_other_names(theirs)
    recognised = fill(ours, Weights(NOWHERE, tensors), in_order=True)
    assert recognised.words[-1] == "biases of 1 convolutions moved into the BatchNorm after each"
    assert not recognised.normalised
    x = torch.rand(4, 1, 3, 3)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    for weights, in_order in ((Weights(NOWHERE, tensors), False), (Weights(NOWHERE, tensors, ordered=False), True)):
        with pytest.raises(CheckpointError, match=r"x.pt: holds the weights of another network"):
            fill(ours, weights, in_order=in_order)
