"""VGG with BatchNorm and one linear layer (Simonyan and Zisserman 2015, arXiv 1409.1556, table 1)."""

from __future__ import annotations

from torch import nn

from engine.models.base import Classifier, GlobalAveragePool, Inputs, conv3x3

_WIDTHS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(inputs: Inputs, *, depth: int) -> Classifier:
    """VGG of `depth` 11, 13, 16 or 19 for images of at least 32x32, with BatchNorm and global average pooling.

    Cut after the last BatchNorm, before its ReLU and pool, at every depth: (512,2,2) for 32x32 images.
    """
    layers: list[nn.Module] = []
    before = inputs.channels
    for width, count in zip(_WIDTHS, _CONVOLUTIONS[depth], strict=True):
        for _ in range(count):
            layers += [conv3x3(before, width), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(2))
    head = nn.Sequential(*layers[-2:], GlobalAveragePool(), nn.Linear(before, inputs.classes))
    return Classifier(inputs, layers[:-2], head)
