"""What stages are said to cost before they start, against the operations that they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from engine import data, pipeline
from engine.contract.plan import plan
from engine.contract.profile import files as profiles
from engine.contract.run.rundir import RunDir
from engine.device import prepare
from engine.stage import Context

STAGES = [
    {"kind": "train", "id": "fast", "defence": "fast", "adversary": {"attack": "fgsm"}},
    {"kind": "game", "base": "fast", "adversary": {"steps": 3}},
]


class Operations(TorchDispatchMode):
    """Counts the floating-point operations of products and convolutions, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        counted = flop_registry.get(torch.ops.aten.addmm if packet is torch.ops.aten.addmm_ else packet)
        self.count += counted(*args, **(kwargs or {}), out_val=result) if counted else 0
        return result


def test_cost_is_that_of_the_operations(quick_run: Callable[..., RunDir]) -> None:
    stages = [{"epochs": 1} | stage for stage in STAGES]
    compute: dict[str, object] = {"threads": 1, "device": "cpu"}
    run = quick_run(tables={"name": "costs", "data": {"validation": 0.5}, "compute": compute, "stage": stages})
    profile = profiles.load(str(run.profile_file)).profile
    device = prepare(profile.compute)
    context = Context(profile, run, device, data.load(profile.data, seed=0, compute=device))
    with Operations() as one, torch.no_grad():
        context.classifier()(context.data.test.take(torch.arange(8), device).x)
    for stage, planned in zip(profile.stage, plan(profile), strict=True):
        with Operations() as counted:
            for _ in pipeline.make(context, stage).run():
                pass
        # That the first layer has no gradient for its images, and that a game is read on the way, is not planned for.
        assert planned.cost == pytest.approx(counted.count / (one.count / 8), rel=0.2), stage.id
