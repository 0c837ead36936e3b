"""Reading what other programs have saved, without running code, and finding the weights in it.

Nothing here knows a network: what comes out are tensors by name. Facts about files of the method's published code
(github.com/ByungKwanLee/Causal-Adversarial-Instruments): a classifier is saved by torch under `net`, a game as `c_net`
(the hypothesis model) and `z_net` (the test function), each name after `module.`, beside the options of the command as
an argparse.Namespace; the constants that images are normalised with are not in the file.
"""

from __future__ import annotations

import argparse
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.contract.errors import CheckpointError

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "ema")
"""Keys under which programs put the weights in a file of several things."""
AGAIN = "Download it again."
DEPTH = 3
"""Wrappers inside each other that are looked into."""


@dataclass(frozen=True)
class Saved:
    """The content of a file. `ordered` tells that tensors come in the order of their layers, as torch keeps them."""

    path: Path
    content: Any
    ordered: bool

    def has(self, *keys: str) -> bool:
        """Whether there is a dictionary under each of these keys."""
        return isinstance(self.content, dict) and all(isinstance(self.content.get(key), dict) for key in keys)


@dataclass(frozen=True)
class Weights:
    """Tensors by name, found in the file `path`. `key` is the one they were under, if any; `ordered` as in Saved."""

    path: Path
    tensors: dict[str, Tensor]
    key: str = ""
    ordered: bool = True


def read(path: Path) -> Saved:
    """Read a safetensors file, or one of torch, on the CPU. Nothing in it is executed. Raises CheckpointError."""
    if not path.is_file():
        if path.is_dir():
            raise CheckpointError(f"{path}: a folder, not a checkpoint", "Name the file in it that holds the weights.")
        raise CheckpointError(f"checkpoint not found: {path}")
    refuse_strangers(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
        return Saved(path, tensors, ordered=False)
    except (SafetensorError, OSError):
        pass
    try:
        _check_sums(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings(action="ignore"):
            # a Namespace is a bag of values, which runs nothing; torch warns of files that are no checkpoints
            return Saved(path, torch.load(path, map_location="cpu", weights_only=True), ordered=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises many kinds for one meaning
        raise CheckpointError(
            f"{path}: neither a safetensors file nor a state dict that can be read without running code "
            f"({type(error).__name__})",
            "Save the weights alone: torch.save(network.state_dict(), FILE).",
        ) from None


def refuse_strangers(path: Path) -> None:
    """Raise CheckpointError for what is often saved under the name of a checkpoint and is none, saying what it is."""
    try:
        with path.open("rb") as file:
            beginning = file.read(512)
    except OSError:  # whoever reads it says so
        return
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not beginning:
        raise CheckpointError(f"{path}: an empty file, not a checkpoint", AGAIN)
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        raise CheckpointError(f"{path}: a web page, not a checkpoint", f"A login or error page was saved. {AGAIN}")
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        raise CheckpointError(
            f"{path}: a pointer of Git LFS, not the checkpoint itself", "`git lfs pull` in its repository fetches it."
        )


def _check_sums(path: Path) -> None:
    """Raise CheckpointError where a part of a zip file, as torch writes, is not as it was written.

    torch writes the checksums but does not look at them when it reads.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as members:
            damaged = members.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path}: damaged: the checksum of {damaged} in it is wrong", "Fetch it again.")


def find_weights(saved: Saved, key: str = "") -> Weights:
    """The tensors of a file, those under `key` if it has that. Raises CheckpointError."""
    content, key = _unwrapped(saved.content, (key, *WRAPPERS))
    entries = content.items() if isinstance(content, dict) else ()
    tensors = {str(name): value for name, value in entries if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(
            f"{saved.path}: holds no weights", f"Looked for a state dict, also under {', '.join(WRAPPERS)}."
        )
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_meta:
            kind = "a shape without values" if value.is_meta else f"{value.layout}".removeprefix("torch.")
            raise CheckpointError(
                f"{saved.path}: {name} is {kind}; needed: plain tensors", "Save the values themselves, dense."
            )
    return Weights(saved.path, tensors, key, saved.ordered)


def _unwrapped(content: Any, keys: tuple[str, ...]) -> tuple[Any, str]:
    """What lies innermost under wrapper keys, the first of `keys` first, and the last key followed, if any."""
    key = ""
    for _ in range(DEPTH):
        inner = next((k for k in keys if isinstance(content, dict) and isinstance(content.get(k), dict)), None)
        if inner is None:
            break
        content, key = content[inner], inner
    return content, key
