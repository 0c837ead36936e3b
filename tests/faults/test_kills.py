"""Engines killed by SIGKILL at random steps of every stage, one of their checkpoints spoiled: nothing may differ."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from random import Random
from secrets import randbits
from typing import Literal

import numpy as np
import pytest
from safetensors.torch import load_file

from cafe_tui.reading.run import RunFollower
from cafe_tui.results.exporting import points
from engine import process
from engine.contract.run.records import CheckpointWritten, Record, RecordReader, Scalars, StageChange, WarningNote
from engine.contract.run.rundir import RunDir
from engine.contract.weights import read_facts
from engine.record import Recorder
from tests.engine.conftest import quick_run  # noqa: F401

LIVES = multiprocessing.get_context("forkserver")
LIVES.set_forkserver_preload(["engine.pipeline", __name__])


def live(run: RunDir, stage: str, moment: int | Literal["end"]) -> None:
    """Work on a run until this many steps of a stage are done, or its last weights are written but not recorded."""
    progress, write = Recorder.progress, Recorder.write

    def at_step(recorder: Recorder, at: str, step: int, total_steps: int, share: float) -> None:
        progress(recorder, at, step, total_steps, share)
        if at == stage and moment != "end" and step >= moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def at_the_end(recorder: Recorder, record: Record) -> None:
        written = isinstance(record, CheckpointWritten) and (record.stage, record.label) == (stage, "last")
        if written and moment == "end":
            os.kill(os.getpid(), signal.SIGKILL)
        write(recorder, record)

    Recorder.progress, Recorder.write = at_step, at_the_end  # type: ignore[method-assign]
    sys.exit(process.run(run))


def killed(run: RunDir, stage: str, moment: int | Literal["end"]) -> None:
    engine = LIVES.Process(target=live, args=(run, stage, moment))
    engine.start()
    engine.join()
    assert engine.exitcode == -signal.SIGKILL
    assert run.state().stage == stage
    assert run.settled().state == "lost"


def found(run: RunDir) -> dict[str, object]:
    """Everything a run found out that does not depend on the clock; of a step that was done twice, both the same."""
    values: dict[str, object] = {}
    for record in RecordReader(run.records_file).read():
        if isinstance(record, Scalars):
            key = f"{record.stage} {record.step} {sorted(record.values)}"
            curves = {name: value for name, value in record.values.items() if name != "images_per_second"}
            assert values.setdefault(key, curves) == curves
    for path in run.checkpoints.glob("*.safetensors"):
        values[f"{path.name} facts"] = (read_facts(path) or {}) | {"run": ""}
        values |= {f"{path.name} {name}": tensor.numpy().tobytes() for name, tensor in load_file(path).items()}
    for path in run.outcomes.iterdir():
        with np.load(path) as saved:
            values[path.name] = saved["right"].tobytes()
    results = run.results()
    assert results is not None
    values["cells"] = [(cell.model, cell.attack, cell.correct, cell.gradient_steps) for cell in results.cells]
    values["headline"] = results.headline
    return values


@pytest.mark.slow
def test_killed_engines_leave_no_trace_in_weights_and_records(
    quick_run: Callable[..., RunDir],  # noqa: F811
) -> None:
    seed = randbits(32)
    random = Random(seed)
    profile = (
        *("stage.train.ema=0.9", "checkpoint.every_steps=2", "stage.game.epochs=1", "stage.evaluate.samples=0"),
        *('stage.evaluate.attacks=["clean","pgd"]', "stage.evaluate.checks=false"),
    )
    undisturbed, run = quick_run(*profile), quick_run(*profile)
    assert process.run(undisturbed) == 0

    killed(run, "train", random.randint(5, 9))
    newest = run.checkpoints / "train.resume.pt"
    spoiled = bytearray(newest.read_bytes())
    spoiled[len(spoiled) // 2] ^= 1 << random.randrange(8)
    newest.write_bytes(spoiled)
    (run.checkpoints / f".{newest.name}.12").write_bytes(b"half written")
    killed(run, "game", random.randint(1, 4))
    killed(run, "game", "end")
    killed(run, "inoculate", random.randint(1, 4))
    killed(run, "evaluate", random.randint(1, 239))
    assert process.run(run) == 0

    assert found(run) == found(undisturbed), f"seed {seed}"
    records = RecordReader(run.records_file).read()
    (warning,) = [record.text for record in records if isinstance(record, WarningNote) and "damaged" in record.text]
    assert "train: train.resume.pt damaged; the stage goes on from the one before it, after step" in warning
    assert sum(isinstance(record, StageChange) and record.state == "finished" for record in records) == 4
    assert not [path for path in run.checkpoints.iterdir() if path.name.startswith(".") or "resume" in path.name]
    assert [step for step, _ in points(run, "train", "loss")] == list(range(1, 11))
    follower = RunFollower(run)
    while follower.poll() is not None:
        pass
    assert {len(series) for (stage, _), series in follower.view.series.items() if stage == "game"} == {5, 1}
