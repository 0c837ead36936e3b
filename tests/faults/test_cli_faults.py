"""The command line with real engines: interrupted, killed, hung up on, out of room."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from engine.contract.run import listing
from engine.contract.run.liveness import process_alive
from engine.contract.run.records import RecordReader, Scalars
from engine.contract.run.rundir import RunDir
from tests.patience import PATIENCE, wait_until

CAFE = [sys.executable, "-m", "cafe_tui"]
LONG = ["--set", "stage.train.epochs=2000", "--set", "stage.train.adversary.steps=1"]
SHORT = [
    *("--set", "data.validation=0.5"),
    *("--set", "stage.train.epochs=1", "--set", "stage.train.adversary.steps=1"),
    *("--set", "stage.game.epochs=1", "--set", "stage.game.adversary.steps=1"),
    *("--set", "stage.inoculate.epochs=1", "--set", "stage.inoculate.inversion_steps=1"),
    *("--set", "stage.inoculate.adversary.steps=1"),
    *("--set", "stage.evaluate.pgd_steps=2", "--set", "stage.evaluate.limit=50"),
]


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    """A folder of runs; engines that a failed test left behind are ended."""
    folder = tmp_path / "runs"
    yield folder
    for run in listing.newest_first(folder):
        state = run.state()
        if state.pid and process_alive(state.pid, state.pid_started):
            os.kill(state.pid, signal.SIGKILL)


def only_run(runs: Path) -> RunDir:
    (run,) = listing.newest_first(runs)
    return run


def trained(runs: Path) -> bool:
    found = listing.newest_first(runs)
    return bool(found) and any(isinstance(record, Scalars) for record in RecordReader(found[0].records_file).read())


def terminal(*arguments: str, runs: Path, **environment: str) -> pexpect.spawn:
    command = [*CAFE, *arguments, "--runs", str(runs)]
    env = {**os.environ, "TERM": "xterm-256color", **environment}
    options = {"env": env, "dimensions": (24, 80), "encoding": "utf-8", "codec_errors": "replace"}
    return pexpect.spawn(command[0], command[1:], **options, timeout=PATIENCE)


def test_ctrl_c_in_the_first_moment_stops_the_engine_too(runs: Path) -> None:
    child = terminal("run", "quickstart", *LONG, runs=runs)
    wait_until(lambda: bool(listing.newest_first(runs)))  # the directory is there, the engine just about to be
    child.sendintr()
    child.expect("cafe resume")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert only_run(runs).status().state == "stopped"


@pytest.mark.slow
def test_ctrl_c_stops_with_a_checkpoint_and_the_run_is_resumed_to_its_end(runs: Path) -> None:
    arguments = ["run", "quickstart", *SHORT, "--set", "stage.train.epochs=12"]
    child = terminal(*arguments, runs=runs)
    wait_until(lambda: trained(runs))
    child.sendintr()
    child.expect("stopped")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    run = only_run(runs)
    assert run.state().state == "stopped"
    assert (run.checkpoints / "train.safetensors").is_file()
    assert (run.checkpoints / "train.resume.pt").is_file()
    resumed = subprocess.run(
        [*CAFE, "resume", "last", "--plain"],  # of ./runs, which the engine does not see from where it works
        cwd=runs.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "train: resumed" in resumed.stdout
    assert run.state().state == "finished"
    again = subprocess.run([*CAFE, "resume", "last", "--runs", str(runs)], capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "is finished" in again.stderr


def test_ctrl_c_twice_kills_a_hung_engine(runs: Path) -> None:
    child = terminal("run", "quickstart", *LONG, runs=runs)
    wait_until(lambda: trained(runs))
    state = only_run(runs).state()
    assert state.pid
    os.kill(state.pid, signal.SIGSTOP)  # an engine that does not answer
    child.sendintr()
    child.expect("ctrl-C again kills")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 1
    assert only_run(runs).status().state == "lost"


def test_a_killed_engine_is_told_with_reason_and_log(runs: Path) -> None:
    following = subprocess.Popen(
        [*CAFE, "run", "quickstart", *LONG, "--runs", str(runs), "--plain"], stdout=subprocess.PIPE, text=True
    )
    wait_until(lambda: trained(runs))
    run = only_run(runs)
    pid = run.state().pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    out, _ = following.communicate(timeout=PATIENCE)
    assert following.returncode == 1
    assert "lost" in out
    assert str(run.log_file) in out
    listed = subprocess.run([*CAFE, "ls", "--json", "--runs", str(runs)], capture_output=True, text=True, check=True)
    row = json.loads(listed.stdout)["runs"][0]
    assert row["state"] == "lost"
    assert "gone" in row["reason"]


def test_detach_returns_the_id_and_closing_the_terminal_leaves_the_engine(runs: Path) -> None:
    child = terminal("run", "quickstart", *LONG, "--detach", runs=runs)
    child.expect(pexpect.EOF)
    child.close(force=True)
    run = only_run(runs)
    assert child.before.strip() == run.id
    wait_until(lambda: trained(runs))
    followed = terminal("watch", run.id, runs=runs)
    followed.expect("train")
    followed.kill(signal.SIGHUP)  # the terminal of a viewer is closed
    followed.close(force=True)
    pid = run.state().pid
    assert pid
    assert process_alive(pid, run.state().pid_started)
    assert os.getsid(pid) == pid, "a session of its own"
    stopped = subprocess.run([*CAFE, "stop", "last", "--runs", str(runs)], capture_output=True, text=True, check=True)
    assert "asked to stop" in stopped.stdout
    wait_until(lambda: run.status().state == "stopped")


@pytest.mark.parametrize("hang_up", [signal.SIGHUP, signal.SIGTERM])
def test_a_follower_that_is_hung_up_on_restores_the_cursor_and_leaves_the_engine(
    hang_up: signal.Signals, runs: Path
) -> None:
    child = terminal("run", "quickstart", *LONG, runs=runs)
    wait_until(lambda: trained(runs))
    child.expect("loss")
    child.kill(hang_up)
    child.expect_exact("\x1b[?25h")
    child.expect("the run goes on")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 128 + hang_up
    state = only_run(runs).state()
    assert state.pid
    assert process_alive(state.pid, state.pid_started)


@pytest.mark.slow
def test_a_whole_run_over_a_pipe_as_plain_lines_and_as_json(runs: Path) -> None:
    plain = subprocess.run(
        [*CAFE, "run", "quickstart", *SHORT, "--runs", str(runs)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert plain.returncode == 0, plain.stdout + plain.stderr
    assert "\x1b" not in plain.stdout
    for part in ("train: started", "game: finished", "inoculate under pgd:", "inoculate - train", "exact McNemar"):
        assert part in plain.stdout
    assert plain.stdout.count("psi") < 10, "curves are said every other second, not every step"
    document = subprocess.run(
        [*CAFE, "run", "quickstart", *SHORT, "--runs", str(runs), "--json", "--tag", "t", "--name", "other"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert document.returncode == 0, document.stderr
    lines = [json.loads(line) for line in document.stdout.splitlines()]
    assert {"stage", "scalars", "cell", "checkpoint"} <= {line["kind"] for line in lines[:-1]}
    assert lines[-1]["state"] == "finished"
    assert len(lines[-1]["cells"]) == 6
    run = listing.find(runs, lines[-1]["id"])
    assert run.info().tags == ["t"]
    assert run.info().name == "other"
    written = [json.loads(line) for line in run.records_file.read_text().splitlines()]
    assert written == lines[:-1]


def test_a_dumb_terminal_gets_plain_lines(runs: Path) -> None:
    child = terminal("run", "quickstart", *LONG, runs=runs, TERM="dumb")
    child.expect("train: started")
    child.expect("step")
    assert "\x1b" not in child.before
    child.sendintr()
    child.expect("stopping after this step")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


def test_an_engine_that_cannot_start_is_told_at_once(runs: Path, tmp_path: Path) -> None:
    """A torch that breaks on import: the run fails with the reason, and the follower does not wait a minute."""
    broken = tmp_path / "broken"
    (broken / "torch").mkdir(parents=True)
    (broken / "torch" / "__init__.py").write_text("raise ImportError('libcudart.so is missing')")
    answer = subprocess.run(
        [*CAFE, "run", "quickstart", "--runs", str(runs), "--plain"],
        env={**os.environ, "PYTHONPATH": str(broken)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert answer.returncode == 1
    assert "libcudart.so is missing" in answer.stdout
    assert only_run(runs).state().state == "failed"
