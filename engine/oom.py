"""Failures for want of memory, which torch tells in many ways. torch is not loaded here."""

from __future__ import annotations

SIGNS = ("out of memory", "not enough memory", "allocate memory", "STATUS_ALLOC_FAILED")
"""What is in the RuntimeErrors of nccl, of torch on a CPU, and of cuBLAS and cuDNN."""


def out_of_memory(error: BaseException) -> bool:
    """Whether that was it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the last is torch's
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
