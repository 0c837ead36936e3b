"""BatchNorm over the images of all ranks, on GPUs as on CPUs (torch's own is for GPUs alone)."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from engine import distributed

Network = TypeVar("Network", bound=nn.Module)


class _Sum(torch.autograd.Function):
    """The sum over the ranks; the gradient of what all of them make of it is a sum over the ranks, too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.sum_up([total])
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.sum_up([total])
        return total


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose mean and variance in train mode are those of the whole batch, in one exchange.

    In eval mode, in its parameters and in its checkpoints it is `nn.BatchNorm2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) to (N,C,H,W); N may differ between ranks, and be 0 on some."""
        if not self.training:
            return super().forward(x)
        mean, variance, count = self._whole(x.float())
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        centred = x.float() - mean[:, None, None]
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    def _whole(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (C,), biased variance (C,) and count of values, from those of every rank (Chan et al. 1983)."""
        size = x.new_tensor(float(x.numel() // self.num_features))
        mean = x.sum((0, 2, 3)) / size.clamp_min(1)
        spread = (x - mean[:, None, None]).square().sum((0, 2, 3))
        own = torch.cat([size[None], mean, spread])
        slots = own.new_zeros(distributed.world(), len(own))
        place = torch.zeros_like(slots)
        place[distributed.rank()] = 1
        counts, means, spreads = _Sum.apply(slots + place * own).split([1, *[self.num_features] * 2], dim=1)
        count = counts.sum().detach()
        whole = (counts * means).sum(0) / count
        variance = (spreads + counts * (means - whole).square()).sum(0) / count
        return whole, variance, count


def synchronised(network: Network) -> Network:
    """The network, whose BatchNorm from now on looks at the images of all ranks; as it is where there is one rank."""
    if distributed.world() > 1:
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = SyncedBatchNorm2d  # same parameters, buffers and names
    return network
