"""Real runs on GPUs, against the CPU and against themselves. Skipped where torch has no CUDA device.

CAFE_TEST_DEVICE=cpu lets the first of them run anywhere, which tests the tests.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file

from cafe_tui.launch import local
from engine import process
from engine.contract.run.records import RecordReader, Scalars
from engine.contract.run.rundir import RunDir
from engine.record import Recorder
from tests.patience import PATIENCE, kill

DEVICE = os.environ.get("CAFE_TEST_DEVICE", "cuda")
GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DEVICE == "cuda" and not GPUS, reason="needs a CUDA device"),
]
ONE_EPOCH = ("stage.train.epochs=1", "stage.game.epochs=2", "stage.game.reuse_epochs=2", "stage.inoculate.epochs=1")
STAGES = ("train", "game", "inoculate")

Make = Callable[..., RunDir]


@pytest.fixture
def done(quick_run: Make) -> Make:
    """Make a run of the small profile on the device, or wherever the overrides say, and let it end."""

    def make(*overrides: str) -> RunDir:
        run = quick_run(f"compute.device={DEVICE}", *ONE_EPOCH, *overrides)
        assert process.run(run) == 0, run.state().error
        return run

    return make


def curves(run: RunDir, stage: str) -> list[dict[str, float]]:
    """The numbers of each record of a stage, but for the speed."""
    records = RecordReader(run.records_file).read()
    found = [record.numbers() for record in records if isinstance(record, Scalars) and record.stage == stage]
    return [{name: value for name, value in each.items() if name != "images_per_second"} for each in found]


def weights(run: RunDir) -> dict[str, torch.Tensor]:
    """The last weights of every stage."""
    files = [load_file(run.checkpoints / f"{stage}.safetensors") for stage in STAGES]
    return {f"{stage} {name}": value for stage, file in zip(STAGES, files, strict=True) for name, value in file.items()}


def assert_same_bits(one: RunDir, other: RunDir) -> None:
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    assert [name for name, value in mine.items() if not torch.equal(value, theirs[name])] == []


def test_a_run_learns_what_it_does_on_the_cpu(done: Make) -> None:
    there, here = done(), done("compute.device=cpu")
    for stage in STAGES:
        assert [each.keys() for each in curves(there, stage)] == [each.keys() for each in curves(here, stage)]
    for mine, theirs in list(zip(curves(there, "train"), curves(here, "train"), strict=True))[:3]:
        assert mine == pytest.approx(theirs, rel=1e-3), "before roundings can turn the signs of an attack"


def test_the_same_profile_gives_the_same_bits(done: Make) -> None:
    assert_same_bits(done(), done())


@pytest.mark.parametrize(("stage", "step"), [("train", 3), ("game", 7), ("inoculate", 2)])
def test_a_stopped_run_goes_on_to_the_same_bits(
    stage: str, step: int, done: Make, quick_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = Recorder.progress

    def stop_there(recorder: Recorder, at: str, reached: int, total_steps: int, share: float) -> None:
        progress(recorder, at, reached, total_steps, share)
        if (at, reached) == (stage, step):
            os.kill(os.getpid(), signal.SIGTERM)

    run = quick_run(f"compute.device={DEVICE}", *ONE_EPOCH)
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "progress", stop_there)
        assert process.run(run) == 130
    assert (run.state().stage, run.state().step) == (stage, step)
    assert process.run(run) == 0
    assert_same_bits(run, done())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_smaller_number_format_learns_much_the_same(precision: str, done: Make) -> None:
    small, whole = done(f"compute.precision={precision}"), done()
    assert all(value.dtype == torch.float32 or not value.is_floating_point() for value in weights(small).values())
    assert all(bool(value.isfinite().all()) for value in weights(small).values())
    assert curves(small, "train")[0]["loss"] == pytest.approx(curves(whole, "train")[0]["loss"], rel=0.05)


@pytest.mark.parametrize("override", ["stage.game.bank=host", "stage.game.bank=disk", "data.residency=stream"])
def test_where_images_and_features_lie_changes_no_bit(override: str, done: Make) -> None:
    assert_same_bits(done(override), done())


@pytest.mark.skipif(GPUS < 2, reason="needs two CUDA devices")
def test_two_gpus_learn_what_one_does(done: Make, quick_run: Make) -> None:
    one, two = done(), quick_run('compute.devices="0,1"', *ONE_EPOCH)
    engine = local.spawn(two)
    try:
        assert engine.wait(PATIENCE) == 0, two.log_file.read_text()
    finally:
        kill(engine)
    for mine, theirs in list(zip(curves(two, "train"), curves(one, "train"), strict=True))[:3]:
        assert mine == pytest.approx(theirs, rel=1e-3)
    assert [each.keys() for each in curves(two, "game")] == [each.keys() for each in curves(one, "game")]
