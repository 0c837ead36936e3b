"""The digits, their splits, and augmentation."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import data, process
from engine.contract.errors import UsageError
from engine.contract.plan import train_size, validation_size
from engine.contract.profile.catalogue import DATA_FACTS, DATA_SETS
from engine.contract.profile.files import from_tables
from engine.contract.profile.schema import Data
from engine.contract.run.records import Message, RecordReader
from engine.contract.run.rundir import RunDir
from engine.data import Batch, augment, epoch_order, shipped
from engine.device import Compute

CPU = Compute(torch.device("cpu"))


def load(seed: int = 0, name: str = "digits") -> data.Splits:
    return data.load(Data(name=name), seed=seed, compute=CPU)


@pytest.mark.parametrize("name", [name for name, row in DATA_SETS.items() if row.had == "library"])
def test_the_facts_of_a_data_set_are_true(name: str) -> None:
    splits, facts = load(name=name), DATA_FACTS[name]
    assert splits.train.images.dtype == torch.uint8
    assert len(splits.train) + len(splits.validation) == facts.pool
    assert len(splits.test) == facts.test
    assert splits.train.images.shape[1:] == (facts.channels, facts.size, facts.size)
    assert set(splits.train.labels.tolist()) == set(range(facts.classes))


def test_the_plan_knows_the_sizes_of_the_splits() -> None:
    for share in (0.001, 0.1, 0.333, 0.5):
        profile = from_tables({"name": "x", "data": {"validation": share}, "stage": [{"kind": "train"}]})
        splits = data.load(Data(validation=share), seed=0, compute=CPU)
        assert (train_size(profile), validation_size(profile)) == (len(splits.train), len(splits.validation))


def test_splits_are_disjoint_and_only_validation_depends_on_the_seed() -> None:
    one, other = load(0), load(1)
    assert torch.equal(one.test.images, other.test.images)
    assert not torch.equal(one.validation.index, other.validation.index)
    for splits in (one, other):
        indices = torch.cat([splits.train.index, splits.validation.index])
        assert len(indices.unique()) == len(indices)
    images = torch.cat([one.train.images, one.validation.images, one.test.images]).flatten(1)
    assert len(images) == 1797
    assert torch.equal(load(0).validation.index, one.validation.index)


def test_pixels_are_those_of_the_archive() -> None:
    from sklearn.datasets import load_digits

    splits, raw = load(), load_digits().images
    total = sum(part.images.double().sum().item() for part in (splits.train, splits.validation, splits.test))
    assert total == pytest.approx(raw.sum() * 255 / 16, rel=1e-3)
    batch = next(splits.test.batches(7, CPU))
    assert batch.x.dtype == torch.float32
    assert batch.x.min() >= 0
    assert batch.x.max() == 1


def test_augmentation_shifts_by_at_most_an_eighth_and_belongs_to_the_example() -> None:
    x = torch.zeros(300, 1, 16, 16)
    x[:, 0, 8, 8] = 1
    batch = Batch(x, torch.zeros(300, dtype=torch.long), torch.arange(300))
    moved = augment(batch, flip=False, seed=0, epoch=0).x
    places = moved.flatten(1).argmax(1)
    rows, columns = places // 16, places % 16
    assert set(rows.tolist()) == set(columns.tolist()) == {6, 7, 8, 9, 10}
    assert torch.equal(moved.flatten(1).sum(1), torch.ones(300))
    some = torch.tensor([5, 250, 17])
    part = augment(Batch(x[some], batch.y[some], some), flip=False, seed=0, epoch=0).x
    assert torch.equal(part, moved[some])
    assert not torch.equal(augment(batch, flip=False, seed=0, epoch=1).x, moved)


def test_the_border_may_have_the_mean_colour() -> None:
    """A whole number of 255, as the published code fills it; what is inside stays as it is without it."""
    x = torch.rand(50, 3, 16, 16)
    batch = Batch(x, torch.zeros(50, dtype=torch.long), torch.arange(50))
    colour = (0.4914, 0.4822, 0.4465)
    black, filled = (augment(batch, flip=True, seed=0, epoch=0, border=border).x for border in (None, colour))
    inside = black > 0
    assert torch.equal(filled[inside], black[inside])
    for channel, value in enumerate((125, 122, 113)):
        outside = filled[:, channel][~inside[:, channel]]
        assert len(outside)
        assert torch.equal(outside, torch.full_like(outside, value / 255))


def test_flip_mirrors_about_half_and_only_when_allowed() -> None:
    x = torch.zeros(400, 1, 4, 4)  # too small to be shifted
    x[:, 0, :, 0] = 1
    batch = Batch(x, torch.zeros(400, dtype=torch.long), torch.arange(400))
    assert torch.equal(augment(batch, flip=False, seed=0, epoch=0).x, x)
    mirrored = augment(batch, flip=True, seed=0, epoch=0).x[:, 0, 0, 3]
    assert 150 < mirrored.sum() < 250
    assert not DATA_FACTS["digits"].flip


def test_every_epoch_visits_every_example_once_in_its_own_order() -> None:
    cpu = torch.device("cpu")
    first, again, second = (epoch_order(50, 3, epoch, "train", cpu) for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert sorted(first.tolist()) == list(range(50))


def test_mnist5k_has_as_many_test_images_of_each_class() -> None:
    one, other = load(0, "mnist5k"), load(1, "mnist5k")
    assert torch.bincount(one.test.labels).tolist() == [100] * 10
    assert torch.bincount(one.test.first(500).labels).tolist() == [50] * 10, "a limit must not choose the easy classes"
    assert torch.equal(one.test.images, other.test.images)
    assert one.test.images.amax() == 255
    together = torch.cat([one.train.images, one.validation.images, one.test.images]).flatten(1)
    assert len(together) == 5000
    assert len(together.unique(dim=0)) > 4990


@pytest.mark.parametrize("content", [b"no table", b"1,2\n3,4\n", b"300," * 65 + b"0\n", None])
def test_digits_that_are_not_as_they_were_shipped_are_refused(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "datasets" / "data" / "digits.csv.gz"
    file.parent.mkdir(parents=True)
    if content is not None:
        file.write_bytes(gzip.compress(content) if b"," in content else content)
    monkeypatch.setattr(shipped, "find_spec", lambda name: ModuleSpec(name, None, origin=str(tmp_path / "x.py")))
    with pytest.raises(UsageError, match=r"digits\.csv\.gz.*not the digits that were expected") as caught:
        load()
    assert caught.value.hint == "Install scikit-learn again."


@pytest.mark.parametrize("dtype", ["mapped", "in memory"])
def test_streamed_batches_are_the_resident_ones(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, however many are read ahead, also where the stream is left and begun anew."""
    if dtype == "mapped":
        source = data.read(Data())
        np.save(tmp_path / "x.npy", source.train_images)
        mapped = replace(source, train_images=np.load(tmp_path / "x.npy", mmap_mode="r"))
        monkeypatch.setitem(data.DATA, "digits", lambda data: mapped)
    resident, streamed = (data.load(Data(residency=kind), seed=0, compute=CPU) for kind in ("device", "stream"))
    assert (resident.streamed, streamed.streamed) == (False, True)
    order = epoch_order(len(resident.train), 0, 0, "train", CPU.device).split(64)

    def equal(one: Batch, other: Batch) -> bool:
        return all(torch.equal(getattr(one, key), getattr(other, key)) for key in ("x", "y", "index"))

    pairs = list(zip(streamed.train.stream(order, CPU), resident.train.stream(order, CPU), strict=True))
    assert len(pairs) == len(order)
    assert all(equal(one, other) for one, other in pairs)
    left = streamed.train.stream(order, CPU)
    next(left)
    left.close()
    again = list(streamed.train.stream(order[5:], CPU))
    assert all(equal(one, other) for one, (other, _) in zip(again, pairs[5:], strict=True))
    few = [splits.test.first(70) for splits in (resident, streamed)]
    assert all(equal(one, other) for one, other in zip(*(part.batches(32, CPU) for part in few), strict=True))
    rows = torch.tensor([3, 1, 1])
    assert equal(few[0].take(rows, CPU), few[1].take(rows, CPU))


def test_auto_streams_what_the_device_has_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not data.load(Data(), seed=0, compute=CPU).streamed
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 200_000}))
    assert data.load(Data(), seed=0, compute=CPU).streamed


def test_a_streamed_run_is_the_resident_one(quick_run: Callable[..., RunDir]) -> None:
    weights = []
    stage = {"kind": "train", "defence": "standard", "epochs": 1}
    tables = {"name": "x", "data": {"validation": 0.8}, "compute": {"device": "cpu", "threads": 1}, "stage": [stage]}
    for residency in ("device", "stream"):
        run = quick_run(f"data.residency={residency}", tables=tables)
        assert process.run(run) == 0
        weights.append((run.checkpoints / "train.safetensors").read_bytes()[-4096:])
        said = [record.text for record in RecordReader(run.records_file).read() if isinstance(record, Message)]
        assert ("streamed to cpu" in " ".join(said)) == (residency == "stream")
    assert weights[0] == weights[1]
