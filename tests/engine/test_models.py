"""The classifiers and the networks of the game: shapes, sizes, weights, and what the two halves promise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from engine import distributed
from engine.contract.errors import UsageError
from engine.contract.profile.catalogue import smallest_image
from engine.models import MODELS, build, conv_by_matmul, synced
from engine.models.base import Classifier, Inputs
from engine.models.folding import folded
from engine.models.treatment import Treatment, build_treatment

NAMES = list(MODELS)
ONE_OF_EACH = ["small", "vgg11", "resnet18", "resnet50", "preact-resnet18", "wrn-28-10"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Layers this small gain nothing from a second thread, and wait for it where other programs keep the cores busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def made(
    name: str, *, size: int = 32, classes: int = 10, channels: int = 3, seed: int = 0, **options: float
) -> Classifier:
    mean, std = (tuple(first + 0.1 * i for i in range(channels)) for first in (0.4, 0.2))
    return build(name, Inputs(classes, channels, size, mean, std), seed=seed, **options)


def outline(name: str, *, size: int = 32, classes: int = 10) -> Classifier:
    """The network on the meta device: shapes and counts only."""
    with torch.device("meta"):
        return MODELS[name](Inputs(classes, 3, size, (0.5,) * 3, (0.2,) * 3))


@cache
def tiny(name: str) -> Classifier:
    """A network for the smallest images that it takes, in eval mode, with the BatchNorm of one that has learnt."""
    model = made(name, size=smallest_image(name))
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for statistic in (module.running_mean, module.bias.data):
                statistic.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval().requires_grad_(False)


def images(model: Classifier, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, model.channels, model.size, model.size, generator=generator)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


CUTS = {
    "small": (32, 4),
    "vgg11": (512, 2),
    "vgg13": (512, 2),
    "vgg16": (512, 2),
    "vgg19": (512, 2),
    "resnet18": (512, 4),
    "resnet34": (512, 4),
    "resnet50": (2048, 4),
    "preact-resnet18": (512, 4),
    "wrn-28-10": (640, 8),
    "wrn-34-10": (640, 8),
}
"""Channels and side of the features, for images of 32x32."""


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("size", [32, 64])
def test_cut_and_logits_have_the_shapes_of_the_paper(name: str, size: int) -> None:
    model = outline(name, size=size)
    c, side = CUTS[name]
    side = side if name == "small" else side * size // 32
    x = torch.empty(5, 3, size, size, device="meta")
    assert model.feature_shape == (c, side, side)
    assert model.features(x).shape == (5, c, side, side)
    assert model(x).shape == (5, 10)
    assert (model.classes, model.channels, model.size) == (10, 3, size)


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_image_fits(name: str) -> None:
    size = smallest_image(name)
    model = outline(name, size=size)
    assert model(torch.empty(2, 3, size, size, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("size", [8, 9, 16, 28, 31, 32, 48, 64])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_small_fits_any_small_image(size: int, channels: int) -> None:
    model = made("small", size=size, channels=channels)
    assert model(images(model)).shape == (3, 10)
    assert model.feature_shape[0] == 32
    assert 4 <= model.feature_shape[1] <= 8


@pytest.mark.parametrize(
    ("name", "count"),
    [  # the counts that are commonly reported for CIFAR-10
        ("resnet18", 11_173_962),
        ("resnet34", 21_282_122),
        ("resnet50", 23_520_842),
        ("preact-resnet18", 11_171_146 + 2 * 512),  # often reported without the final BatchNorm of the paper
        ("wrn-28-10", 36_479_194),
        ("wrn-34-10", 46_160_474),
    ],
)
def test_parameters_of_residual_networks(name: str, count: int) -> None:
    assert parameters(outline(name)) == count


@pytest.mark.parametrize(("name", "count"), [("resnet18", 11_689_512), ("resnet50", 25_557_032)])
def test_large_images_get_the_network_of_imagenet(name: str, count: int) -> None:
    model = outline(name, size=224, classes=1000)
    assert parameters(model) == count
    assert model.feature_shape[1:] == (7, 7)
    assert outline(name, size=128).feature_shape[1:] == (4, 4)


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("vgg11", [64, 128, 256, 256, 512, 512, 512, 512]),
        ("vgg13", [64, 64, 128, 128, 256, 256, 512, 512, 512, 512]),
        ("vgg16", [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6),
        ("vgg19", [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8),
    ],
)
def test_parameters_of_vgg(name: str, widths: list[int]) -> None:
    kernels = sum(9 * before * after for before, after in zip([3, *widths], widths, strict=False))
    assert parameters(outline(name)) == kernels + 2 * sum(widths) + 512 * 10 + 10
    model = outline(name)
    assert isinstance(list(model.features.children())[-1], nn.BatchNorm2d)
    assert [type(layer) for layer in model.head.children()][:2] == [nn.ReLU, nn.MaxPool2d]


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_forward_is_head_of_features_and_the_head_leaves_them_alone(name: str) -> None:
    model = tiny(name)
    x = images(model)
    features = model.features(x)
    kept = features.clone()
    logits = model.head(features)
    assert torch.equal(features, kept)
    assert torch.equal(model.head(features), logits)
    assert torch.equal(model(x), logits)
    assert logits.isfinite().all()
    assert not torch.equal(logits[0], logits[1])
    leaf = kept.requires_grad_()  # writing to a leaf would raise
    model.head(leaf).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_an_image_is_judged_alone_in_eval_mode(name: str) -> None:
    model = tiny(name)
    x = images(model)
    other = x.clone()
    other[1:] = 1 - other[1:]
    torch.testing.assert_close(model(other)[0], model(x)[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(x[:1])[0], model(x)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "preact-resnet18", "wrn-28-10"])
def test_a_linear_head_sees_channel_means_only(name: str) -> None:
    model = tiny(name)
    features = torch.randn(4, *model.feature_shape[:1], 5, 5)
    means = features.mean((2, 3), keepdim=True)
    torch.testing.assert_close(model.head(features), model.head(means), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["preact-resnet18", "wrn-28-10", "resnet18"])
def test_residual_cuts_come_after_a_relu(name: str) -> None:
    assert (tiny(name).features(images(tiny(name))) >= 0).all()


def test_normalisation_travels_in_the_state_dict() -> None:
    model, other = made("small"), build("small", Inputs(10, 3, 32, (0,) * 3, (1,) * 3), seed=1)
    x = images(model)
    torch.testing.assert_close(
        next(model.features.children())(x),
        (x - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1),
    )
    assert {key for key in model.state_dict() if key.endswith((".mean", ".std"))} == {
        "features.0.mean",
        "features.0.std",
    }
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(x), model.eval()(x))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_weights_are_a_function_of_the_seed_and_building_leaves_no_trace(name: str) -> None:
    size = smallest_image(name)
    torch.manual_seed(5)
    first = made(name, size=size, seed=3)
    before = torch.random.get_rng_state()
    torch.rand(7)
    state = torch.random.get_rng_state()
    second = made(name, size=size, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(before, state)
    assert first.training
    assert all(module.training for module in first.modules())
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
        if key.endswith(("running_mean", "num_batches_tracked")):
            assert not value.any(), key
        if key.endswith("running_var"):
            assert (value == 1).all(), key
    third = made(name, size=size, seed=4)
    assert not torch.equal(first.state_dict()["features.1.weight"], third.state_dict()["features.1.weight"])


def test_the_size_of_the_images_does_not_change_the_weights() -> None:
    a, b = made("wrn-28-10", size=8).state_dict(), made("wrn-28-10", size=16).state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_initial_weights_have_the_spread_of_he(name: str) -> None:
    for module in made(name, size=smallest_image(name)).modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (module.out_channels * module.kernel_size[0] * module.kernel_size[1]))
            assert module.bias is None
        elif isinstance(module, nn.Linear):
            expected = math.sqrt(1 / (3 * module.in_features))
            assert not module.bias.any()
        else:
            continue
        tolerance = 5 / math.sqrt(2 * module.weight.numel())  # five standard errors
        assert module.weight.std().item() == pytest.approx(expected, rel=tolerance)


def test_dropout_acts_in_training_only_and_adds_no_tensors() -> None:
    plain, dropped = made("wrn-28-10", size=8), made("wrn-28-10", size=8, dropout=0.3)
    assert not [module for module in plain.modules() if isinstance(module, nn.Dropout)]
    assert len([module for module in dropped.modules() if isinstance(module, nn.Dropout)]) == 12
    assert plain.state_dict().keys() == dropped.state_dict().keys()
    x = images(plain)
    with torch.no_grad():
        assert torch.equal(plain.eval()(x), dropped.eval()(x))
        assert torch.equal(plain.train()(x), plain(x))
        assert not torch.equal(dropped.train()(x), dropped(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "resnet-18"}, "found 'resnet-18'; did you mean resnet18"),
        ({"name": "???"}, "found '\\?\\?\\?'; allowed: small, vgg11"),
        ({"classes": 1}, "classes: found 1; .* at least 2"),
        ({"channels": 0}, "channels: found 0; .* at least 1"),
        ({"size": 7}, "size: found 7; small needs images of at least 8x8"),
        ({"name": "vgg11", "size": 31}, "size: found 31; vgg11 needs images of at least 32x32"),
        ({"mean": (0.5,)}, "mean: found 1 values; 3 are needed"),
        ({"std": (0.5,) * 4}, "std: found 4 values; 3 are needed"),
        ({"std": (0.5, 0.0, 0.5)}, "std: found .*; every value must be greater than 0"),
        ({"std": (0.5, math.nan, 0.5)}, "std: found .*; every value must be greater than 0"),
        ({"name": "wrn-28-10", "dropout": 1.0}, "dropout: found 1.0; allowed: 0 or more, and less than 1"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_sentence(change: dict[str, object], message: str) -> None:
    inputs = {"classes": 10, "channels": 3, "size": 32, "mean": (0.5,) * 3, "std": (0.2,) * 3}
    inputs |= {key: value for key, value in change.items() if key in inputs}
    options = {key: value for key, value in change.items() if key not in inputs}
    with pytest.raises(ValueError, match=message) as caught:
        build(**{"name": "small", "inputs": Inputs(**inputs), "seed": 0, **options})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("c", "count"), [(512, 19_934_720), (640, 31_144_320)])
def test_parameters_of_the_game_networks(c: int, count: int) -> None:
    with torch.device("meta"):
        assert parameters(Treatment(c)) == count


@pytest.mark.parametrize("shape", [(16, 2, 2), (16, 4, 4), (8, 8, 8), (8, 3, 5)])
def test_a_treatment_has_the_shape_of_the_features(shape: tuple[int, int, int]) -> None:
    network = build_treatment(shape, 0)
    w = torch.randn(3, *shape, requires_grad=True)
    treatment = network(w)
    assert treatment.shape == w.shape
    assert (treatment < 0).float().mean() > 0.3  # the last layer has no activation
    treatment.square().sum().backward()
    assert w.grad is not None
    assert w.grad.abs().sum() > 0


def test_a_treatment_decodes_one_vector_repeated_at_every_position() -> None:
    network = build_treatment((4, 9, 9), 0).eval()
    with torch.no_grad():
        treatment = network(torch.randn(2, 4, 9, 9))
    # Three 3x3 kernels reach three pixels: no farther does the border make positions differ.
    inner = treatment[:, :, 3:-3, 3:-3]
    torch.testing.assert_close(inner, inner[:, :, :1, :1].expand_as(inner))
    assert (treatment[:, :, 0, 0] - treatment[:, :, 4, 4]).abs().amax() > 1e-3


MAPS = [(1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (4, 4), (1, 16), (5, 5)]


@pytest.mark.parametrize("shape", MAPS, ids=str)
@pytest.mark.parametrize("by_taps", [False, True])
@pytest.mark.parametrize("kind", [conv_by_matmul.Conv3x3, conv_by_matmul.Deconv3x3])
def test_convolutions_of_small_maps_are_those_of_torch(
    kind: type[conv_by_matmul.Conv3x3 | conv_by_matmul.Deconv3x3], by_taps: bool, shape: tuple[int, int]
) -> None:
    mine = kind(3, 5).double()
    stock = (nn.Conv2d if kind is conv_by_matmul.Conv3x3 else nn.ConvTranspose2d)(3, 5, 3, padding=1).double()
    stock.load_state_dict(mine.state_dict())
    if by_taps:
        conv_by_matmul.by_taps(mine)
    x = torch.randn(4, 3, *shape, dtype=torch.double, requires_grad=True)
    gradient = torch.randn(4, 5, *shape, dtype=torch.double)
    found, expected = (
        [layer(x), *torch.autograd.grad(layer(x), [x, *layer.parameters()], gradient)] for layer in (mine, stock)
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    if by_taps and conv_by_matmul.suits(x):
        assert mine.weight.stride() == found[2].stride(), "the optimiser finds both in one layout"


@pytest.mark.parametrize("shape", [*MAPS, (9, 7)], ids=str)
@pytest.mark.parametrize("count", [4, 0])
def test_a_deconvolution_of_constant_maps_is_that_of_torch(shape: tuple[int, int], count: int) -> None:
    layer = conv_by_matmul.Deconv3x3(3, 5).double()
    stock = nn.ConvTranspose2d(3, 5, 3, padding=1).double()
    stock.load_state_dict(layer.state_dict())
    summary = torch.randn(count, 3, dtype=torch.double, requires_grad=True)
    found, expected = layer.of_constant(summary, *shape), stock(summary[:, :, None, None].expand(-1, -1, *shape))
    torch.testing.assert_close(found, expected)
    slopes = torch.autograd.grad(found.square().sum(), [summary, layer.weight])
    for a, b in zip(slopes, torch.autograd.grad(expected.square().sum(), [summary, stock.weight]), strict=True):
        torch.testing.assert_close(a, b)


def test_a_folded_network_with_small_maps_answers_alike_in_another_layout() -> None:
    network = tiny("vgg11")
    x = torch.rand(3, 3, 32, 32)
    fast = folded(network, x, channels_last=True)
    assert fast is not None
    assert (
        sum(isinstance(layer, conv_by_matmul.Conv3x3) for layer in fast.modules()) == 4
    )  # 512 channels at 4x4 and 2x2
    z, gradient = answer_and_slope(network, x)
    z_fast, gradient_fast = answer_and_slope(fast, x)
    torch.testing.assert_close(z_fast, z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient_fast, gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item())
    order = torch.tensor([2, 0, 1])
    for found, expected in zip(answer_and_slope(fast, x[order]), (z_fast, gradient_fast), strict=True):
        assert torch.equal(found, expected[order]), "an answer depends on the image's place in the batch"


def answer_and_slope(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    z = network(x)
    return z.detach(), torch.autograd.grad(z.logsumexp(1).sum(), x)[0]


def test_initial_weights_reach_every_layer_of_a_treatment() -> None:
    network = build_treatment((64, 2, 2), 0)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    assert len(layers) == 7
    for layer, inputs in zip(layers, [9 * 64, 9 * 64, 9 * 64, 128, 9 * 128, 9 * 64, 9 * 64], strict=True):
        assert layer.bias is not None
        assert not layer.bias.any()
        tolerance = 5 / math.sqrt(2 * layer.weight.numel())
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (1.04 * inputs)), rel=tolerance)


def test_treatments_are_a_function_of_the_seed_and_building_leaves_no_trace() -> None:
    state = torch.random.get_rng_state()
    h, again, g = (build_treatment((8, 2, 2), seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in h.state_dict().items())
    assert not torch.equal(h.linear.weight, g.linear.weight)
    assert h.training


def test_every_batchnorm_is_synchronised_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world", lambda: 2)
    network = nn.Sequential(
        nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(12), nn.Unflatten(1, (4, 3)), nn.BatchNorm1d(4)
    )
    stock = deepcopy(network)
    assert [type(layer).__name__ for layer in synced.synchronised(network)][::2] == [
        "SyncedBatchNorm2d",
        "SyncedBatchNorm1d",
        "SyncedBatchNorm1d",
    ]
    synced.synchronised(network)  # as for a second stage
    with monkeypatch.context() as alone:
        alone.setattr(distributed, "world", lambda: 1)
        x = torch.randn(5, 3, 2, 2)
        torch.testing.assert_close(network(x), stock(x), rtol=1e-4, atol=1e-4)

    class Other(nn.BatchNorm2d):
        pass

    for layer in (Other(3), nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, momentum=None)):
        with pytest.raises(UsageError, match=r"0\.0 of the network is a \w+ that cannot") as refusal:
            synced.synchronised(nn.Sequential(nn.Sequential(layer)))
        assert "compute.sync_bn = false" in refusal.value.hint
