"""What `cafe run` says of its engine when it is ended itself, by hand or with the job of a scheduler."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cafe_tui.console import follow as module
from cafe_tui.console.follow import farewell, follow
from engine.contract.run import rundir
from engine.contract.run.rundir import RunDir, State, StateName
from tests.recorded import record_run

ANSWERS = """
import pathlib, signal, sys, time
def answer(*_):
    time.sleep(0.3)
    file = pathlib.Path(sys.argv[1])
    file.write_text(file.read_text().replace('"running"', sys.argv[2]))
    sys.exit(130)
signal.signal(signal.SIGTERM, answer)
print("ready", flush=True)
time.sleep(300)
"""


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in module.JOB_VARIABLES:
        monkeypatch.delenv(key, raising=False)


@pytest.fixture
def engines() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def end_both(run: RunDir, answer: str, engines: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Follow a stand-in for an engine, and let SIGTERM reach both, as at the end of a job."""
    process = subprocess.Popen(
        [sys.executable, "-c", ANSWERS, str(run.state_file), answer], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    engines.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    state = run.state()
    state.state, state.pid, state.heartbeat = "running", process.pid, time.time()
    run.write_state(state)

    following = threading.Event()

    def served(*arguments: Any, **more: Any) -> int:
        following.set()
        while True:
            time.sleep(0.01)

    def end() -> None:
        following.wait()  # before, a signal would end the test itself
        process.terminate()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    monkeypatch.setattr(module, "_serve", served)
    ending = threading.Thread(target=end)
    ending.start()
    with pytest.raises(SystemExit) as caught:
        follow(lambda: (run, process), plain=True)
    ending.join()
    assert caught.value.code == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("answer", "says"), [('"stopping"', "the run is stopping too, with a checkpoint"), ('"stopped"', "the run ended")]
)
def test_in_a_job_the_answer_of_the_engine_is_waited_for(
    answer: str,
    says: str,
    tmp_path: Path,
    engines: list[subprocess.Popen[bytes]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setattr(module, "ANSWER_SECONDS", 120.0)
    run = record_run(tmp_path, upto="game")
    end_both(run, answer, engines, monkeypatch)
    said = capsys.readouterr().err
    assert says in said
    assert f"`cafe resume {run.id}` continues it" in said
    assert "goes on" not in said


def runs_in(folder: Path, *states: StateName) -> list[RunDir]:
    runs = [rundir.create(folder, "quick", "") for _ in states]
    for run, state in zip(runs, states, strict=True):
        run.write_state(State(state=state, host="elsewhere", heartbeat=time.time()))
    return runs


@pytest.mark.parametrize(
    ("states", "job", "says"),
    [
        (["running"], "", "the run goes on; `cafe watch NAME` follows it"),
        (["running", "queued"], "", "the runs go on; `cafe watch NAME` follows them"),
        (["running"], "77", "the run goes on until job 77 ends; `cafe watch NAME` follows it, then `cafe resume NAME`"),
        (["stopped", "stopping"], "77", "the runs are stopping too, with a checkpoint; `cafe resume NAME`"),
        (["stopped", "finished"], "77", "the runs ended too: stopped, finished; `cafe resume NAME` continues them"),
        (["finished"], "", "the run is finished; `cafe table NAME` shows the results"),
    ],
)
def test_what_is_said_is_what_the_runs_say(
    states: list[StateName],
    job: str,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.1)
    if job:
        monkeypatch.setenv("PBS_JOBID", job)
    farewell(runs_in(tmp_path, *states), "NAME")
    assert capsys.readouterr().err.startswith(says)


def test_an_engine_that_has_not_come_to_its_first_word_is_not_taken_for_the_one_before(
    tmp_path: Path, engines: list[subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = runs_in(tmp_path, "stopped")
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    engines.append(process)
    farewell([run], run.id, process)
    assert capsys.readouterr().err.startswith("the run goes on; ")
    process.kill()
    process.wait()
    farewell([run], run.id, process)
    assert capsys.readouterr().err.startswith("the run ended too: lost; ")
