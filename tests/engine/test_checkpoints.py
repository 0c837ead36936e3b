"""Checkpoints: what goes in comes out; anything else is one clear message and never runs code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from engine import checkpoints
from engine.contract.errors import CheckpointError


def test_weights_and_facts_come_back(tmp_path: Path) -> None:
    a, b = nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1).to(memory_format=torch.channels_last)
    a.running_mean = torch.randn(3)
    checkpoints.save_weights(tmp_path / "x.safetensors", {"a": a, "b": b}, {"step": 3, "mean": [0.1]})
    a2, b2 = nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)
    assert checkpoints.load_weights(tmp_path / "x.safetensors", {"a": a2, "b": b2}) == {"step": 3, "mean": [0.1]}
    for old, new in ((a, a2), (b, b2)):
        assert all(torch.equal(value, new.state_dict()[key]) for key, value in old.state_dict().items())
    assert checkpoints.read_facts(tmp_path / "x.safetensors")["step"] == 3


@pytest.mark.parametrize("damage", ["empty", "torn", "noise", "flipped header", "folder"])
def test_damaged_files_are_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoints.save_weights(path, {"a": nn.Linear(50, 50)}, {})
    whole = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        bad = {
            "empty": b"",
            "torn": whole[: len(whole) // 2],
            "noise": os.urandom(500),
            "flipped header": b"\xff" + whole,
        }
        path.write_bytes(bad[damage])
    with pytest.raises(CheckpointError, match="corrupt or not a safetensors file"):
        checkpoints.load_weights(path, {"a": nn.Linear(50, 50)})


def test_missing_foreign_and_other_networks_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not found"):
        checkpoints.read_facts(tmp_path / "none.safetensors")
    save_file({"w": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        checkpoints.read_facts(tmp_path / "foreign.safetensors")
    checkpoints.save_weights(tmp_path / "x.safetensors", {"a": nn.Linear(2, 3)}, {})
    for other in (nn.Linear(3, 2), nn.Linear(2, 3, bias=False), nn.BatchNorm2d(3)):
        with pytest.raises(CheckpointError, match="holds another network"):
            checkpoints.load_weights(tmp_path / "x.safetensors", {"a": other})


def test_resume_state_comes_back_and_hostile_files_run_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.resume.pt"
    assert checkpoints.load_resume(path) is None
    checkpoints.save_resume(path, {"done": 3, "state": {"w": torch.arange(3), "best": (1.0, 2.0)}})
    state = checkpoints.load_resume(path)
    assert state is not None
    assert state["state"]["best"] == (1.0, 2.0)

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'exploded'}",)

    for bad in (pickle.dumps(Bomb()), b"", path.read_bytes()[:100]):
        path.write_bytes(bad)
        with pytest.raises(CheckpointError, match="corrupt resume state"):
            checkpoints.load_resume(path)
    torch.save(Bomb(), path)
    with pytest.raises(CheckpointError, match="corrupt resume state"):
        checkpoints.load_resume(path)
    assert not (tmp_path / "exploded").exists()


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    checkpoints.save_weights(path, {"a": nn.Linear(2, 2)}, {"step": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception, match="No space left"):
        checkpoints.save_weights(path, {"a": nn.Linear(2, 2)}, {"step": 2})
    assert checkpoints.read_facts(path) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.safetensors"]
