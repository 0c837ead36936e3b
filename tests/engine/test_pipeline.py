"""A whole small run, in this process and in engine processes that are stopped, killed and damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from engine import pipeline, process
from engine.contract.catalogue import NO_WEIGHTS
from engine.contract.errors import UsageError
from engine.contract.records import (
    AnyRecord,
    Cell,
    CheckpointWritten,
    ErrorNote,
    RecordReader,
    Scalars,
    StageChange,
)
from engine.contract.rundir import RunDir
from engine.models.base import Classifier
from tests.engine.conftest import QUICK


def records(run: RunDir) -> list[AnyRecord]:
    reader = RecordReader(run.records_file)
    found = reader.read()
    assert reader.skipped == 0
    return found


def stage_changes(run: RunDir) -> list[tuple[str, str]]:
    return [(record.stage, record.state) for record in records(run) if isinstance(record, StageChange)]


def engine(run: RunDir) -> subprocess.Popen[bytes]:
    with run.log_file.open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "engine", "run", str(run.path)], stdout=log, stderr=log)


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def outcome(run: RunDir) -> object:
    """Everything a run found out that does not depend on the clock."""
    scalars = {
        (r.stage, r.step, tuple(sorted(r.values))): {k: v for k, v in r.values.items() if k != "images_per_second"}
        for r in records(run)
        if isinstance(r, Scalars)
    }
    results = run.results()
    assert results is not None
    cells = [(cell.model, cell.attack, cell.correct) for cell in results.cells]
    return scalars, cells, results.differences, results.headline


def test_a_whole_run_tells_its_story(quick_run: Callable[..., RunDir]) -> None:
    run = quick_run()
    assert process.run(run) == 0
    state = run.state()
    assert (state.state, state.progress, state.error) == ("finished", 1.0, "")
    assert state.step == state.total_steps > 0
    stages = ["train", "game", "inoculate", "evaluate"]
    assert stage_changes(run) == [(stage, change) for stage in stages for change in ("started", "finished")]
    results = run.results()
    assert results is not None
    in_records = [record for record in records(run) if isinstance(record, Cell)]
    assert [(c.model, c.attack, c.correct) for c in results.cells] == [
        (c.model, c.attack, c.correct) for c in in_records
    ]
    head = results.headline
    worst = min(c.accuracy for c in results.cells if c.model == "inoculate" and c.attack != "clean")
    assert head["robust"] == worst
    assert {"accuracy_adv", "accuracy_ac", "accuracy_cf", "accuracy_cc", "difference"} <= head.keys()
    for record in records(run):
        if isinstance(record, CheckpointWritten):
            assert (run.path / record.path).is_file()
    info = run.info()
    assert {"torch", "python", "cafe", "numpy"} <= info.versions.keys()
    assert info.devices
    steps = [r.step for r in records(run) if isinstance(r, Scalars) and r.stage == "train"]
    assert steps == sorted(steps)


def test_the_log_tells_a_person_what_happened(quick_run: Callable[..., RunDir]) -> None:
    run = quick_run("stage.train.epochs=1", "stage.game.epochs=1")
    assert engine(run).wait(120) == 0
    lines = run.log_file.read_text().splitlines()
    assert any(line.endswith("info    train: started, 5 steps") for line in lines)
    assert any("train: epoch 1, val_loss" in line for line in lines)
    assert any("inoculate under pgd: " in line for line in lines)
    assert any("game: epoch 1, final_accuracy_adv" in line for line in lines)
    assert not any("test_function_loss" in line for line in lines), "no line a step"


def test_the_profile_in_the_directory_repeats_the_run(quick_run: Callable[..., RunDir]) -> None:
    one, two = quick_run(), quick_run()
    assert process.run(one) == process.run(two) == 0
    assert outcome(one) == outcome(two)


def test_a_running_run_is_not_started_twice(quick_run: Callable[..., RunDir]) -> None:
    run = quick_run("stage.train.epochs=500")
    first = engine(run)
    try:
        wait_for(lambda: run.state().state == "running")
        with pytest.raises(UsageError, match="already running"):
            process.run(run)
    finally:
        first.send_signal(signal.SIGINT)
        assert first.wait(30) == 130


@pytest.mark.parametrize("ask", ["file", "signal"])
def test_a_stop_asked_for_while_the_engine_starts_is_obeyed(ask: str, quick_run: Callable[..., RunDir]) -> None:
    run = quick_run("stage.train.epochs=500")
    if ask == "file":
        run.request_stop()
    started = engine(run)
    if ask == "signal":
        wait_for(lambda: run.state().pid is not None)
        started.send_signal(signal.SIGTERM)
    assert started.wait(60) == 130
    assert run.state().state == "stopped"


def failed(run: RunDir, *, code: int = 1) -> str:
    assert process.run(run) == code
    state = run.state()
    assert state.state == "failed"
    assert [r.text for r in records(run) if isinstance(r, ErrorNote)] == [state.error]
    return f"{state.error}\n{state.hint}"


def test_a_device_that_is_not_there(quick_run: Callable[..., RunDir], capfd: pytest.CaptureFixture[str]) -> None:
    assert "compute.device: cuda:7 is not there" in failed(quick_run("compute.device=cuda:7"))
    assert "Traceback" in capfd.readouterr().err


def test_a_corrupt_checkpoint_of_an_earlier_stage(quick_run: Callable[..., RunDir]) -> None:
    run = quick_run("stage.train.epochs=1", "stage.game.epochs=1")
    assert process.run(run) == 0
    assert not list(run.checkpoints.glob("*.resume*")), "only needed until a stage is finished"
    (run.checkpoints / "train.safetensors").write_bytes(b"not a checkpoint")
    assert "corrupt" in failed(run)


def test_a_defect_is_told_as_one(quick_run: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody expected this")

    monkeypatch.setattr(pipeline, "make", broken)
    assert "internal error: ZeroDivisionError: nobody expected this" in failed(quick_run())


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling")]
)
def test_out_of_memory_says_what_to_do(
    error: Exception, quick_run: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*_: object, **__: object) -> None:
        raise error

    run = quick_run(tables={**QUICK, "stage": [{"kind": "train", "id": "first"}]})
    monkeypatch.setattr(pipeline, "make", hungry)
    assert failed(run).startswith("out of memory\nUse smaller batches: --set stage.first.batch_size=")


def test_a_network_that_finds_no_memory_is_not_told_as_one_that_does_not_fit(
    quick_run: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*_: object) -> None:
        torch.empty(1 << 60)

    evaluate = {"kind": "evaluate", "attacks": ["clean"]}
    run = quick_run(tables={**QUICK, "model": {"checkpoint": NO_WEIGHTS}, "stage": [evaluate]})
    monkeypatch.setattr(Classifier, "forward", hungry)
    assert failed(run).startswith("out of memory\nUse smaller batches: --set stage.evaluate.batch_size=")


def test_a_full_disk_stops_the_run_and_leaves_it_readable(quick_run: Callable[..., RunDir]) -> None:
    run = quick_run("stage.train.epochs=50")
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
        "sys.argv = ['engine', 'run', sys.argv[1]]; from engine.__main__ import main; sys.exit(main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(run.path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    state = run.state()
    assert state.state == "failed"
    assert "cannot write" in state.error
    assert "space" in state.hint
    assert records(run)


def test_wrong_arguments_of_the_engine_are_told_before_torch_is_loaded(tmp_path: Path) -> None:
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "engine", "run", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "not a run directory" in ended.stderr
    assert not any(line.endswith(" torch") for line in ended.stderr.splitlines())
    assert time.monotonic() - started < 60


def test_a_broken_profile_in_a_run_directory(quick_run: Callable[..., RunDir]) -> None:
    run = quick_run()
    run.profile_file.write_text("name = 3\n[[stage]\n")
    assert "line 2" in failed(run, code=2)


def test_files_of_a_run_are_readable_with_ordinary_tools(quick_run: Callable[..., RunDir]) -> None:
    run = quick_run("stage.train.epochs=1", "stage.game.epochs=1")
    assert process.run(run) == 0
    for path in (run.info_file, run.state_file, run.results_file):
        assert isinstance(msgspec.json.decode(path.read_bytes()), dict)
    assert not [name for name in os.listdir(run.path) if name.startswith(".")]
