"""Residual networks (He et al. 2016, arXiv 1512.03385, table 1), with a stem that fits the size of the images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from engine.models.base import Classifier, GlobalAveragePool, Inputs, conv3x3

_WIDTHS = (64, 128, 256, 512)
_LARGE = 128  # from this side on, the stem of ImageNet; below, a quartered image would have too few pixels left


class _Residual(nn.Module):
    """relu(branch(x) + shortcut(x)); the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, branch: nn.Module, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """(N,before,H,W) to (N,after,H/stride,W/stride)."""
        return relu(self.branch(x) + self.shortcut(x))


def _basic(before: int, width: int, stride: int) -> _Residual:
    branch = nn.Sequential(
        conv3x3(before, width, stride),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        conv3x3(width, width),
        nn.BatchNorm2d(width),
    )
    return _Residual(branch, before, width, stride)


def _bottleneck(before: int, width: int, stride: int) -> _Residual:
    branch = nn.Sequential(
        nn.Conv2d(before, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        conv3x3(width, width, stride),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 4 * width, 1, bias=False),
        nn.BatchNorm2d(4 * width),
    )
    return _Residual(branch, before, 4 * width, stride)


_BLOCKS = {18: (_basic, 1, (2, 2, 2, 2)), 34: (_basic, 1, (3, 4, 6, 3)), 50: (_bottleneck, 4, (3, 4, 6, 3))}


def resnet(inputs: Inputs, *, depth: int) -> Classifier:
    """ResNet of `depth` 18, 34 or 50. Images below 128x128 get a 3x3 stem without pooling.

    Cut after the last block: (512,4,4) for 32x32 images, (2048,4,4) at depth 50. The head is pool and linear, so
    it depends on the channel means only.
    """
    block, expansion, counts = _BLOCKS[depth]
    before = _WIDTHS[0]
    large = inputs.size >= _LARGE
    stem = (
        nn.Conv2d(inputs.channels, before, 7, 2, padding=3, bias=False) if large else conv3x3(inputs.channels, before)
    )
    layers: list[nn.Module] = [stem, nn.BatchNorm2d(before), nn.ReLU()]
    if large:
        layers.append(nn.MaxPool2d(3, 2, padding=1))
    for width, count in zip(_WIDTHS, counts, strict=True):
        for i in range(count):
            layers.append(block(before, width, 2 if i == 0 and width != _WIDTHS[0] else 1))
            before = width * expansion
    return Classifier(inputs, layers, nn.Sequential(GlobalAveragePool(), nn.Linear(before, inputs.classes)))
