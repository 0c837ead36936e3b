"""From what the catalogue says of a thing to its code."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def resolve(reference: str) -> Any:
    """What a reference "package.module:name" stands for."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
