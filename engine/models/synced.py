"""BatchNorm over the images of all ranks, on GPUs as on CPUs (torch's own is for GPUs alone)."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine import distributed
from engine.contract.errors import UsageError

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


class _Synced(_BatchNorm):
    """BatchNorm whose mean and variance in train mode are those of the whole batch, in one exchange.

    In eval mode, in its parameters and in its checkpoints it is what it is made of.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,...) to (N,C,...); N may differ between ranks, and be 0 on some."""
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
        mean, scale, bias = (_by_channel(value, x) for value in (mean, scale, self.bias))
        return ((x.float() - mean) * scale + bias).to(x.dtype)

    def _whole(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (C,), biased variance (C,) and count of values, from those of every rank (Chan et al. 1983)."""
        size = x.new_tensor(float(x.numel() // self.num_features))
        others = [0, *range(2, x.ndim)]
        mean = x.sum(others) / size.clamp_min(1)
        spread = (x - _by_channel(mean, x)).square().sum(others)
        own = torch.cat([size[None], mean, spread])
        slots = own.new_zeros(distributed.world(), len(own))
        place = torch.zeros_like(slots)
        place[distributed.rank()] = 1
        counts, means, spreads = _Sum.apply(slots + place * own).split([1, *[self.num_features] * 2], dim=1)
        count = counts.sum().detach()
        overall = (counts * means).sum(0) / count
        variance = (spreads + counts * (means - overall).square()).sum(0) / count
        return overall, variance, count


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    """Values (C,), shaped to go with x (N,C,...)."""
    return values.view(-1, *[1] * (x.ndim - 2))


class SyncedBatchNorm1d(_Synced, nn.BatchNorm1d):
    """Of (N,C) and (N,C,L)."""


class SyncedBatchNorm2d(_Synced, nn.BatchNorm2d):
    """Of (N,C,H,W)."""


KINDS = {nn.BatchNorm1d: SyncedBatchNorm1d, nn.BatchNorm2d: SyncedBatchNorm2d}


def synchronised(network: Network) -> Network:
    """The network, whose BatchNorm from now on looks at the images of all ranks; as it is where there is one rank.

    Raises UsageError where that cannot be done.
    """
    if distributed.world() == 1:
        return network
    for name, module in network.named_modules():
        if not isinstance(module, _BatchNorm) or isinstance(module, nn.SyncBatchNorm | _Synced):
            continue
        plain = module.affine and module.track_running_stats and module.momentum is not None
        if type(module) not in KINDS or not plain:
            raise UsageError(
                f"{name} of the network is a {type(module).__name__} that cannot look at the images of all processes",
                "With compute.sync_bn = false each process knows its share of the batch alone.",
            )
        module.__class__ = KINDS[type(module)]  # same parameters, buffers and names
    return network
