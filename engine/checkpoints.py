"""Weights as safetensors with metadata; resume state as a torch file that is only ever read with weights_only=True."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine.contract.errors import CheckpointError
from engine.contract.rundir import write_atomically

FORMAT = "cafe-1"


def save_weights(path: Path, modules: dict[str, nn.Module], facts: dict[str, Any]) -> None:
    """Write the weights of `modules`, each under its name, and `facts` (plain JSON values) as metadata.

    Raises DiskError.
    """
    tensors = {
        f"{name}.{key}": value.detach().to("cpu", memory_format=torch.contiguous_format).contiguous()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    metadata = {"format": FORMAT, "facts": json.dumps(facts)}
    write_atomically(path, save(tensors, metadata=metadata))


def read_facts(path: Path) -> dict[str, Any]:
    """The metadata of a checkpoint. Raises CheckpointError when the file is missing, corrupt or not ours."""
    return _read(path)[1]


def load_weights(path: Path, modules: dict[str, nn.Module]) -> dict[str, Any]:
    """Fill `modules` from a checkpoint and return its metadata.

    Raises CheckpointError when the file is missing, corrupt, not ours, or holds another network.
    """
    tensors, facts = _read(path)
    for name, module in modules.items():
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        expected = module.state_dict()
        wrong = [
            key
            for key in sorted(expected.keys() | own.keys())
            if key not in own or key not in expected or own[key].shape != expected[key].shape
        ]
        if wrong:
            raise CheckpointError(
                f"{path}: holds another network than `{name}` of this profile: "
                f"{len(wrong)} tensors differ, the first is {wrong[0]}",
                "Use the profile that the checkpoint was made with.",
            )
        module.load_state_dict(own)
    return facts


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint not found: {path}") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: corrupt or not a safetensors file ({error})", "Run the stage that makes it again."
        ) from None
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this program (no format {FORMAT} in its metadata)")
    return tensors, json.loads(metadata["facts"])


def save_resume(path: Path, state: dict[str, Any]) -> None:
    """Write everything a stage needs to go on. Raises DiskError."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load_resume(path: Path) -> dict[str, Any] | None:
    """The resume state, on the CPU; None if there is none. Never unpickles code. Raises CheckpointError if corrupt."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for one meaning: the file is not what it should be
        raise CheckpointError(
            f"{path}: corrupt resume state ({type(error).__name__})", "Delete it to run the stage from its start."
        ) from None
    return dict(state)
