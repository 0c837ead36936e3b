"""A whole small run, in this process and in engine processes that are stopped, killed and damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from filelock import FileLock

from engine import brake, device, pipeline, process
from engine.checkpoints import own as checkpoints
from engine.contract.errors import UsageError
from engine.contract.profile import files as profiles
from engine.contract.profile.catalogue import NO_WEIGHTS
from engine.contract.run.records import (
    AnyRecord,
    Cell,
    CheckpointWritten,
    ErrorNote,
    RecordReader,
    Scalars,
    StageChange,
    WarningNote,
)
from engine.contract.run.rundir import RunDir
from engine.models.base import Classifier
from engine.record import Recorder
from tests.engine.conftest import QUICK
from tests.patience import PATIENCE, kill, wait_until

Engine = Callable[[RunDir], subprocess.Popen[bytes]]


def records(run: RunDir) -> list[AnyRecord]:
    reader = RecordReader(run.records_file)
    found = reader.read()
    assert reader.skipped == 0
    return found


def stage_changes(run: RunDir) -> list[tuple[str, str]]:
    return [(record.stage, record.state) for record in records(run) if isinstance(record, StageChange)]


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Start the engine of a run; those that a failed test left behind are ended."""
    started: list[subprocess.Popen[bytes]] = []

    def start(run: RunDir) -> subprocess.Popen[bytes]:
        with run.log_file.open("ab") as log:
            command = [sys.executable, "-m", "engine", "run", str(run.path)]
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
        return started[-1]

    yield start
    for each in started:
        kill(each)


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


def test_the_log_tells_a_person_what_happened(quick_run: Callable[..., RunDir], engine: Engine) -> None:
    run = quick_run("stage.train.epochs=1", "stage.game.epochs=1")
    assert engine(run).wait(PATIENCE) == 0
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


def test_a_running_run_is_not_started_twice(quick_run: Callable[..., RunDir], engine: Engine) -> None:
    run = quick_run("stage.train.epochs=500")
    first = engine(run)
    wait_until(lambda: run.state().state == "running")
    with pytest.raises(UsageError, match="already running"):
        process.run(run)
    first.send_signal(signal.SIGINT)
    assert first.wait(PATIENCE) == 130


def test_of_two_engines_started_at_once_one_has_the_run(quick_run: Callable[..., RunDir], engine: Engine) -> None:
    run = quick_run("stage.train.epochs=500", "checkpoint.every_steps=1")
    first = engine(run)
    wait_until(lambda: (run.checkpoints / "train.resume.pt").exists())
    first.kill()
    first.wait()
    both = [engine(run), engine(run)]
    wait_until(lambda: any(each.poll() is not None for each in both) and run.state().state == "running")
    (other,) = [each for each in both if each.poll() is not None]
    (at_work,) = [each for each in both if each is not other]
    assert other.returncode == 2
    assert run.state().pid == at_work.pid
    assert run.log_file.read_text().count("is already running") == 1
    assert "Traceback" not in run.log_file.read_text()
    wait_until(lambda: stage_changes(run) == [("train", "started"), ("train", "resumed")])
    assert not [record for record in records(run) if isinstance(record, ErrorNote)]
    at_work.terminate()
    assert at_work.wait(PATIENCE) == 130


def test_a_held_run_is_waited_for_and_then_refused_untouched(
    quick_run: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = quick_run()
    before = (run.state_file.read_bytes(), run.records_file.read_bytes())
    monkeypatch.setattr(process, "WAIT_SECONDS", 0.3)
    with FileLock(run.control / "engine.lock"), pytest.raises(UsageError, match="another engine still holds"):
        process.run(run)
    assert (run.state_file.read_bytes(), run.records_file.read_bytes()) == before


@pytest.mark.parametrize("ask", ["file", "signal"])
def test_a_stop_asked_for_while_the_engine_starts_is_obeyed(
    ask: str, quick_run: Callable[..., RunDir], engine: Engine
) -> None:
    run = quick_run("stage.train.epochs=500")
    if ask == "file":
        run.request_stop()
    started = engine(run)
    if ask == "signal":
        wait_until(lambda: run.state().pid is not None)
        started.send_signal(signal.SIGTERM)
    assert started.wait(PATIENCE) == 130
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


@pytest.mark.parametrize(
    ("key", "precision", "there", "told"),
    [
        ("compute.precision", "bf16", (), ["compute.precision"]),
        ("compute.precision", "bf16", ("avx512_bf16",), []),
        ("compute.precision", "fp32", (), []),
        ("stage.evaluate.precision", "bf16", (), ["stage.evaluate.precision"]),
        ("stage.evaluate.precision", "auto", (), []),
    ],
)
def test_a_number_format_without_instructions_is_told(
    key: str,
    precision: str,
    there: tuple[str, ...],
    told: list[str],
    quick_run: Callable[..., RunDir],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "has", lambda instructions: instructions in there)
    monkeypatch.setattr(device.platform, "machine", lambda: "x86_64")
    train = {"kind": "train", "defence": "standard", "epochs": 1, "batch_size": 512}
    evaluate = {"kind": "evaluate", "attacks": ["fgsm"], "limit": 8, "samples": 0}
    run = quick_run(f"{key}={precision}", tables=QUICK | {"stage": [train, evaluate]})
    assert process.run(run) == 0
    warned = [record.text for record in records(run) if isinstance(record, WarningNote)]
    assert [text.split(": cpu has no instructions for bf16")[0] for text in warned if "bf16" in text] == told


def test_what_a_finished_stage_left_and_is_damaged_is_made_again(quick_run: Callable[..., RunDir]) -> None:
    overrides = ("stage.train.epochs=1", "stage.game.epochs=1", "stage.evaluate.samples=0", 'stage.train.select="best"')
    run, whole = quick_run(*overrides), quick_run(*overrides)
    assert process.run(run) == process.run(whole) == 0
    assert not list(run.checkpoints.glob("*.resume*")), "only needed until a stage is finished"

    def again(path: Path, damaged: bytes) -> list[str]:
        """The stages that are run again after a file was damaged."""
        before = len(records(run))
        path.write_bytes(damaged)
        assert process.run(run) == 0
        assert outcome(run) == outcome(whole)
        fresh = records(run)[before:]
        warned = [record.text for record in fresh if isinstance(record, WarningNote) and "run again" in record.text]
        changed = [record.stage for record in fresh if isinstance(record, StageChange) and record.state == "started"]
        assert [text.split(":")[0] for text in warned] == changed
        assert all(path.name in text for text in warned)
        return changed

    best = run.checkpoints / "train.best.safetensors"
    flipped = bytearray(best.read_bytes())
    flipped[-5] ^= 64
    assert again(best, bytes(flipped)) == ["train"]
    assert again(run.checkpoints / "game.safetensors", b"not a checkpoint") == ["game"]
    assert again(run.results_file, run.results_file.read_bytes()[:-20]) == ["evaluate"]
    assert again(run.outcomes / "evaluate-train-pgd.npz", b"PK") == ["evaluate"]
    (run.path / ".state.json.1").touch()  # of an engine that was killed
    assert again(run.results_file, run.results_file.read_bytes()) == []
    assert not list(run.path.glob(".*"))


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
        [sys.executable, "-c", script, str(run.path)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ended.returncode == 1
    state = run.state()
    assert state.state == "failed"
    assert "cannot write" in state.error
    assert "space" in state.hint
    assert records(run)


def test_wrong_arguments_of_the_engine_are_told_before_torch_is_loaded(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "engine", "run", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "not a run directory" in ended.stderr
    assert not any(line.endswith(" torch") for line in ended.stderr.splitlines())


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


def test_an_edited_profile_is_refused_until_it_is_put_back(
    quick_run: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [QUICK["stage"][0] | {"epochs": 1}, QUICK["stage"][3] | {"samples": 0}]  # type: ignore[index]
    run = quick_run(tables=QUICK | {"stage": stages})
    told = run.profile_file.read_text()

    def edit(*overrides: str) -> None:
        run.profile_file.write_text(profiles.dumps(profiles.load(str(run.profile_file), overrides).profile))

    def refused(*overrides: str) -> str:
        edit(*overrides)
        assert process.run(run) == 1
        run.profile_file.write_text(told)
        return f"{run.state().error} {run.state().hint}"

    def stopped_in(stage: str, step: int) -> None:
        progress = Recorder.progress

        def stopping(recorder: Recorder, at: str, done: int, total_steps: int, share: float) -> None:
            progress(recorder, at, done, total_steps, share)
            if at == stage and done >= step:
                run.request_stop()

        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "progress", stopping)
            patch.setattr(brake, "STOP_POLL_SECONDS", 0)
            assert process.run(run) == 130

    stopped_in("train", 3)
    before = {path: path.read_bytes() for path in run.checkpoints.iterdir()}
    assert "train.safetensors: made under another profile: stage.train.batch_size was 64 and is 16" in refused(
        "stage.train.batch_size=16"
    )
    assert "seed was 0 and is 5" in refused("seed=5")
    (run.checkpoints / "train.safetensors").unlink()
    assert "train.resume.pt: made under another profile: stage.train.lr was 0.1 and is 0.2" in refused(
        "stage.train.lr=0.2"
    )
    assert {path: path.read_bytes() for path in run.checkpoints.iterdir()}.items() <= before.items()
    stopped_in("evaluate", 70)
    told_of_all = refused("stage.train.momentum=0.8")
    assert "delete checkpoints/train.safetensors, checkpoints/train.best.safetensors, outcomes/" in told_of_all
    assert "evaluate-train-clean.npz: made under another profile: stage.evaluate.limit was 60" in refused(
        "stage.evaluate.limit=50"
    )
    edit("compute.devices=cpu:1", "compute.threads=2", "checkpoint.every_steps=1", "stage.evaluate.batch_size=32")
    assert process.run(run) == 0


def test_the_end_of_a_stage_outlasts_a_power_cut(
    quick_run: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stage could go on from is removed only when its end is on the disk."""
    run = quick_run("stage.train.epochs=1", tables=QUICK | {"stage": QUICK["stage"][:1]})  # type: ignore[index]
    order: list[str] = []
    fsync, remove = os.fsync, checkpoints.remove_resume

    def synced(file: int) -> None:
        order.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        fsync(file)

    def removed(path: Path) -> None:
        assert stage_changes(run)[-1] == ("train", "finished")
        assert [name for name in order if not name.startswith(".state")][-1] == "records.jsonl"
        order.append("removed")
        remove(path)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(checkpoints, "remove_resume", removed)
    assert process.run(run) == 0
    assert "removed" in order
    assert "checkpoints" in order, "its names too"
