"""What somebody put in the place of a run's file: no reader waits for it, and each thing that is said can be read."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pexpect
import pytest
import typer
from filelock import FileLock

from cafe_tui.cli.rm import remove
from cafe_tui.cli.stop import stop
from engine.contract.run import rundir, space
from engine.contract.run.rundir import RunDir, State
from tests.faults.test_cli_faults import CAFE
from tests.faults.test_sweep_faults import cafe
from tests.patience import PATIENCE

FILES = ("state.json", "run.json", "results.json", "records.jsonl", "engine.log", "profile.toml")


def a_run(folder: Path) -> RunDir:
    run = rundir.create(folder, "quick", 'name = "quick"\n')
    run.write_state(State(state="finished"))
    return run


@pytest.mark.parametrize("file", FILES)
def test_a_pipe_or_a_device_in_the_place_of_a_file_keeps_nobody_waiting(file: str, tmp_path: Path) -> None:
    whole, pipe, device = (a_run(tmp_path / "runs") for _ in range(3))
    for run, make in ((pipe, os.mkfifo), (device, lambda path: os.symlink("/dev/zero", path))):
        (run.path / file).unlink(missing_ok=True)
        make(run.path / file)
    listed = cafe("ls", folder=tmp_path / "runs")
    assert listed.returncode == 0
    assert all(run.id in listed.stdout for run in (whole, pipe, device))
    for verb in ("show", "logs", "table", "plot"):
        told = cafe(verb, pipe.id, folder=tmp_path / "runs")
        assert "internal error" not in told.stderr


def test_a_refused_removal_is_told_in_two_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.contract.run.liveness.released.__defaults__", (0.0,))
    run = a_run(tmp_path)
    with FileLock(run.lock_file), pytest.raises(typer.Exit):
        remove([run.id], yes=True, runs=tmp_path)
    assert "�" not in (told := capsys.readouterr().err)
    assert told.splitlines()[1:] == ["Stop it first: `cafe stop`."]


def test_what_holds_a_run_that_has_ended_can_be_asked_to_stop(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    with FileLock(run.lock_file):
        stop([run.id], runs=tmp_path)
    assert run.stop_file.exists()


def test_a_run_that_takes_more_files_than_are_left_is_told_of_inodes(tmp_path: Path) -> None:
    crowded = type("Disk", (), {"f_files": 60, "f_favail": 3, "f_bavail": 10**6, "f_frsize": 4096})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.contract.run.space.os.statvfs", lambda _: crowded)
        assert space.refusal(OSError(28, "x"), tmp_path / "x")[0].startswith("no inodes are left")


def test_a_live_view_that_is_suspended_gives_the_cursor_back(tmp_path: Path) -> None:
    run = rundir.create(tmp_path, "quick", 'name = "quick"\n')
    env = {**os.environ, "TERM": "xterm-256color"}
    with FileLock(run.lock_file):
        run.write_state(State(state="running"))
        follower = pexpect.spawn(
            CAFE[0], [*CAFE[1:], "watch", run.id, "--runs", str(tmp_path)], env=env, timeout=PATIENCE
        )
        follower.expect_exact(b"\x1b[?25l")
        follower.expect_exact(run.id.encode())
        follower.kill(signal.SIGTSTP)
        follower.expect_exact(b"\x1b[?25h")
        follower.kill(signal.SIGCONT)
        follower.expect_exact(b"\x1b[?25l")
        follower.expect_exact(run.id.encode())  # all of it anew
        follower.sendintr()
        follower.expect_exact(b"\x1b[?25h")
        follower.close(force=True)
