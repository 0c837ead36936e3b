"""Checkpoints: what goes in comes out; anything else is one clear message and never runs code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from engine.checkpoints import foreign
from engine.checkpoints import own as checkpoints
from engine.contract import weights
from engine.contract.errors import CheckpointError, DiskError


def test_weights_and_facts_come_back(tmp_path: Path) -> None:
    a, b = nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1).to(memory_format=torch.channels_last)
    a.running_mean = torch.randn(3)
    checkpoints.save_weights(tmp_path / "x.safetensors", {"a": a, "b": b}, {"step": 3, "mean": [0.1]})
    a2, b2 = nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)
    assert checkpoints.load_weights(tmp_path / "x.safetensors", {"a": a2, "b": b2}) == {"step": 3, "mean": [0.1]}
    for old, new in ((a, a2), (b, b2)):
        assert all(torch.equal(value, new.state_dict()[key]) for key, value in old.state_dict().items())
    assert checkpoints.read_facts(tmp_path / "x.safetensors")["step"] == 3
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
        earlier = {key: value for key, value in file.metadata().items() if key != "sha256"}
    save_file(tensors, tmp_path / "earlier.safetensors", metadata=earlier)
    assert checkpoints.load_weights(tmp_path / "earlier.safetensors", {"a": a2})["step"] == 3


STRANGERS = {
    "a web page": b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>Please log in</body></html>",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "an empty file": b"",
}


@pytest.mark.parametrize("what", STRANGERS)
@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
def test_what_is_saved_for_a_checkpoint_by_mistake_is_named(what: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(STRANGERS[what])
    assert weights.read_facts(path) is None
    for read in (checkpoints.check_weights, foreign.read):
        with pytest.raises(CheckpointError, match=f"{what}, not") as caught:
            read(path)
        assert caught.value.hint


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a folder, not a checkpoint"):
        foreign.read(tmp_path)


@pytest.mark.parametrize("where", ["header", "facts"])
def test_hundreds_of_nested_brackets_are_no_facts(where: str, tmp_path: Path) -> None:
    path, deep = tmp_path / "x.safetensors", "[" * 100_000 + "]" * 100_000
    save_file({"w": torch.zeros(1)}, path, metadata={"format": weights.FORMAT, "facts": deep})
    if where == "header":
        header = f'{{"__metadata__": {deep}}}'.encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert weights.read_facts(path) is None
    with pytest.raises(CheckpointError, match="corrupt"):
        checkpoints.read_facts(path)


def test_facts_that_are_no_table_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"w": torch.zeros(1)}, path, metadata={"format": weights.FORMAT, "facts": "[1]"})
    with pytest.raises(CheckpointError, match="no table"):
        checkpoints.read_facts(path)


@pytest.mark.parametrize("damage", ["empty", "torn", "noise", "flipped header", "flipped weight"])
def test_damaged_files_are_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoints.save_weights(path, {"a": nn.Linear(50, 50)}, {})
    whole = path.read_bytes()
    bad = {
        "empty": b"",
        "torn": whole[: len(whole) // 2],
        "noise": os.urandom(500),
        "flipped header": b"\xff" + whole,
        "flipped weight": whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:],
    }
    path.write_bytes(bad[damage])
    with pytest.raises(CheckpointError, match=r"corrupt|empty"):
        checkpoints.load_weights(path, {"a": nn.Linear(50, 50)})
    path.unlink()
    path.mkdir()
    with pytest.raises(DiskError, match="cannot read"):
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


STATE = {"done": 3, "state": {"w": torch.arange(3), "best": (1.0, 2.0)}}


def test_resume_state_comes_back_and_hostile_files_run_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.resume.pt"
    assert checkpoints.load_resume(path) == (None, ())
    checkpoints.save_resume(path, STATE)
    state, damaged = checkpoints.load_resume(path)
    assert state is not None
    assert state["state"]["best"] == (1.0, 2.0)
    assert not damaged

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'exploded'}",)

    for bad in (pickle.dumps(Bomb()), b"", path.read_bytes()[:100]):
        path.write_bytes(bad)
        with pytest.raises(CheckpointError, match="no other state to go on from"):
            checkpoints.load_resume(path)
        assert path.read_bytes() == bad
    torch.save(Bomb(), path)
    with pytest.raises(CheckpointError, match=r"x.resume.pt damaged"):
        checkpoints.load_resume(path)
    assert not (tmp_path / "exploded").exists()


def test_a_resume_state_with_any_bit_turned_over_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.resume.pt"
    checkpoints.save_resume(path, STATE)
    whole, random, refused = path.read_bytes(), Random(0), 0
    for _ in range(400):
        spoiled = bytearray(whole)
        spoiled[random.randrange(len(whole))] ^= 1 << random.randrange(8)
        path.write_bytes(spoiled)
        try:
            state, _ = checkpoints.load_resume(path)
        except CheckpointError:
            refused += 1
            continue
        assert state is not None, "padding, or a date"
        assert (state["done"], state["state"]["best"]) == (3, (1.0, 2.0))
        assert torch.equal(state["state"]["w"], torch.arange(3))
    assert refused > 40


def test_the_state_before_is_kept_until_a_newer_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.resume.pt"

    def newest() -> tuple[object, int]:
        state, damaged = checkpoints.load_resume(path)
        return state and state["done"], len(damaged)

    for done in (1, 2, 3):
        checkpoints.save_resume(path, {"done": done})
    path.write_bytes(path.read_bytes()[:-200])
    assert newest() == (2, 1)
    assert newest() == (2, 0), "it has taken the place of the damaged one"
    checkpoints.save_resume(path, {"done": 4})
    path.write_bytes(b"")
    assert newest() == (2, 1)
    checkpoints.save_resume(path, {"done": 5})
    path.replace(checkpoints.before(path))  # where a killed engine may stop
    assert newest() == (5, 0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(DiskError, match="No space left"):
            checkpoints.save_resume(path, {"done": 6})
    assert newest() == (5, 0)
    checkpoints.remove_resume(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), PermissionError(13, "Permission denied")])
def test_a_state_that_cannot_be_read_now_is_not_called_damaged(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.resume.pt"
    for done in (1, 2):
        checkpoints.save_resume(path, {"done": done})
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda _: (_ for _ in ()).throw(error))
        with pytest.raises(DiskError, match=r"cannot read .*x.resume.pt: "):
            checkpoints.load_resume(path)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            checkpoints.load_resume(path)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert checkpoints.load_resume(path) == ({"done": 2}, ())


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
