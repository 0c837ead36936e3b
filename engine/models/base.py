"""What every classifier is: images in [0,1] -> `features` -> the cut -> `head` -> logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Inputs:
    """What a network is built for: square images (channels, size, size) in [0,1] of `classes` classes.

    `mean` and `std` hold one statistic of images in [0,1] for each channel. Raises ValueError.
    """

    classes: int
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"classes: found {self.classes}; a classifier needs at least 2")
        if self.channels < 1:
            raise ValueError(f"channels: found {self.channels}; an image has at least 1")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ValueError(f"{name}: found {len(values)} values; {self.channels} are needed, one a channel")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std: found {self.std}; every value must be greater than 0")


class Normalise(nn.Module):
    """(x - mean) / std for each channel of (N,C,H,W).

    The constants are buffers, so that a checkpoint carries them and cannot be used with those of other data.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) in [0,1] to (N,C,H,W) with mean 0 and deviation 1 over the training images."""
        return (x - self.mean) / self.std


def normalise_with(network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Make these constants, one of each for a channel, those that the network normalises images with."""
    for module in network.modules():
        if isinstance(module, Normalise):
            for buffer, values in ((module.mean, mean), (module.std, std)):
                buffer.copy_(torch.tensor(values).view(1, -1, 1, 1))


class GlobalAveragePool(nn.Module):
    """The mean of every channel: (N,C,H,W) to (N,C)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) to (N,C)."""
        return x.mean((2, 3))


class Classifier(nn.Module):
    """A network cut in two: f_l = `features` and f_l+ = `head` of CAFE (arXiv 2303.01052), section 3.

    `features` takes images (N,channels,size,size), fp32 in [0,1], normalises them, and returns (N, *feature_shape).
    `head` takes those to logits (N,classes). It never writes to its input, which callers keep and use again.
    """

    feature_shape: tuple[int, int, int]

    def __init__(self, inputs: Inputs, layers: Iterable[nn.Module], head: nn.Module) -> None:
        super().__init__()
        normalise = Normalise(inputs.mean, inputs.std)
        self.features = nn.Sequential(normalise, *layers)
        self.head = head
        self.classes, self.channels, self.size = inputs.classes, inputs.channels, inputs.size
        image = torch.zeros(1, self.channels, self.size, self.size, device=normalise.mean.device)
        self.feature_shape = _feature_shape(self.features, image)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N,channels,size,size), fp32 in [0,1], to logits (N,classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits


def _feature_shape(features: nn.Module, image: Tensor) -> tuple[int, int, int]:
    """The shape (C,H,W) that `features`, just made, returns for `image` (1,C,H,W).

    Eval mode leaves the statistics of BatchNorm and all random states alone. A pass on the meta device would cost no
    arithmetic, but torch imports its compiler and sympy for that: two seconds against 0.2 for the widest network here.
    """
    with torch.no_grad():
        channels, height, width = features.eval()(image).shape[1:]
    features.train()
    return channels, height, width


def conv3x3(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    """A padded 3x3 convolution. No bias: the BatchNorm that follows, here or in the next block, would cancel it."""
    return nn.Conv2d(before, after, 3, stride, padding=1, bias=False)


def materialise(make: Callable[[], Network], seed: int, draw: Callable[[nn.Module], None]) -> Network:
    """Make a network on the CPU, its weights a function of `seed` alone; global random states stay as they were.

    `draw` sees every module, innermost first, and fills the weights of those it knows by functions of torch.nn.init.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the GPUs, which are not forked
        return make().apply(draw)


def draw_classifier_weights(module: nn.Module) -> None:
    """Convolutions: normal, fan out (He et al. 2015, arXiv 1502.01852). Linear: uniform within 1/sqrt(inputs)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        bound = module.in_features**-0.5
        nn.init.uniform_(module.weight, -bound, bound)
        nn.init.zeros_(module.bias)
