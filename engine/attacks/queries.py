"""How attacks ask a network: in one compute shape, counted, never with gradients of weights."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import cast

import torch
from msgspec import structs
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from engine.attacks.loop import Slope, input_gradient
from engine.contract.profile.schema import Evaluate
from engine.contract.run.records import OWN_FORMAT
from engine.data import Batch
from engine.device import FORMATS, Compute, emulates, has
from engine.models.folding import folded

OTHER_FORMATS = {"float64": torch.float64, "bf16": torch.bfloat16, "fp16": torch.float16}

LogitLoss = Callable[[Tensor], Tensor]
"""Logits (N,K) to what is to be maximised (N,)."""


@dataclass
class Effort:
    """What was asked of networks: gradients of single examples, and answers to single examples without a gradient."""

    gradient_steps: int = 0
    forwards: int = 0


class Oracle:
    """A network in eval mode with frozen weights, and how to ask it; `how` describes that in words.

    `own_format` is the number format in which the network computes whatever is asked for, empty for fp32. `live` is
    how many rows of the next questions are examples (the others fill up the compute shape); `effort` counts those. With
    `repeats` above 1 an answer is the mean of so many, for networks whose answers are random.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        compute: Compute,
        *,
        how: str = "",
        repeats: int = 1,
        own_format: str = "",
        copies: bool = True,
    ) -> None:
        self._network = network
        self._compute = compute
        self.how = how
        self.own_format = own_format
        self._copies = copies
        self.repeats = repeats
        self.live = 0
        self.effort = Effort()

    @property
    def dtype(self) -> torch.dtype:
        """The number format in which the network answers."""
        return self._compute.dtype

    def repeated(self, repeats: int) -> Oracle:
        """The same network, whose every answer is the mean of `repeats`."""
        how = f"{self.how}, mean of {repeats} answers"
        own, copies = self.own_format, self._copies
        return Oracle(self._network, self._compute, how=how, repeats=repeats, own_format=own, copies=copies)

    def logits(self, x: Tensor) -> Tensor:
        """The answer to images x (N,C,H,W) fp32: logits (N,K) fp32."""
        self.effort.forwards += self.live * self.repeats
        with torch.inference_mode():
            answers = [self._ask(x).clone() for _ in range(self.repeats)]
        return torch.stack(answers).mean(0)

    def padded_logits(self, x: Tensor, slots: int) -> Tensor:
        """The logits (N,K) of N <= `slots` images, asked for in a batch of `slots`."""
        self.live = len(x)
        return self.logits(filled(x, slots))[: len(x)]

    def slope(self, x: Tensor, loss: LogitLoss) -> Slope:
        """Gradient (N,C,H,W), value (N,) and logits (N,K) of a loss at images x."""
        self.effort.gradient_steps += self.live * self.repeats
        slopes = [self._slope(x, loss) for _ in range(self.repeats)]
        if self.repeats == 1:
            return slopes[0]
        return Slope(*(torch.stack(parts).mean(0) for parts in zip(*slopes, strict=True)))

    def _slope(self, x: Tensor, loss: LogitLoss) -> Slope:
        def objective(x: Tensor) -> tuple[Tensor, Tensor]:
            z = self._ask(x)
            return loss(z), z

        slope = input_gradient(objective, x)
        return Slope(slope.gradient.clone(), slope.value, slope.logits.clone())

    def _ask(self, x: Tensor) -> Tensor:
        """The answer, to be copied: a compiled network is a CUDA graph, which overwrites it with the next answer.

        The network may change the images: it is given a copy, but torch wants to compile for the images themselves.
        """
        x = self._compute.layout(x)
        with self._compute.autocast():
            return self._network(x.clone() if self._copies else x).float()


def filled(value: Tensor, slots: int) -> Tensor:
    """(N,...) with copies of the first row up to `slots` rows."""
    missing = slots - len(value)
    return torch.cat([value, value[:1].expand(missing, *value.shape[1:])]) if missing else value


@dataclass(frozen=True)
class Oracles:
    """Who is asked: `searching` looks for points, and `exact`, the fp32 network that is tested, judges them.

    In a `transfer` the searching network is another one, and only its points count.
    """

    searching: Oracle
    exact: Oracle
    transfer: bool = False

    @property
    def lossy(self) -> bool:
        """Whether the search asks in a smaller number format than fp32."""
        return self.searching.dtype != torch.float32

    def repeated(self, repeats: int) -> Oracles:
        """The same networks, whose every answer is the mean of `repeats`."""
        return replace(self, searching=self.searching.repeated(repeats), exact=self.exact.repeated(repeats))


def own_format(model: nn.Module, x: Tensor) -> str:
    """The number formats other than fp32 in which a network computes its answer to x (N,C,H,W); empty without any.

    They are those of its weights and of what its modules return, inside and outside.
    """
    dtypes = {weight.dtype for weight in model.parameters()}

    def look(_: nn.Module, __: object, returned: object) -> None:
        if isinstance(returned, Tensor):
            dtypes.add(returned.dtype)

    hook = register_module_forward_hook(look)
    try:
        with torch.no_grad():
            model(x.clone())
    finally:
        hook.remove()
    return " and ".join(name for name, dtype in OTHER_FORMATS.items() if dtype in dtypes)


def exact_oracle(model: nn.Module, compute: Compute, repeats: int = 1, sample: Tensor | None = None) -> Oracle:
    """The network as it is, in fp32 (or in its own format, seen in its answer to `sample`): it decides what counts."""
    own = "" if sample is None else own_format(model, sample)
    how = f"{OWN_FORMAT}{own}" if own else "fp32"
    return Oracle(model, replace(compute, dtype=torch.float32), how=how, repeats=repeats, own_format=own)


def searching_oracle(model: nn.Module, stage: Evaluate, compute: Compute, sample: Batch, repeats: int = 1) -> Oracle:
    """The same network as fast as the stage allows: folded, in a smaller number format, in a better layout, compiled.

    The folded network is used only if it answers to `sample` as the original does. The model must be in eval mode with
    frozen weights. A network that computes in a format of its own is asked in that.
    """
    own = own_format(model, sample.x)
    dtype = torch.float32 if own else number_format(stage, compute)
    search = replace(compute, dtype=dtype)
    chosen = stage.channels_last
    laid_out = compute.channels_last if chosen is None else chosen
    network = model
    how = [f"{OWN_FORMAT}{own}" if own else next(name for name, kind in FORMATS.items() if kind == dtype)]
    last = search.prefers_channels_last if chosen is None else chosen
    if stage.fold and (fused := folded(model, sample.x, channels_last=last)) is not None:
        network, laid_out = fused, last
        how.append("BatchNorm folded")
    elif laid_out:
        network = deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stub lacks it
    if laid_out:
        how.append("channels last")
    search = replace(search, channels_last=laid_out)
    ask: Callable[[Tensor], Tensor] = network
    if stage.compile:
        ask = cast(Callable[[Tensor], Tensor], torch.compile(network, mode="reduce-overhead", dynamic=False))
        how.append("compiled")
    return Oracle(ask, search, how=", ".join(how), repeats=repeats, own_format=own, copies=not stage.compile)


def searching_oracles(model: nn.Module, stage: Evaluate, compute: Compute, sample: Batch) -> tuple[Oracle, Oracle]:
    """`searching_oracle`, and its like in fp32 for searches that are `precise`; the same one twice if it is in fp32."""
    fast = searching_oracle(model, stage, compute, sample)
    if fast.dtype == torch.float32:
        return fast, fast
    return fast, searching_oracle(model, structs.replace(stage, precision="fp32", compile=False), compute, sample)


def number_format(stage: Evaluate, compute: Compute) -> torch.dtype:
    """The number format in which attacks of this stage search.

    `auto` takes bf16 where matrix units make it faster, and fp32 elsewhere. CPUs with avx512_bf16 but without AMX
    differ: a VGG-16 in bf16 takes half the time of fp32 on an EPYC, and longer than fp32 on a Xeon. There the profile
    must choose.
    """
    if stage.precision != "auto":
        return FORMATS[stage.precision]
    if compute.device.type == "cuda":
        return torch.float16 if emulates(compute.device, torch.bfloat16) else torch.bfloat16
    return torch.bfloat16 if has("amx_tile") else torch.float32
