"""Pre-activation residual networks (He et al. 2016, arXiv 1603.05027), the base of wide ones too."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from engine.models.base import Classifier, GlobalAveragePool, Inputs, conv3x3


class _Block(nn.Module):
    """BN-ReLU-conv-BN-ReLU-(dropout)-conv plus the input, or a 1x1 convolution of it where the shape changes."""

    def __init__(self, before: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU())
        self.branch = nn.Sequential(
            conv3x3(before, width, stride),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(dropout) if dropout else nn.Identity(),
            conv3x3(width, width),
        )
        same = stride == 1 and before == width
        self.project = None if same else nn.Conv2d(before, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N,before,H,W) to (N,width,H/stride,W/stride)."""
        active: Tensor = self.activate(x)
        # A projection reads the activated input, the identity the raw one (section 4.2 and its code).
        shortcut: Tensor = x if self.project is None else self.project(active)
        residual: Tensor = self.branch(active)
        return shortcut + residual


def preactivation(inputs: Inputs, *, stem: int, widths: Sequence[int], blocks: int, dropout: float) -> Classifier:
    """`stem` channels, then one group of `blocks` blocks for each of `widths`, halving the image between groups.

    Cut after the last BatchNorm and ReLU; the head is pool and linear.
    """
    layers: list[nn.Module] = [conv3x3(inputs.channels, stem)]
    before = stem
    for group, width in enumerate(widths):
        for i in range(blocks):
            layers.append(_Block(before, width, 2 if group and not i else 1, dropout))
            before = width
    layers += [nn.BatchNorm2d(before), nn.ReLU()]
    return Classifier(inputs, layers, nn.Sequential(GlobalAveragePool(), nn.Linear(before, inputs.classes)))


def preact_resnet18(inputs: Inputs) -> Classifier:
    """PreAct-ResNet-18, with the final BatchNorm of the paper. Cut: (512,4,4) for 32x32 images."""
    return preactivation(inputs, stem=64, widths=(64, 128, 256, 512), blocks=2, dropout=0.0)
