"""One run over two processes on the CPU, started by torchrun's agent: the numbers of one process, and no orphans."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.torch import load_file

from cafe_tui.launch import local, spawn
from engine import distributed, process
from engine.contract.profile.catalogue import NO_WEIGHTS
from engine.contract.run.liveness import process_alive
from engine.contract.run.records import ErrorNote, RecordReader, Scalars, StageChange
from engine.contract.run.results import Results
from engine.contract.run.rundir import FINAL, RunDir
from tests.patience import PATIENCE, kill, wait_until

TABLES: dict[str, object] = {
    "name": "shared",
    "data": {"validation": 0.8},  # leaves 269 images: four batches of 64 and one of 13, which two ranks share unevenly
    "threat": {"eps": 0.1},
    "compute": {"threads": 1, "device": "cpu"},
}
TRAIN: dict[str, object] = {
    "kind": "train",
    "defence": "awp",
    "epochs": 1,
    "batch_size": 64,
    "adversary": {"steps": 1},
    "ema": 0.5,
}
GAME: dict[str, object] = {"kind": "game", "epochs": 1, "batch_size": 64, "adversary": {"steps": 1}}
INOCULATE: dict[str, object] = {
    "kind": "inoculate",
    "defence": "trades",
    "game": "checkpoint",
    "epochs": 1,
    "batch_size": 64,
    "inversion_steps": 1,
    "adversary": {"steps": 1},
}
EVALUATE = {
    "kind": "evaluate",
    "attacks": ["clean", "pgd", "aa"],
    "models": ["checkpoint"],
    "pgd_steps": 3,
    "apgd_steps": 4,
    "fab_steps": 3,
    "square_queries": 20,
    "limit": 61,
    "batch_size": 16,
    "samples": 1,
}
LONG = {"kind": "train", "epochs": 12, "batch_size": 64, "adversary": {"steps": 1}}
MANY = {"validation": 0.34}  # to train on, as many as leave a record of every step

FAILING_MODEL = """
import os
from torch import nn

def make(classes):
    assert os.environ["RANK"] == "0", "no room here"
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
"""
# Sums are taken in another order; five steps of signs and normalised gradients let the difference grow.
RECORDS_APART = 1e-4  # of their size; without a synchronised BatchNorm or gradient 5e-4 and more
WEIGHTS_APART = 0.02  # found: 3e-3 in running statistics of AWP, from a random start

Make = Callable[..., RunDir]


@pytest.fixture(autouse=True)
def _few_held_out() -> None:
    """Runs in this process are compared with those of others, who measure on all."""


@pytest.fixture
def engines() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Engines that a failed test left behind are ended."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for engine in started:
        kill(engine)


def logged(run: RunDir) -> list[Scalars]:
    return [record for record in RecordReader(run.records_file).read() if isinstance(record, Scalars)]


def changes(run: RunDir) -> list[str]:
    return [record.state for record in RecordReader(run.records_file).read() if isinstance(record, StageChange)]


def found(run: RunDir) -> Results:
    results = run.results()
    assert results is not None
    return results


def ranks(engine: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes of the ranks, in the order they were started in."""
    return [child for child in psutil.Process(engine.pid).children() if "engine" in child.cmdline()]


def listening(engine: subprocess.Popen[bytes]) -> list[tuple[str, int]]:
    """Addresses at which the engine and its ranks take connections."""
    processes = [psutil.Process(engine.pid), *ranks(engine)]
    found = (each for process in processes for each in process.net_connections("inet"))
    return [each.laddr[:2] for each in found if each.status == psutil.CONN_LISTEN]


def answers(address: tuple[str, int]) -> bool:
    """Whether a connection can be made."""
    try:
        socket.create_connection(address, timeout=0.5).close()
    except OSError:
        return False
    return True


def left_in(folder: Path) -> list[Path]:
    """Folders in which ranks meet, or met."""
    return sorted(folder.glob("*cafe-meeting-*"))


def together(run: RunDir, engines: list[subprocess.Popen[bytes]]) -> int:
    engines.append(local.spawn(run))
    return engines[-1].wait(PATIENCE)


def learned(run: RunDir, stage: str = "train") -> dict[int, dict[str, float]]:
    """The numbers of each step of a stage, but for the speed."""
    steps: dict[int, dict[str, float]] = {}
    for record in logged(run):
        if record.stage == stage:
            # The first record of a step is its own; those of the epoch come after it.
            steps.setdefault(record.step, {k: v for k, v in record.numbers().items() if k != "images_per_second"})
    return steps


@pytest.mark.slow
def test_two_processes_learn_what_one_does(quick_run: Make, engines: list[subprocess.Popen[bytes]]) -> None:
    # No stage starts from what another left: what rounding does to its weights would grow.
    first = quick_run(tables=TABLES | {"stage": [TRAIN | {"defence": "standard"}, GAME]})
    assert process.run(first) == 0
    weights = {
        "checkpoint": str(first.checkpoints / "train.safetensors"),
        "hypothesis": str(first.checkpoints / "game.safetensors"),
    }
    tables = TABLES | {"model": weights, "stage": [TRAIN, GAME | {"base": "checkpoint"}, INOCULATE]}
    one, two = quick_run(tables=tables), quick_run("compute.devices=cpu:2", tables=tables)
    assert process.run(one) == 0
    assert together(two, engines) == 0, two.log_file.read_text()
    assert two.state().state == "finished"
    for mine, theirs in zip(logged(one), logged(two), strict=True):
        assert (mine.stage, mine.step, mine.values.keys()) == (theirs.stage, theirs.step, theirs.values.keys())
    for stage in ("train", "game", "inoculate"):
        alone, shared = learned(one, stage), learned(two, stage)
        for step in (1, 2, 3):  # before roundings can turn the signs of an attack
            assert shared[step] == pytest.approx(alone[step], rel=RECORDS_APART), (stage, step)
        a, b = (load_file(run.checkpoints / f"{stage}.safetensors") for run in (one, two))
        assert a.keys() == b.keys()
        apart = {key: float((a[key].double() - b[key].double()).abs().max()) for key in a}
        assert max(apart.values()) < WEIGHTS_APART, (stage, apart)


@pytest.mark.slow
def test_two_processes_break_the_examples_that_one_does(
    quick_run: Make, engines: list[subprocess.Popen[bytes]]
) -> None:
    trained = quick_run(tables=TABLES | {"data": MANY, "stage": [LONG | {"epochs": 3}]})
    assert process.run(trained) == 0
    weights = {"checkpoint": str(trained.checkpoints / "train.safetensors")}
    tables = TABLES | {"name": "attacked", "model": weights, "stage": [EVALUATE]}
    one, two = quick_run(tables=tables), quick_run("compute.devices=cpu:2", tables=tables)
    assert process.run(one) == 0
    assert together(two, engines) == 0, two.log_file.read_text()
    files = sorted(path.name for path in one.outcomes.iterdir())
    assert files == sorted(path.name for path in two.outcomes.iterdir())
    for name in files:
        with np.load(one.outcomes / name) as a, np.load(two.outcomes / name) as b:
            np.testing.assert_array_equal(a["right"], b["right"], err_msg=name)
    cells_one, cells_two = ([(c.attack, c.correct) for c in found(run).cells] for run in (one, two))
    assert cells_one == cells_two
    assert cells_one[0][1] > cells_one[1][1], "the attacks had something to find"


@pytest.mark.slow
def test_killed_and_stopped_ranks_go_on(
    quick_run: Make, engines: list[subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    run = quick_run("compute.devices=cpu:2", tables=TABLES | {"data": MANY, "stage": [LONG]})
    engines.append(local.spawn(run))
    wait_until(lambda: (run.checkpoints / "train.resume.pt").exists())
    ports = listening(engines[0])
    assert len(ports) <= 2, "one for each rank"
    assert {host for host, _ in ports} <= {"127.0.0.1", "::1"}
    assert not any(map(answers, ports)), "another account of the host could connect"
    (meeting,) = left_in(tmp_path)
    ranks(engines[0])[1].kill()
    wait_until(lambda: changes(run) == ["started", "resumed"])
    assert run.state().pid == engines[0].pid, "the run is its agent, which lives on"
    so_far = len(logged(run))
    wait_until(lambda: len(logged(run)) > so_far)
    local.stop(run)
    assert engines[0].wait(PATIENCE) == 130
    assert run.state().state == "stopped"

    engines.append(local.resume(run))
    wait_until(lambda: len(changes(run)) == 3)
    orphans = ranks(engines[1])
    assert len(orphans) == 2
    local.kill(run)
    engines[1].wait(PATIENCE)
    wait_until(lambda: not any(process_alive(each.pid, None) for each in orphans))
    assert run.settled().state == "lost"
    assert meeting not in left_in(tmp_path)
    (killed,) = left_in(tmp_path)

    with distributed._meeting() as mine:
        assert Path(mine).stat().st_mode & 0o777 == 0o700
        assert killed.is_dir()
        distributed.sweep()
        assert left_in(tmp_path) == [Path(mine)], "what the killed agent left is gone, what is in use is not"
    assert left_in(tmp_path) == []
    engines.append(local.resume(run, "cpu:1"))
    assert engines[2].wait(PATIENCE) == 0, run.log_file.read_text()
    steps = [record.step for record in logged(run) if "lr" in record.values]
    assert steps[-1] == run.state().total_steps
    assert set(steps) == set(range(1, steps[-1] + 1)), "no step was left out"


def node(run: RunDir, port: int, engines: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """An agent of one process, as a person starts one on each of two hosts."""
    options = "--nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --local-addr 127.0.0.1 --max-restarts 3"
    endpoint = ["--rdzv-endpoint", f"127.0.0.1:{port}"]
    command = [sys.executable, "-m", "torch.distributed.run", *options.split(), *endpoint]
    environment = {**spawn.environment(), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
    with run.log_file.open("ab") as log:
        agent = subprocess.Popen(
            [*command, "-m", "engine", "run", str(run.path)], stdout=log, stderr=subprocess.STDOUT, env=environment
        )
    engines.append(agent)
    return agent


@pytest.mark.slow
def test_two_nodes_are_one_run_and_one_of_them_can_be_lost(
    quick_run: Make, engines: list[subprocess.Popen[bytes]]
) -> None:
    tables = TABLES | {"data": MANY, "stage": [LONG | {"epochs": 5}]}
    one, two = quick_run(tables=tables), quick_run(tables=tables)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = node(two, port, engines)  # has to be the one that the others find at the port
    wait_until(lambda: any(c.laddr[1:] == (port,) for c in psutil.Process(meeting.pid).net_connections("tcp")))
    lost = node(two, port, engines)
    wait_until(lambda: (two.checkpoints / "train.resume.pt").exists())
    lost.kill()
    again = node(two, port, engines)
    assert process.run(one) == 0
    assert [agent.wait(PATIENCE) for agent in (meeting, again)] == [0, 0], two.log_file.read_text()
    assert two.state().state == "finished"
    assert changes(two) == ["started", "resumed", "finished"]
    alone, shared = learned(one), learned(two)
    assert alone.keys() == shared.keys(), "no step was left out"
    for step in (1, 2, 3):
        assert shared[step] == pytest.approx(alone[step], rel=RECORDS_APART), step


@pytest.fixture
def rank_of_two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make this process the first of two ranks, whose connections cannot be made; the folder in which they meet."""
    for name, value in {"RUN_ID": "x", "RESTART_COUNT": "0"}.items():
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "nosuch0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(distributed.MEETING, str(tmp_path))
    monkeypatch.setattr(distributed, "die_with_agent", lambda: None)
    monkeypatch.setattr(process, "_end_in_time", lambda run: None)
    return tmp_path


def test_ranks_that_cannot_be_connected_fail_at_once_with_the_reason(quick_run: Make, rank_of_two: Path) -> None:
    run = quick_run("compute.devices=cpu:2", tables=TABLES | {"stage": [TRAIN]})
    assert process.run(run) == 1
    state = run.state()
    assert state.state == "failed"
    assert state.error.startswith("the processes of the run cannot be connected by gloo: ")
    assert "nosuch0" in state.error
    assert "\n" not in state.error


def test_ranks_that_lose_each_other_again_and_again_say_how(
    quick_run: Make, rank_of_two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = quick_run("compute.devices=cpu:2", tables=TABLES | {"stage": [TRAIN]})
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "3")
    assert process.run(run) == 1
    assert run.state().state not in FINAL, "torchrun may start it again"
    told = (rank_of_two / "lost").read_text()
    assert "rank 0 waited for a rank that is gone" in told
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    monkeypatch.setattr(process, "_begin", lambda run: None)
    monkeypatch.setattr(distributed, "launch", lambda path, processes: told)
    assert process.run(run) == 1
    assert run.state().error == f"the processes of the run lost each other, 4 times in a row; the last time: {told}"


FOLLOWING = """
import sys, threading, time
from pathlib import Path
from engine import process
from engine.contract.run.rundir import RunDir
process.END_POLL_SECONDS = process.END_GRACE_SECONDS = 0.05
threading.Thread(target=process._end_in_time, args=(RunDir(Path(sys.argv[1])),), daemon=True).start()
time.sleep(1000)
"""


def test_a_rank_that_hangs_ends_after_the_one_that_has_failed(
    quick_run: Make, engines: list[subprocess.Popen[bytes]]
) -> None:
    run = quick_run(tables=TABLES | {"stage": [TRAIN]})
    engines.append(subprocess.Popen([sys.executable, "-c", FOLLOWING, str(run.path)]))
    with pytest.raises(subprocess.TimeoutExpired):
        engines[0].wait(1.5)
    process._last_words(run).touch()
    assert engines[0].wait(PATIENCE) == 0


@pytest.mark.slow
def test_a_failing_rank_is_heard(quick_run: Make, engines: list[subprocess.Popen[bytes]], tmp_path: Path) -> None:
    (tmp_path / "failing_model.py").write_text(FAILING_MODEL)
    stage = EVALUATE | {"attacks": ["clean", "pgd"]}
    model = {"name": "failing_model:make", "checkpoint": NO_WEIGHTS}
    run = quick_run("compute.devices=cpu:2", tables=TABLES | {"model": model, "stage": [stage]})
    folder = os.environ.get("PYTHONPATH", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([folder, str(tmp_path)]))
        assert together(run, engines) == 1
    state = run.state()
    assert state.state == "failed"
    assert "no room here (process 1 of 2)" in state.error
    assert [record.text for record in RecordReader(run.records_file).read() if isinstance(record, ErrorNote)] == [
        state.error
    ]
