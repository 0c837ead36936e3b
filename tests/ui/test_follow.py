"""Following an engine that ends in an unusual way. In-process, with a stand-in for the engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cafe_tui.console.follow import follow
from engine.contract.run import rundir
from engine.contract.run.rundir import RunDir
from tests.patience import kill, wait_until
from tests.recorded import record_run


def engine(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", script])


def test_an_engine_that_dies_before_it_takes_over_is_not_mistaken_for_the_earlier_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = record_run(tmp_path, upto="game", state="stopped")
    assert follow(lambda: (run, engine("raise SystemExit(3)")), plain=True) == 1
    out = capsys.readouterr().out
    assert "the engine ended with code 3" in out
    assert str(run.log_file) in out
    assert "nothing to complain about" in out, "the last lines of the log"


def test_an_engine_that_dies_before_its_first_word_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = rundir.create(tmp_path, "quickstart", "")
    assert follow(lambda: (run, engine("raise SystemExit(3)")), json=True) == 1
    assert '"state":"lost"' in capsys.readouterr().out.splitlines()[-1]


def test_ctrl_c_while_the_engine_is_being_started_is_not_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = record_run(tmp_path, upto="game")
    state = run.state()

    process = engine("import time; time.sleep(1000)")

    def start() -> tuple[RunDir, subprocess.Popen[bytes]]:
        os.kill(os.getpid(), signal.SIGINT)
        state.pid, state.heartbeat = process.pid, time.time()  # of another host, as recorded: no signal is sent there
        run.write_state(state)
        threading.Thread(target=obey).start()
        return run, process

    def obey() -> None:
        wait_until(run.stop_file.exists)
        state.state = "stopped"
        run.write_state(state)

    try:
        assert follow(start, plain=True) == 130
    finally:
        kill(process)
    out = capsys.readouterr().out
    assert "stopping after this step" in out
    assert f"cafe resume {run.id}" in out
