"""Which examples a limit takes, and what tells that two tables are about the same ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from cafe_tui.results.outcomes import OutcomeFiles, evaluated, verdicts
from cafe_tui.results.settings import read_settings
from engine import data
from engine.checkpoints import own as checkpoints
from engine.contract.errors import CheckpointError
from engine.contract.run.records import Cell
from engine.contract.run.rundir import RunDir
from engine.data import Images
from engine.data.source import Source
from engine.data.subset import in_turn
from engine.evaluation.outcomes import load, outcomes_file, save
from engine.evaluation.table import Evaluation
from engine.pipeline import refuse_others
from engine.stage import Context


def sorted_by_class(*counts: int) -> tuple[torch.Tensor, Images]:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labels, Images(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels, torch.arange(len(labels)))


@pytest.mark.parametrize("count", [1, 3, 7, 10, 25, 31])
def test_a_subset_has_as_many_of_each_class_as_there_are(count: int) -> None:
    labels, images = sorted_by_class(20, 2, 10)
    few = images.subset(count)
    found = torch.bincount(few.labels, minlength=3).tolist()
    turns = max(found)
    assert all(n in (turns, turns - 1) or n == total for n, total in zip(found, (20, 2, 10), strict=True))
    assert len(few) == count
    assert torch.equal(labels[few.index], few.labels), "an example keeps its place in the data set"
    assert torch.equal(images.subset(count - 1).index if count > 1 else few.index[:0], few.index[: count - 1])


def test_all_examples_stand_as_they_are() -> None:
    _, images = sorted_by_class(20, 2, 10)
    assert images.subset(None) is images.subset(32) is images.subset(99) is images


def test_the_draw_is_the_documented_one() -> None:
    """It must never change: tables of runs with a limit would not be about the same images any more."""
    labels = np.repeat(np.arange(3), 4)
    assert in_turn(labels, np.arange(12)).tolist() == PINNED
    assert sorted(in_turn(labels, np.arange(12)).tolist()) == list(range(12))


PINNED = [2, 6, 10, 7, 9, 1, 4, 8, 3, 5, 11, 0]


@pytest.fixture
def context(quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]) -> Context:
    """A run with a network for its table, which has learned nothing."""
    stages = [
        {"kind": "train", "epochs": 1, "select": "last"},
        {"kind": "evaluate", "attacks": ["clean", "fgsm"], "limit": 8, "samples": 0, "checks": False},
    ]
    tables: dict[str, Any] = {"name": "x", "compute": {"threads": 1}, "stage": stages}
    context = context_of(quick_run(tables=tables))
    settings = context.settings("train")
    facts = context.facts(stage="train", finished=True, settings=settings)
    checkpoints.save_weights(context.weights_file("train"), {"classifier": context.classifier()}, facts)
    return context


def cells(context: Context) -> list[Cell]:
    work = Evaluation(context, context.profile.stage[1])  # type: ignore[arg-type]
    return [event for event in work.run() if isinstance(event, Cell)]


def outcomes_of(context: Context, attack: str = "clean") -> tuple[Path, Any]:
    path = outcomes_file(context.run, "evaluate", "train", attack)
    return path, load(path, "train", attack)


def test_a_table_that_lacks_classes_says_so_and_knows_its_images(context: Context) -> None:
    clean, fgsm = cells(context)
    assert "no image of 2 of the 10 classes is among these 8" in clean.warnings
    assert "no image of 2 of the 10 classes is among these 8" in fgsm.warnings
    assert clean.images == fgsm.images != ""
    _, outcomes = outcomes_of(context)
    assert outcomes.index.tolist() == context.data.test.subset(8).index.tolist()


def test_a_table_that_an_earlier_release_began_is_finished_on_its_images(context: Context) -> None:
    cells(context)
    path, outcomes = outcomes_of(context)
    outcomes.index, outcomes.cell.images = None, ""
    save(path, outcomes, context.data.test.labels[:8].numpy())
    outcomes_file(context.run, "evaluate", "train", "fgsm").unlink()
    cells(context)
    assert outcomes_of(context, "fgsm")[1].index.tolist() == list(range(8))


def test_other_images_are_not_paired_and_not_resumed_on(context: Context, tmp_path: Path) -> None:
    cells(context)
    side = evaluated(context.run, read_settings(context.run))
    assert all(verdict.result for verdict in verdicts([side, side], OutcomeFiles()))
    path, outcomes = outcomes_of(context)
    labels, said = context.data.test.subset(8).labels.numpy(), {}
    for case, change in {"set": {"images": "another"}, "release": {"index": np.arange(8)}}.items():
        other = msgspec.json.decode(msgspec.json.encode(outcomes.cell), type=Cell)
        other.images = change.get("images", "")
        again = load(path, "train", "clean")
        assert again is not None
        again.cell, again.index = other, change.get("index", outcomes.index)
        save(tmp_path / f"{case}.npz", again, labels)
        changed = type(side)("other", side.settings, {("train", "clean"): tmp_path / f"{case}.npz"})
        [verdict] = verdicts([side, changed], OutcomeFiles())
        assert verdict.result is None
        said[case] = verdict.problem
    assert "the test set was changed" in said["set"]
    assert "other images of the test set" in said["release"]
    refuse_others(context)
    changed_data = replace(context.data, sums={**context.data.sums, "test": "0" * 16})
    with pytest.raises(CheckpointError, match="made with other images: checksum of the test images was"):
        refuse_others(replace(context, data=changed_data))


def test_files_of_earlier_releases_are_paired_by_their_labels(context: Context, tmp_path: Path) -> None:
    cells(context)
    _, outcomes = outcomes_of(context)
    outcomes.index, outcomes.cell.images = None, ""
    side = evaluated(context.run, read_settings(context.run))
    for name, labels in {"old": np.arange(8), "older": np.arange(8), "else": np.arange(8)[::-1]}.items():
        save(tmp_path / f"{name}.npz", outcomes, labels)

    def judged(a: str, b: str) -> str:
        sides = [type(side)(n, side.settings, {("train", "clean"): tmp_path / f"{n}.npz"}) for n in (a, b)]
        return verdicts(sides, OutcomeFiles())[0].problem

    assert judged("old", "older") == ""
    assert judged("old", "else") == "different examples: their labels differ"


def test_the_checksum_tells_images_labels_and_order() -> None:
    x, y = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4), dtype=np.uint8), np.array([0, 0, 1, 1, 2, 2])

    def of_test(images: np.ndarray, labels: np.ndarray) -> str:
        return Source(x, y, images, labels, (0.5,), (0.5,)).sums["test"]

    brighter = x.copy()
    brighter[3, 0, 0, 0] ^= 1
    other = [of_test(brighter, y), of_test(x[::-1], y), of_test(x, y[::-1]), of_test(x.reshape(6, 1, 2, 8), y)]
    assert len({of_test(x, y), *other}) == 5
    assert of_test(x.copy(), y.copy()) == of_test(x, y)
    source = Source(x, y, np.concatenate([x[:2], brighter[3:4]]), y[:3], (0.5,), (0.5,))
    assert source.shared == 2


def test_the_checksums_of_bundled_sets_stay() -> None:
    splits = {name: data.read(data.Data(name=name)).sums["test"] for name in ("digits", "mnist5k")}
    assert splits == BUNDLED


BUNDLED = {"digits": "e6536f2aaf9f1fc4", "mnist5k": "80e45d4ebb795b4d"}
