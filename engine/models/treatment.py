"""The network of both players of the game: hypothesis model h and test function g (CAFE, arXiv 2303.01052)."""

from __future__ import annotations

from functools import partial
from typing import cast

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from engine.models.base import materialise
from engine.models.conv_by_matmul import Conv3x3, Deconv3x3

_SLOPE = 0.2


class Treatment(nn.Module):
    """Features or a feature variation (N,c,H,W) to a treatment of the same shape, unbounded.

    Three convolutions, the image's mean, a linear layer, its result repeated at every position, three deconvolutions.
    76 c^2 + 23 c parameters: 19,934,720 for c=512 and 31,144,320 for c=640, the counts of the published networks.
    """

    # Kernels: 9(1+1+2) c^2 in either half and 4 c^2 in the linear layer: 76 c^2. Vectors: BatchNorm scales and shifts
    # 2(1+1+2) c + 2(1+1+1) c, biases of convolutions 4c, of deconvolutions 3c, of the linear layer 2c: 23 c. Nothing
    # less adds up to 23 c: so every layer has its bias, though BatchNorm cancels it, and the last deconvolution has
    # its BatchNorm.

    def __init__(self, c: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(*_conv(c, c), *_conv(c, c), *_conv(c, 2 * c))
        self.linear = nn.Linear(2 * c, 2 * c)
        self.decoder = nn.Sequential(*_deconv(2 * c, c), *_deconv(c, c), *_deconv(c, c)[:-1])  # ends without activation

    def forward(self, w: Tensor) -> Tensor:
        """(N,c,H,W) to (N,c,H,W)."""
        summary = leaky_relu(self.linear(self.encoder(w).mean((2, 3))), _SLOPE)
        first = cast(Deconv3x3, self.decoder[0])
        spread = first.of_constant(summary, w.shape[2], w.shape[3])
        treatment: Tensor = self.decoder[1:](spread)
        return treatment


def _conv(before: int, after: int) -> list[nn.Module]:
    return [Conv3x3(before, after), nn.BatchNorm2d(after), nn.LeakyReLU(_SLOPE)]


def _deconv(before: int, after: int) -> list[nn.Module]:
    return [Deconv3x3(before, after), nn.BatchNorm2d(after), nn.LeakyReLU(_SLOPE)]


def build_treatment(shape: tuple[int, int, int], seed: int) -> Treatment:
    """h or g on the CPU, in train mode, for features of `shape` (C,H,W); its weights are a function of `seed` alone.

    The network itself fits any H and W. No global random state is read or changed.
    """
    return materialise(partial(Treatment, shape[0]), seed, _draw_weights)


def _draw_weights(module: nn.Module) -> None:
    """Normal with the gain of the leaky slope over the number of inputs (He et al. 2015, arXiv 1502.01852)."""
    if isinstance(module, nn.ConvTranspose2d):
        # Its kernel is stored (inputs, outputs, 3, 3), which torch reads the wrong way round: fan_out is the inputs.
        nn.init.kaiming_normal_(module.weight, _SLOPE, mode="fan_out", nonlinearity="leaky_relu")
    elif isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, _SLOPE, mode="fan_in", nonlinearity="leaky_relu")
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
