"""Engines killed by SIGKILL at random steps of every stage, one of their checkpoints spoiled: nothing may differ."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from secrets import randbits

import pytest

from cafe_tui.reading.run import RunFollower
from cafe_tui.results.exporting import points
from engine import process
from engine.contract.run.records import StageChange, WarningNote
from engine.contract.run.rundir import RunDir
from tests.engine.conftest import quick_run  # noqa: F401
from tests.faults.killing import Moment, differences, killed, records


def kill_in(run: RunDir, stage: str, step: int) -> None:
    assert killed(run, Moment(stage, step))
    assert run.state().stage == stage
    assert run.settled().state == "lost"


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

    kill_in(run, "train", random.randint(5, 9))
    newest = run.checkpoints / "train.resume.pt"
    spoiled = bytearray(newest.read_bytes())
    spoiled[len(spoiled) // 2] ^= 1 << random.randrange(8)
    newest.write_bytes(spoiled)
    (run.checkpoints / f".{newest.name}.12").write_bytes(b"half written")
    kill_in(run, "game", random.randint(1, 4))
    assert killed(run, Moment("game", "end"))
    kill_in(run, "inoculate", random.randint(1, 4))
    assert killed(run, Moment("inoculate", "told"))
    kill_in(run, "evaluate", random.randint(1, 239))
    assert process.run(run) == 0

    assert differences(run, undisturbed) == [], f"seed {seed}"
    (warning,) = [
        record.text for record in records(run) if isinstance(record, WarningNote) and "damaged" in record.text
    ]
    assert "train: train.resume.pt damaged; the stage goes on from the one before it, after step" in warning
    assert sum(isinstance(record, StageChange) and record.state == "finished" for record in records(run)) == 4
    assert [step for step, _ in points(run, "train", "loss")] == list(range(1, 11))
    follower = RunFollower(run)
    while follower.poll() is not None:
        pass
    assert {len(series) for (stage, _), series in follower.view.series.items() if stage == "game"} == {5, 1}
