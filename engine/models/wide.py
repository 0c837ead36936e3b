"""Wide residual networks (Zagoruyko and Komodakis 2016, arXiv 1605.07146, table 1)."""

from __future__ import annotations

from engine.models.base import Classifier, Inputs
from engine.models.preact import preactivation


def wide_resnet(inputs: Inputs, *, depth: int, widening: int, dropout: float = 0.0) -> Classifier:
    """WRN-`depth`-`widening`; `dropout` in [0,1) is the probability inside each block (section 2.4).

    Cut after the last BatchNorm and ReLU: (640,8,8) for 32x32 images and widening 10. Raises ValueError.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: found {dropout}; allowed: 0 or more, and less than 1")
    widths = [widening * width for width in (16, 32, 64)]
    # Depth counts two convolutions a block in three groups, and four more: the stem and the three projections.
    return preactivation(inputs, stem=16, widths=widths, blocks=(depth - 4) // 6, dropout=dropout)
