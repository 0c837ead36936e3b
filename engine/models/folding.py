"""A frozen network made faster with the same answers: BatchNorm folded into convolutions, and a CPU's best layout."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, symbolic_trace
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engine.models.conv_by_matmul import Conv3x3, by_taps, suits

SAME_ANSWERS = 1e-3
"""By which logits may differ, as a share of their largest, for a folded network to count as the same one."""
WIDE = 256
"""Channels from which on products of matrices are worth their calls."""


def folded(model: nn.Module, x: Tensor, *, channels_last: bool = False) -> nn.Module | None:
    """A frozen, folded copy of a model in eval mode; None if nothing can be folded or its answer to x would differ.

    With `channels_last` it lays out its weights and what it is asked so, and wide convolutions of small maps become
    products of matrices.
    """
    try:
        copy = fold(model)
        if copy is None:
            return None
        with torch.no_grad():
            if channels_last:
                lay_out(copy, x)
            z, z_copy = model(x), copy(x)
    except Exception:  # whatever a foreign network does that tracing cannot follow: it is attacked as it is
        return None
    same = bool(((z - z_copy).abs().amax() <= SAME_ANSWERS * z.abs().amax().clamp_min(1e-6)).item())
    return copy.requires_grad_(False) if same else None


def fold(model: nn.Module) -> GraphModule | None:
    """A copy of a model in eval mode in which a convolution does what it and its BatchNorm did.

    Only where nothing else reads the convolution's output. None if there is no such pair. Raises whatever tracing
    raises for a model whose course depends on its input.
    """
    traced = symbolic_trace(deepcopy(model))
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    folded = 0
    for node in list(traced.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if before is None or getattr(before, "op", "") != "call_module" or len(before.users) > 1:
            continue
        norm, convolution = modules[str(node.target)], modules[str(before.target)]
        once = calls[node.target] == calls[before.target] == 1
        if once and isinstance(norm, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d):
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
            folded += 1
    if not folded:
        return None
    traced.graph.lint()
    traced.recompile()
    return traced.eval()


def lay_out(network: GraphModule, x: Tensor) -> None:
    """Channels-last throughout, and faster convolutions of small maps, for images shaped as x (N,C,H,W)."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stub lacks it
    images = next(node for node in network.graph.nodes if node.op == "placeholder")
    with network.graph.inserting_after(images):
        laid_out = network.graph.call_method("contiguous", (images,), {"memory_format": torch.channels_last})
    images.replace_all_uses_with(laid_out, delete_user_cb=lambda user: user is not laid_out)
    network.recompile()
    ShapeProp(network).propagate(x)
    modules = dict(network.named_modules())
    for node in network.graph.nodes:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(layer, nn.Conv2d) or min(layer.in_channels, layer.out_channels) < WIDE:
            continue
        plain = layer.stride == layer.dilation == layer.padding == (1, 1) and layer.groups == 1
        shape = node.args[0].meta["tensor_meta"].shape
        if plain and layer.kernel_size == (3, 3) and suits(torch.empty(shape, device=x.device)):
            faster = Conv3x3(layer.in_channels, layer.out_channels, bias=layer.bias is not None)
            faster.weight, faster.bias = layer.weight, layer.bias
            network.set_submodule(str(node.target), by_taps(faster))
