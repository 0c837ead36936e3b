"""BatchNorm folded into the convolution before it: the same answers in eval mode, with fewer passes over memory."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, symbolic_trace
from torch.nn.utils.fusion import fuse_conv_bn_eval

SAME_ANSWERS = 1e-3
"""By which logits may differ, as a share of their largest, for a folded network to count as the same one."""


def folded(model: nn.Module, x: Tensor) -> nn.Module | None:
    """A frozen, folded copy of a model in eval mode; None if nothing can be folded or its answer to x would differ."""
    try:
        copy = fold(model)
        if copy is None:
            return None
        with torch.no_grad():
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
