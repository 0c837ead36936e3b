"""Where and how to compute: device, precision, memory layout."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import psutil
import torch
from torch import Tensor, nn

from engine import distributed
from engine.contract.errors import DeviceError
from engine.contract.profile import schema

Network = TypeVar("Network", bound=nn.Module)

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The number formats by their names in a profile."""


@dataclass(frozen=True)
class Compute:
    """The device and number format of a run. Images, eps, projections and losses are fp32 whatever `dtype` is."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    @property
    def prefers_channels_last(self) -> bool:
        """Whether a folded network is asked in that layout: where the user says so, and in fp32 on a CPU."""
        return self.channels_last or (self.device.type == "cpu" and self.dtype == torch.float32)

    def autocast(self) -> AbstractContextManager[object]:
        """Run the network in `dtype` inside this context; nothing is changed for fp32."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling for weight updates in fp16; passes everything through otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def place(self, module: Network) -> Network:
        """Move a network to the device, in the memory layout asked for."""
        module.to(self.device)
        if self.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stub lacks this form
        return module

    def layout(self, images: Tensor) -> Tensor:
        """Images (N,C,H,W) in the memory layout asked for."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    def describe(self) -> str:
        """The device in words, for run.json."""
        if self.device.type == "cuda":
            return f"{self.device} {torch.cuda.get_device_name(self.device)}"
        threads = torch.get_num_threads()
        return f"cpu, {threads} thread{'' if threads == 1 else 's'}"


def has(instructions: str) -> bool:
    """Whether this processor has them, by the name that torch gives them; False where torch cannot tell."""
    return bool(getattr(torch.cpu, f"_is_{instructions}_supported", lambda: False)())


def emulates(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the device has no instructions for a number format, which then takes longer than fp32."""
    if dtype != torch.bfloat16:
        return False
    if device.type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)
    return platform.machine() in ("x86_64", "AMD64") and not (has("avx512_bf16") or has("amx_tile"))


def free_memory(device: torch.device) -> int:
    """Bytes that are free now on a device; on the CPU those of the host."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def prepare(wanted: schema.Compute) -> Compute:
    """Find the device that a profile asks for; raises DeviceError when it is not there."""
    name = _own_device(wanted)
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            there = f"{count} CUDA device(s)" if count else "no CUDA device that this build of torch can use"
            raise DeviceError(
                f"compute.{'devices' if wanted.devices else 'device'}: {name} is not there; this host has {there}",
                "Use --device cpu or --device auto; `cafe doctor` shows what torch sees.",
            )
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        # Kernels without atomic sums, chosen by shape and not by a race. A forward pass has no other; gradients of
        # weights may take longer. The workspace is as large as what cuBLAS takes on an H100 anyway.
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product of matrices
    if wanted.threads is not None:
        torch.set_num_threads(wanted.threads)
    return Compute(device, FORMATS[wanted.precision], wanted.channels_last)


def _own_device(wanted: schema.Compute) -> str:
    """The device of this rank; where the profile names one for all, ranks of a host take a GPU each if it has any."""
    own = distributed.local_rank()
    if wanted.devices is not None:
        if own >= len(wanted.places):
            raise DeviceError(
                f"compute.devices: {wanted.devices} has no device for process {own + 1} of this host",
                "Start as many processes on each host as `devices` names.",
            )
        return wanted.places[own]
    if wanted.device not in ("auto", "cuda"):
        return wanted.device
    if wanted.device == "auto" and not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{own}"
