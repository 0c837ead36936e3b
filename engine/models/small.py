"""A small convolutional network for small images, made to train in seconds on a CPU."""

from __future__ import annotations

from torch import nn

from engine.models.base import Classifier, GlobalAveragePool, Inputs, conv3x3


def small(inputs: Inputs) -> Classifier:
    """Four convolutions with BatchNorm (32, 64, 64, 32 channels); one more for each further halving of larger images.

    Cut, as for VGG, after the last BatchNorm, before its ReLU: (32,4,4) for 8x8, 16x16, 32x32 and 64x64 images. The cut
    is narrow because the two players of the game grow with the square of its channels.
    """
    halvings = max(1, (inputs.size // 4).bit_length() - 1)
    # 8x8 images keep their few pixels through the first layer; larger ones are halved at once, for speed.
    strides = [1, 2, 1, 1] if halvings == 1 else [2] * halvings + [1, 1]
    widths = [32, *[64] * (len(strides) - 2), 32]
    layers: list[nn.Module] = []
    before = inputs.channels
    for stride, after in zip(strides, widths, strict=True):
        layers += [conv3x3(before, after, stride), nn.BatchNorm2d(after), nn.ReLU()]
        before = after
    last_relu = layers.pop()
    return Classifier(inputs, layers, nn.Sequential(last_relu, GlobalAveragePool(), nn.Linear(before, inputs.classes)))
