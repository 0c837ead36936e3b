"""What a safetensors file says about itself, read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.contract.errors import CheckpointError

FORMAT = "cafe-1"
LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""


def read_facts(path: Path) -> dict[str, Any] | None:
    """The facts of a checkpoint of ours: model, data, classes and so on; None for any other file.

    Raises CheckpointError when there is no such file or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if 2 <= length <= LONGEST_HEADER else b""
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        metadata = json.loads(header)["__metadata__"]
        facts = json.loads(metadata["facts"]) if metadata["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError, RecursionError):  # the last by hundreds of nested brackets
        return None
    return facts if isinstance(facts, dict) else None
