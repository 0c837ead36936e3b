"""Files of other programs, made here in their naming: the same answers, or one clear message; nothing is executed."""

from __future__ import annotations

import argparse
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine.checkpoints import own as checkpoints
from engine.checkpoints.matching import by_layer
from engine.contract.errors import CheckpointError, UsageError
from engine.contract.weights import read_facts
from engine.convert import convert
from engine.models import build
from engine.models.base import Inputs, Normalise
from engine.models.loading import PUBLISHED, load_foreign
from engine.models.treatment import build_treatment

MEAN, STD = PUBLISHED["cifar10"]
CIFAR = Inputs(10, 3, 32, MEAN, STD)


def network(name: str) -> nn.Module:
    """One of ours with statistics that are not those of a new network."""
    made = build(name, CIFAR, seed=1)
    generator = torch.Generator().manual_seed(0)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            for buffer in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                buffer.copy_(1 + 0.1 * torch.randn(buffer.shape, generator=generator))  # type: ignore[union-attr]
    return made.eval()


def vgg_names(depth: int) -> Iterator[str]:
    """Those of the published code and of torchvision: layers of one sequence, then the classifier."""
    counts = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}[depth]
    place = 0
    for count in counts:
        for _ in range(count):
            yield from (f"features.{place}", f"features.{place + 1}")
            place += 3
        place += 1
    yield "classifier"


def resnet_names(shortcut: str, last: str) -> Iterator[str]:
    """ResNet-18: of the published code and torchvision (downsample, fc), and the other widespread ones."""
    yield from ("conv1", "bn1")
    for group in (1, 2, 3, 4):
        for block in (0, 1):
            start = f"layer{group}.{block}"
            yield from (f"{start}.{layer}" for layer in ("conv1", "bn1", "conv2", "bn2"))
            if group > 1 and not block:
                yield from (f"{start}.{shortcut}.0", f"{start}.{shortcut}.1")
    yield last


def wide_names() -> Iterator[str]:
    yield "conv1"
    for group in (1, 2, 3):
        for block in range(4):
            start = f"block{group}.layer.{block}"
            yield from (f"{start}.{layer}" for layer in ("bn1", "conv1", "bn2", "conv2"))
            if not block:
                yield f"{start}.convShortcut"
    yield from ("bn1", "fc")


def player_names() -> Iterator[str]:
    for half, layer in (("encoder", "conv"), ("decoder", "deconv")):
        yield from (f"{half}.{i}.{layer}.{j}" for i in range(3) for j in (0, 1))
        if half == "encoder":
            yield "linear.0"


def renamed(state: dict[str, Tensor], names: Iterator[str], *, bias: bool = False) -> dict[str, Tensor]:
    """The weights under other names; with a bias for every convolution, which BatchNorm takes away again."""
    out: dict[str, Tensor] = {}
    before, name, pending = "", "", None
    for key, value in state.items():
        layer, _, part = key.rpartition(".")
        if part in ("mean", "std"):
            continue
        if layer != before:
            before, name = layer, f"module.{next(names)}"
        if part == "running_mean" and pending is not None:
            value, pending = value + pending, None
        out[f"{name}.{part}"] = value
        if bias and part == "weight" and value.ndim == 4:
            pending = torch.linspace(-1, 1, len(value))
            out[f"{name}.bias"] = pending
    assert next(names, None) is None
    return out


def published(weights: dict[str, Tensor]) -> dict[str, object]:
    return {"net": weights, "acc": 51.2, "epoch": 3, "loss": torch.tensor(1.0), "args": argparse.Namespace(depth=16)}


@pytest.mark.parametrize(
    ("name", "names", "bias"),
    [
        ("vgg16", lambda: vgg_names(16), True),
        ("vgg11", lambda: vgg_names(11), False),
        ("resnet18", lambda: resnet_names("downsample", "fc"), False),
        ("resnet18", lambda: resnet_names("shortcut", "linear"), False),
        ("wrn-28-10", wide_names, False),
    ],
)
def test_classifiers_of_the_published_code_answer_as_there(
    name: str, names: Callable[[], Iterator[str]], bias: bool, tmp_path: Path
) -> None:
    theirs = network(name)
    torch.save(published(renamed(theirs.state_dict(), names(), bias=bias)), tmp_path / "best.t7")
    words = convert(tmp_path / "best.t7", tmp_path / "out.safetensors", model=name, data_name="cifar10")
    assert any("biases of" in word for word in words) == bias
    assert any("as by the published code" in word for word in words)
    assert any("forward pass: finite logits of 10 classes" in word for word in words)
    ours = build(name, Inputs(10, 3, 32, (0.0,) * 3, (1.0,) * 3), seed=2).eval()
    facts = checkpoints.load_weights(tmp_path / "out.safetensors", {"classifier": ours})
    assert facts["model"] == name
    assert facts["mean"] == pytest.approx(MEAN)
    assert read_facts(tmp_path / "out.safetensors") == facts
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), atol=1e-4, rtol=1e-4)


def test_the_players_of_a_game(tmp_path: Path) -> None:
    shape = (32, 4, 4)
    h, g = (build_treatment(shape, seed=seed).eval() for seed in (1, 2))
    saved = {"c_net": renamed(h.state_dict(), player_names()), "z_net": renamed(g.state_dict(), player_names())}
    torch.save(saved | {"epoch": 9}, tmp_path / "game.t7")
    out = tmp_path / "game.safetensors"
    words = convert(tmp_path / "game.t7", out, model="small", data_name="digits")
    assert any(word.startswith("hypothesis: 13 layers") for word in words)
    h2, g2 = (build_treatment(shape, seed=3).eval() for _ in range(2))
    facts = checkpoints.load_weights(out, {"hypothesis": h2, "test_function": g2})
    assert facts["features"] == [32, 4, 4]
    assert all(torch.equal(value, h2.state_dict()[key]) for key, value in h.state_dict().items())
    assert all(torch.equal(value, g2.state_dict()[key]) for key, value in g.state_dict().items())
    torch.save(saved["z_net"], tmp_path / "one.pt")
    with pytest.raises(UsageError, match="--kind hypothesis or --kind test_function"):
        convert(tmp_path / "one.pt", tmp_path / "one.safetensors", model="small", data_name="digits")
    with pytest.raises(CheckpointError, match=r"network has encoder.0 with bias 16"):
        load_foreign(tmp_path / "one.pt", build_treatment((16, 8, 8), seed=0))


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch exploded",)


def test_what_cannot_be_imported_is_one_message_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, out = tmp_path / "x.t7", tmp_path / "out.safetensors"
    whole = renamed(network("vgg11").state_dict(), vgg_names(11))

    def refused(saved: object, model: str = "vgg11", **options: object) -> str:
        if isinstance(saved, bytes):
            path.write_bytes(saved)
        else:
            torch.save(saved, path)
        with pytest.raises((CheckpointError, UsageError)) as caught:
            convert(path, out, model=model, data_name="cifar10", **options)  # type: ignore[arg-type]
        assert not out.exists()
        return str(caught.value)

    assert "without running code" in refused({"net": whole, "args": Bomb()})
    assert "without running code" in refused(path.read_bytes()[:1000])
    assert "holds no weights" in refused({"net": {}, "acc": 1.0})
    assert "another network" in refused(published(whole), model="resnet18")
    swapped = dict([*list(whole.items())[5:], *list(whole.items())[:5]])
    assert "where the network has features.1 with" in refused(swapped)
    assert "it has 5 tensors" in refused(dict(list(whole.items())[:5]))
    preact = network("preact-resnet18").state_dict()
    with_bias = renamed(preact, iter([f"layer{i}" for i in range(len(by_layer(preact)) - 1)]), bias=True)
    assert "layer0 has bias 64" in refused(with_bias, model="preact-resnet18"), "a shortcut reads it too"
    infinite = {key: value * torch.inf for key, value in whole.items()}
    assert "not finite" in refused(published(infinite))
    first, *_ = whole
    plain = "needed: plain tensors"
    assert f"{first} is sparse_coo; {plain}" in refused({**whole, first: whole[first].to_sparse()})
    assert f"{first} is a shape without values; {plain}" in refused({**whole, first: whole[first].to("meta")})
    assert "complex64 where the network has float32" in refused({**whole, first: whole[first] * 1j})
    assert "holds int8 where the network has float32" in refused({k: v.to(torch.int8) for k, v in whole.items()})
    torch.save(whole, path)
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle] ^= 1
    assert "damaged: the checksum of" in refused(bytes(damaged))
    with warnings.catch_warnings(action="error"):
        assert "without running code" in refused(pickle.dumps(Bomb()))
    assert "std: found 2 values" in refused(published(whole), constants=((0.5,) * 3, (0.5,) * 2))
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists"):
        convert(path, out, model="vgg11", data_name="cifar10")
    assert out.read_bytes() == b"mine"
    with pytest.raises(UsageError, match="there is no folder"):
        convert(path, tmp_path / "nowhere" / "x.safetensors", model="vgg11", data_name="cifar10")
    assert not (tmp_path / "exploded").exists()


def test_a_state_dict_without_constants_gets_those_that_are_given_or_of_the_data(tmp_path: Path) -> None:
    made = build("small", Inputs(10, 1, 8, (0.3,), (0.4,)), seed=1)
    torch.save({k: v for k, v in made.state_dict().items() if "mean" not in k or "running" in k}, tmp_path / "x.pt")
    for name, given, expected in (("a", None, 0.305), ("b", ((0.1,), (0.2,)), 0.1)):
        out = tmp_path / f"{name}.safetensors"
        convert(tmp_path / "x.pt", out, model="small", data_name="digits", constants=given)
        checkpoints.load_weights(tmp_path / f"{name}.safetensors", {"classifier": made})
        (normalise,) = (module for module in made.modules() if isinstance(module, Normalise))
        assert float(normalise.mean) == pytest.approx(expected, abs=0.01)
