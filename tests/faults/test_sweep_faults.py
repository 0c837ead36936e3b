"""Sweeps with real queues and engines: killed, asked again, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from engine.contract.run import listing
from engine.contract.run.liveness import process_alive
from engine.contract.run.rundir import RunDir
from tests.faults.test_cli_faults import CAFE, runs
from tests.patience import PATIENCE, wait_until

__all__ = ["runs"]  # a fixture

TINY = """
name = "tiny"
[sweep]
seed = [0, 1]
[compute]
threads = 1
[[stage]]
kind = "train"
defence = "standard"
epochs = {epochs}
[[stage]]
kind = "evaluate"
attacks = ["clean"]
limit = 20
samples = 0
"""


def cafe(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [*CAFE, *arguments, "--runs", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=folder.parent, check=False)


def begin(folder: Path, epochs: int) -> tuple[str, RunDir, RunDir]:
    """Start the sweep one run at a time, and wait until the first of them has a checkpoint."""
    (folder.parent / "tiny.toml").write_text(TINY.format(epochs=epochs), encoding="utf-8")
    tag = cafe("run", "tiny", "--detach", "--parallel", "1", folder=folder).stdout.strip()
    first, second = sorted(listing.tagged(folder, tag), key=lambda run: run.info().name)
    wait_until((first.checkpoints / "train.resume.pt").exists)
    return tag, first, second


def kill(pids: Sequence[int | None]) -> None:
    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(process_alive(pid, None) for pid in pids if pid))


def test_a_killed_sweep_goes_on_with_the_same_command_and_repeats_nothing(runs: Path) -> None:
    tag, first, second = begin(runs, epochs=20)
    assert second.status().state == "queued"
    queue = second.state().pid
    kill([queue, first.state().pid])
    wait_until(lambda: [run.status().state for run in (first, second)] == ["lost", "lost"])  # the last thread unlocks
    assert second.status().reason.startswith(f"its queue (process {queue}) is gone")
    done = cafe("run", "tiny", "--plain", folder=runs)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{tag}: 2 runs to do")
    # Which of them depends on how busy the host is: measuring is given up after two minutes.
    assert "by a measurement on this host" in done.stdout or "could not be measured here" in done.stdout
    assert "seed0  train: resumed" in done.stdout
    assert {run.id for run in listing.newest_first(runs)} == {first.id, second.id}
    assert [run.status().state for run in (first, second)] == ["finished", "finished"]
    before = first.records_file.stat().st_mtime_ns
    again = cafe("run", "tiny", folder=runs)
    assert (again.returncode, again.stdout) == (
        0,
        f"{tag}: all 2 runs are finished; `cafe table {tag}` shows their tables\n",
    )
    assert first.records_file.stat().st_mtime_ns == before
    table = json.loads(cafe("table", tag, "--seeds", "--json", folder=runs).stdout)
    (group,) = table["groups"]
    assert (group["group"], group["runs"]) == ("tiny", {"0": first.id, "1": second.id})


def test_a_stopped_sweep_leaves_nothing_at_work(runs: Path) -> None:
    tag, first, second = begin(runs, epochs=3000)
    queue = second.state().pid
    assert queue is not None
    assert cafe("stop", second.id, folder=runs).returncode == 0
    wait_until(lambda: second.status().state == "stopped")
    assert first.status().state == "running", "only the waiting run was meant"
    assert cafe("stop", tag, folder=runs).returncode == 0
    wait_until(lambda: first.status().state == "stopped" and not process_alive(queue, None))
    assert (first.checkpoints / "train.resume.pt").exists()
    assert [run.status().state for run in (first, second)] == ["stopped", "stopped"]
