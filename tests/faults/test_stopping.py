"""Stopping: every signal a scheduler sends, strangers left alone, runs of several owners all asked."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import typer
from filelock import FileLock

from cafe_tui.cli.stop import stop
from cafe_tui.launch import local, queue
from engine import brake, process
from engine.contract.errors import UsageError
from engine.contract.run import liveness, rundir
from engine.contract.run.liveness import WISHES
from engine.contract.run.rundir import RunDir, State
from engine.record import Recorder
from tests.engine.conftest import quick_run  # noqa: F401
from tests.engine.test_distributed import LONG, MANY, TABLES, ranks
from tests.patience import wait_until

Make = Callable[..., RunDir]


@pytest.fixture
def engines() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for engine in started:
        if engine.poll() is None:
            engine.kill()
        engine.wait()


# --- signals of schedulers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_each_signal_is_a_wish_to_stop(number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while an engine waits for its run, before any stage; afterwards, signals mean what they meant before."""
    run = rundir.create(tmp_path, "quick", 'name = "quick"\n')
    before = {each: signal.getsignal(each) for each in WISHES}
    wished: list[bool] = []

    def wait(directory: RunDir) -> None:
        os.kill(os.getpid(), signal.Signals[number])

    def work(directory: RunDir, recorder: Recorder, brake: brake.Brake) -> None:
        wished.append(brake.wanted())

    monkeypatch.setattr(process, "_wait_for_rank", wait)
    monkeypatch.setattr("engine.pipeline.execute", work)
    assert process.run(run) == 0
    assert wished == [True]
    assert {each: signal.getsignal(each) for each in WISHES} == before


def test_an_engine_that_begins_while_readers_look_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = rundir.create(tmp_path, "quick", 'name = "quick"\n')
    run.lock_file.touch()
    reader = os.open(run.lock_file, os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)  # a look that takes long
    tries = []

    def slept(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 2:
            os.close(reader)

    monkeypatch.setattr("engine.pipeline.execute", lambda *_: None)
    monkeypatch.setattr(process.time, "sleep", slept)
    assert process.run(run) == 0
    assert len(tries) == 2
    assert run.status().state == "finished"


def test_a_hang_up_that_is_ignored_stays_so() -> None:
    """As under nohup."""
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with brake.answering(lambda number, frame: None):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGUSR1) != signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)


@pytest.mark.slow
def test_an_engine_told_by_a_scheduler_stops_with_a_checkpoint(
    quick_run: Make,  # noqa: F811
    engines: list[subprocess.Popen[bytes]],
) -> None:
    run = quick_run("stage.train.epochs=500", "checkpoint.every_steps=1")
    engines.append(local.spawn(run))
    wait_until(lambda: (run.checkpoints / "train.resume.pt").exists())
    engines[0].send_signal(signal.SIGUSR1)
    assert engines[0].wait(120) == 130
    assert run.state().state == "stopped"
    assert (run.checkpoints / "train.resume.pt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("to", "number"), [("agent", signal.SIGXCPU), ("rank", signal.SIGUSR2)])
def test_ranks_told_by_a_scheduler_stop_with_a_checkpoint(
    to: str,
    number: signal.Signals,
    quick_run: Make,  # noqa: F811
    engines: list[subprocess.Popen[bytes]],
) -> None:
    stage = LONG | {"epochs": 2000}
    run = quick_run("compute.devices=cpu:2", tables=TABLES | {"data": MANY, "stage": [stage]})
    engines.append(local.spawn(run))
    wait_until(lambda: (run.checkpoints / "train.resume.pt").exists())
    assert run.status().state == "running"
    assert run.state().lock, "the agent holds the lock of the run"
    told = psutil.Process(engines[0].pid) if to == "agent" else ranks(engines[0])[1]
    told.send_signal(number)
    assert engines[0].wait(120) == 130, run.log_file.read_text()
    assert run.state().state == "stopped"
    assert (run.checkpoints / "train.resume.pt").exists()


# --- who is asked ----------------------------------------------------------------------------------------------------


def tagged(folder: Path, count: int) -> list[RunDir]:
    return [rundir.create(folder, f"r{i}", 'name = "r"\n', tags=["mine"], state="queued") for i in range(count)]


def test_strangers_are_left_alone_and_the_request_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """State files that name a process which is no queue of these runs, with and without a start time."""
    runs = tagged(tmp_path, 3)
    with subprocess.Popen(["/bin/sleep", "600"]) as stranger:
        try:
            here = socket.gethostname()
            for i, run in enumerate(runs):
                started = psutil.Process(stranger.pid).create_time() if i == 1 else None
                state: rundir.StateName = "running" if i == 2 else "queued"
                run.write_state(State(state=state, pid=stranger.pid, pid_started=started, host=here))
                local.kill(run)
            stop(["mine"], json=True, runs=tmp_path)
            assert stranger.poll() is None
        finally:
            stranger.kill()
    assert all(run.stop_file.exists() for run in runs)
    assert [row["asked"] for row in json.loads(capsys.readouterr().out)["runs"]] == [True] * 3


def test_a_queue_starts_nothing_that_is_asked_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(local, "spawn", lambda run: started.append(run.id))
    runs = tagged(tmp_path, 2)
    for run in runs:
        queue._tell(run, "queued", os.getpid())
    waiting = queue.Queue(runs, 1)
    assert queue.stop(runs[:1]) == []
    for run in runs:
        waiting._start(run)
    assert started == [runs[1].id]
    assert runs[0].state().state == "stopped"


def test_a_sweep_is_not_resumed_while_a_lock_of_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness.released, "__defaults__", (0.0,))
    spawned: list[RunDir] = []
    monkeypatch.setattr(queue, "_spawn", lambda runs, parallel: spawned.extend(runs))
    runs = tagged(tmp_path, 2)
    runs[0].write_state(State(state="stopped"))
    with FileLock(runs[0].lock_file), pytest.raises(UsageError, match="still holds"):
        queue.resume(runs, 1)
    assert not spawned
    queue.resume(runs, 1)
    assert spawned == runs


def test_a_run_that_seems_lost_is_asked_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = tagged(tmp_path, 1)
    run.write_state(State(state="running", pid=2**22 + 1, host=socket.gethostname()))
    assert run.status().state == "lost"
    stop([run.id], runs=tmp_path)
    assert run.stop_file.exists()
    assert "is lost; a request to stop is left" in capsys.readouterr().out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_of_several_owners_all_are_asked_and_those_who_refuse_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:  # not below the folder of pytest, which others may not enter
        os.chmod(folder, 0o755)
        runs = tagged(Path(folder), 3)
        for path in (runs[0].control, runs[2].control):
            os.chown(path, 65534, 65534)
        os.seteuid(65534)
        try:
            with pytest.raises(typer.Exit) as ended:
                stop(["mine"], runs=Path(folder))
        finally:
            os.seteuid(0)
        assert ended.value.exit_code == 1
        assert [run.stop_file.exists() for run in runs] == [True, False, True]
        told = capsys.readouterr()
        assert told.out.count("is asked to stop") == 2
        assert told.err.startswith(f"cafe: cannot ask {runs[1].id} to stop: Permission denied; ")
        assert "belongs to root" in told.err


def test_a_run_whose_lock_cannot_be_opened_is_refused(
    quick_run: Make,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = quick_run()

    def denied(lock: FileLock) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), lock.lock_file)

    monkeypatch.setattr(FileLock, "acquire", denied)
    with pytest.raises(UsageError, match=r"engine\.lock cannot be opened for writing"):
        process.run(run)
