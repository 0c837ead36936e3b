"""Weights as safetensors with metadata; resume state as a torch file that is only ever read with weights_only=True."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine import distributed
from engine.checkpoints import foreign
from engine.contract.errors import CheckpointError, DiskError
from engine.contract.run.rundir import settle, write_atomically
from engine.contract.run.space import disk_error
from engine.contract.weights import FORMAT


def save_weights(path: Path, modules: dict[str, nn.Module], facts: dict[str, Any]) -> None:
    """Write the weights of `modules`, each under its name, and `facts` (plain JSON values) as metadata.

    Only rank 0 does. Raises DiskError.
    """
    if not distributed.first():
        return
    tensors = {
        f"{name}.{key}": value.detach().to("cpu", memory_format=torch.contiguous_format).contiguous()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    facts_json = json.dumps(facts)
    metadata = {"format": FORMAT, "facts": facts_json, "sha256": _checksum(facts_json, tensors)}
    write_atomically(path, save(tensors, metadata=metadata))


def read_facts(path: Path) -> dict[str, Any]:
    """The metadata of a checkpoint, without a look at its weights.

    Raises CheckpointError when the file is missing, corrupt or not ours, DiskError when it cannot be read now.
    """
    return _read(path, with_tensors=False)[1]


def check_weights(path: Path) -> None:
    """Raise CheckpointError when a checkpoint is missing, corrupt or not ours, DiskError when it cannot be read now."""
    _read(path)


def _checksum(facts: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of facts and tensors. Files of earlier releases have none."""
    digest = hashlib.sha256(facts.encode())
    for key, value in sorted(tensors.items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_weights(path: Path, modules: dict[str, nn.Module]) -> dict[str, Any]:
    """Fill `modules` from a checkpoint and return its metadata.

    Raises CheckpointError when the file is missing, corrupt, not ours, or holds another network, DiskError when it
    cannot be read now.
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


def _read(path: Path, *, with_tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in (file.keys() if with_tensors else ())}
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint not found: {path}") from None
    except SafetensorError as error:
        foreign.refuse_strangers(path)
        raise CheckpointError(
            f"{path}: corrupt or not a safetensors file ({error})", "Run the stage that makes it again."
        ) from None
    except OSError as error:
        raise unreadable(path, error) from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this program (no format {FORMAT} in its metadata)")
    facts, checksum = metadata.get("facts", ""), metadata.get("sha256")
    try:
        if with_tensors and checksum is not None and checksum != _checksum(facts, tensors):
            raise ValueError("its checksum is another")
        read = json.loads(facts)
        if not isinstance(read, dict):
            raise ValueError("its facts are no table")
        return tensors, read
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: corrupt ({error})", "Run the stage that makes it again.") from None


class Resumed(NamedTuple):
    """A resume state, on the CPU, None if there is none; `damaged` are the files that could not be read."""

    state: dict[str, Any] | None
    damaged: tuple[Path, ...] = ()


def before(path: Path) -> Path:
    """Where the resume state stands that was in `path` before the newest one."""
    return path.with_suffix(f".previous{path.suffix}")


def save_resume(path: Path, state: dict[str, Any]) -> None:
    """Write everything a stage needs to go on, and keep the state before. At every moment one of the two is there.

    Only rank 0 does. Raises DiskError.
    """
    if not distributed.first():
        return
    buffer = io.BytesIO()
    torch.save(state, buffer)
    beside = path.with_name(f".{path.name}.{os.getpid()}.next")
    write_atomically(beside, buffer.getvalue())
    try:
        with suppress(FileNotFoundError):
            path.replace(before(path))
        beside.replace(path)
        settle(path.parent)
    except OSError as error:
        raise disk_error(f"cannot write {path}", path, error) from error


def load_resume(path: Path) -> Resumed:
    """The newest resume state that is whole. Never unpickles code.

    A state that had to be taken from the file before becomes the newest, so that the next one written cannot push it
    out in favour of the damaged one. Raises DiskError when a file cannot be read now, and CheckpointError when there
    are files and none is whole: to begin at the start would write over what is left of a long training.
    """
    damaged: list[Path] = []
    for file in (path, before(path)):
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise unreadable(file, error) from error
        state = _intact(data)
        if state is not None:
            if file != path:
                file.replace(path)
            return Resumed(state, tuple(damaged))
        damaged.append(file)
    if damaged:
        names = " and ".join(file.name for file in damaged)
        raise CheckpointError(
            f"{path.parent}: {names} damaged, and there is no other state to go on from",
            f"Put back a copy of {path.name}, or delete {names} to run the stage anew from its start.",
        )
    return Resumed(None)


def unreadable(path: Path, error: OSError) -> DiskError:
    """A file that is there and may be whole cannot be read now."""
    return DiskError(
        f"cannot read {path}: {error.strerror or error}",
        "Nothing was changed; `cafe resume` goes on when the disk does.",
    )


def remove_resume(path: Path) -> None:
    """Remove both states. Raises DiskError."""
    try:
        path.unlink(missing_ok=True)
        before(path).unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(f"cannot remove {path}", path, error) from error


def _intact(data: bytes) -> dict[str, Any] | None:
    """The state in the bytes of a file, None if a bit of it is not as it was written.

    torch writes the checksums of a zip file but does not look at them when it reads.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as members:
            if members.testzip() is not None:
                return None
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # zipfile and torch raise many kinds for one meaning: the file is not what it should be
        if "DefaultCPUAllocator" in str(error):  # but for torch's own word for no memory
            raise MemoryError from error
        return None
    return state if isinstance(state, dict) else None
