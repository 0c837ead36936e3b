"""What lives is never called lost: its lock first, its process by ticks since boot, and signs of life seen twice."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
from filelock import FileLock

from cafe_tui.launch import local
from engine.contract.errors import UsageError
from engine.contract.run import liveness, rundir
from engine.contract.run.liveness import LOST_AFTER_SECONDS, Process
from engine.contract.run.rundir import RunDir, State

NOW = 1_800_000_000.0
ELSEWHERE = "elsewhere"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return rundir.create(tmp_path / "runs", "quick", 'name = "quick"\n')


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock of the reader, which the test moves."""
    now = [1000.0]
    monkeypatch.setattr(liveness.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def child(run: RunDir) -> Iterator[subprocess.Popen[bytes]]:
    """A process of our own whose command line is that of an engine of the run."""
    process = subprocess.Popen(
        [sys.executable, "-c", "input()", "-m", "engine", "run", str(run.path)], stdin=subprocess.PIPE
    )
    while run.id not in " ".join(psutil.Process(process.pid).cmdline()):  # the kernel may not show it at once
        time.sleep(0.01)
    yield process
    process.communicate(timeout=60)


def known(pid: int, **other: object) -> State:
    """A state as an engine of this host writes it, with a heartbeat long past."""
    told = msgspec.structs.asdict(liveness.process(pid)) | other
    return State(**told, state="running", heartbeat=NOW - 1e6)  # type: ignore[arg-type]


def held_by(run: RunDir, state: State) -> bool:
    """Whether the run counts as alive while its lock is held, and as lost when it is free."""
    run.write_state(state)
    with FileLock(run.lock_file):
        while_held = run.status(now=NOW).state
    return (while_held, run.status(now=NOW).state) == ("running", "lost")


# --- the lock --------------------------------------------------------------------------------------------------------


def test_who_holds_the_lock_lives_whatever_process_tables_and_clocks_say(run: RunDir) -> None:
    me = os.getpid()
    assert held_by(run, known(me, pid_ticks=1)), "a number that was given again"
    assert held_by(run, known(me, pid_namespace="pid:[1]", lock=True)), "a container with its own process ids"
    assert held_by(run, State(state="running", pid=me, host=ELSEWHERE, heartbeat=NOW - 3600)), "a clock an hour apart"
    assert held_by(run, State(state="running", pid=2**22 + 1, host=socket.gethostname())), "of an older version"


def test_a_container_is_not_lost_by_its_numbers_while_it_gives_signs_of_life(run: RunDir) -> None:
    inside = known(os.getpid(), pid_namespace="pid:[1]")
    inside.pid, inside.heartbeat = 2**22 + 1, NOW
    assert run.status(inside, NOW).state == "running", "an engine on a file system without locks"
    inside.lock = True
    assert run.status(inside, NOW).state == "lost", "it held the lock that this kernel calls free"


CONTAINED = """
import sys, time, types
from pathlib import Path
from engine.contract.run.rundir import RunDir
from engine import process

def execute(directory, recorder, brake):
    recorder.state("running")
    time.sleep(600)

sys.modules["engine.pipeline"] = types.SimpleNamespace(execute=execute)
process.run(RunDir(Path(sys.argv[1])))
"""


def test_an_engine_in_a_container_of_this_host_lives_and_dies_with_its_lock(run: RunDir) -> None:
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0 or subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no namespace of process ids can be made here")
    with subprocess.Popen([*command, sys.executable, "-c", CONTAINED, str(run.path)]) as container:
        try:
            while run.state().state != "running":
                assert container.poll() is None
                time.sleep(0.02)
            assert run.state().pid == 1, "which here is another process"
            assert run.status(now=NOW).state == "running"
            assert not liveness.send(run.state(), signal.SIGKILL)
        finally:
            container.kill()
    assert liveness.released(run.lock_file, 60)
    assert run.status().state == "lost"


def test_a_lock_that_cannot_be_looked_at_leaves_the_verdict_open_for_a_day(run: RunDir) -> None:
    run.lock_file.symlink_to(run.lock_file)
    assert liveness.held(run.lock_file) is None
    far = State(state="running", pid=1, host=ELSEWHERE, heartbeat=NOW)
    status = run.status(far, NOW + 3600)
    assert status.state == "running"
    assert "no sign of life since" in status.reason
    assert "by the clock of host elsewhere" in status.reason
    assert run.status(far, NOW + 2 * 24 * 3600).state == "lost"


def test_readers_disturb_neither_each_other_nor_an_engine(run: RunDir) -> None:
    assert liveness.held(run.lock_file) is False, "no engine has made it yet"
    assert not run.lock_file.exists(), "a reader leaves nothing"
    with FileLock(run.lock_file, timeout=0):
        assert [liveness.held(run.lock_file) for _ in range(3)] == [True] * 3
    files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(100):
        assert liveness.held(run.lock_file) is False
        FileLock(run.lock_file, timeout=0).acquire().lock.release()
    assert not files or len(os.listdir("/proc/self/fd")) == files


def test_nothing_is_removed_or_resumed_while_its_lock_is_held(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "RELEASE_SECONDS", 0.0)
    monkeypatch.setattr(liveness.released, "__defaults__", (0.0,))
    for state in ("running", "stopped", "failed"):
        run.write_state(State(state=state, pid=2**22 + 1, host=socket.gethostname()))  # type: ignore[arg-type]
        for file in (run.lock_file, run.rank_lock_file):
            with FileLock(file):
                if state == "running" and file == run.rank_lock_file:
                    continue  # lost by its process, and yet a rank of it lives: refused below like the others
                for act in (rundir.remove, local.resume):
                    with pytest.raises(UsageError, match=r"is running|still holds"):
                        act(run)
    assert run.profile_file.exists()


def test_a_removal_waits_for_an_engine_that_is_ending(run: RunDir) -> None:
    ending = "import sys, time, filelock\nwith filelock.FileLock(sys.argv[1]):\n print(1, flush=True); time.sleep(0.3)"
    with subprocess.Popen([sys.executable, "-c", ending, str(run.lock_file)], stdout=subprocess.PIPE) as engine:
        assert engine.stdout
        engine.stdout.readline()
        run.write_state(State(state="finished"))
        assert liveness.held(run.lock_file)
        rundir.remove(run)
    assert not run.path.exists()


def test_a_removal_waits_for_the_last_thread_of_an_engine_that_was_killed(run: RunDir) -> None:
    run.write_state(State(state="running", pid=2**22 + 1, host=socket.gethostname()))
    held = os.open(run.lock_file, os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert run.status().state == "running", "who knows: another engine may have begun"
    release = threading.Timer(0.2, os.close, [held])
    release.start()
    rundir.remove(run)
    assert not run.path.exists()
    release.join()


def test_an_engine_that_only_a_clock_calls_lost_is_looked_at_twice(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host whose file system keeps its locks to itself, and whose clock is two minutes behind ours."""
    far = State(state="running", pid=7, host=ELSEWHERE, heartbeat=time.time() - 120)
    run.write_state(far)
    assert run.status().state == "lost"
    beats = iter(range(1000))
    real = RunDir.state

    def state(self: RunDir) -> State:
        found = real(self)
        found.heartbeat += next(beats)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "state", state)
        with pytest.raises(UsageError, match=r"signs of life|is running"):
            rundir.remove(run)
        with pytest.raises(UsageError, match=r"signs of life|is running"):
            local.resume(run)
    monkeypatch.setattr(rundir, "BEATS_SECONDS", 0.0)
    liveness._looks.clear()  # another reader, long after
    rundir.remove(run)
    assert not run.path.exists()


# --- the process -----------------------------------------------------------------------------------------------------


def test_a_clock_step_loses_nobody(run: RunDir, child: subprocess.Popen[bytes]) -> None:
    state = known(child.pid)
    state.pid_started = 1.0  # what psutil derives from a wall clock that was put back since
    assert run.status(state, NOW).state == "running"
    assert state.pid_ticks is not None
    state.pid_ticks += 1
    status = run.status(state, NOW)
    assert status.state == "lost"
    assert "ended without a word" in status.reason


def test_a_process_of_before_a_restart_is_not_looked_for(run: RunDir) -> None:
    state = known(os.getpid(), boot="of-yesterday", pid_ticks=1)
    assert liveness.alive(state) is None
    state.heartbeat = NOW
    assert run.status(state, NOW + 1).state == "running", "it may be another host of the same name"
    assert run.status(state, NOW + LOST_AFTER_SECONDS + 1).state == "lost"


def test_older_states_are_known_by_unix_seconds(run: RunDir, child: subprocess.Popen[bytes]) -> None:
    old = State(state="running", pid=child.pid, host=socket.gethostname(), heartbeat=NOW - 1e6)
    old.pid_started = liveness.process_started(child.pid)
    assert run.status(old, NOW).state == "running"
    old.pid_started -= 100
    assert run.status(old, NOW).state == "lost"


def test_a_process_is_signalled_only_if_it_is_ours_and_fits(run: RunDir, child: subprocess.Popen[bytes]) -> None:
    state = known(child.pid)
    for stranger in (
        known(child.pid, pid_ticks=1),
        known(child.pid, boot="of-yesterday"),
        known(child.pid, host=ELSEWHERE),
        known(child.pid, pid_namespace="pid:[1]"),
        known(child.pid, pid_ticks=None, pid_started=None),
        Process(host=socket.gethostname()),
    ):
        assert not liveness.send(stranger, signal.SIGKILL)
    assert not liveness.send(state, signal.SIGKILL, "engine", "run", "20260101-120000-another-aaaa")
    assert child.poll() is None
    assert liveness.send(state, signal.SIGKILL, "engine", "run", run.id)
    assert child.wait(60) == -signal.SIGKILL


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_a_process_of_another_user_is_not_signalled(run: RunDir) -> None:
    command = ["/bin/sleep", "60"]
    with subprocess.Popen(command, user=65534, group=65534) as theirs:
        try:
            assert not liveness.send(liveness.process(theirs.pid), signal.SIGKILL, "60")
            assert theirs.poll() is None
        finally:
            theirs.kill()


# --- signs of life ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [-3600.0, -120.0, 0.0, 3600.0])
def test_a_reader_that_looks_twice_goes_by_what_changes(apart: float, run: RunDir, clock: list[float]) -> None:
    """Whatever the clocks: an engine on another host that beats is alive, and one that stops is lost a minute later."""
    far = State(state="running", pid=7, host=ELSEWHERE, heartbeat=NOW + apart)
    run.status(far, NOW)
    for _ in range(3):
        clock[0] += 5
        far.heartbeat += 5
        assert run.status(far, NOW).state == "running"
    clock[0] += LOST_AFTER_SECONDS - 1
    assert run.status(far, NOW).state == "running"
    clock[0] += 2
    assert run.status(far, NOW).state == "lost"
    far.heartbeat += 5
    assert run.status(far, NOW).state == "running", "it was only slow"


def test_a_run_of_the_same_name_in_another_folder_is_another_run(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    far = State(state="running", pid=7, host=ELSEWHERE, heartbeat=NOW)
    for name in ("one", "two"):
        (tmp_path / name / "runs" / "a").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name)
        assert RunDir(Path("runs/a")).status(far, NOW).state == "running"
        clock[0] += LOST_AFTER_SECONDS + 1


# --- kills for memory ------------------------------------------------------------------------------------------------


def test_what_the_kernel_tells_of_the_end_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int | None] = [3]
    monkeypatch.setattr(liveness, "oom_kills", lambda source: counted[0])
    group = "/sys/fs/cgroup/job/memory.events"
    end = liveness.how_it_ended(Process(pid=1, oom_source=group, oom_kills=2))
    assert end == "the kernel killed a process in its control group because memory ran out"
    host = liveness.how_it_ended(Process(pid=1, oom_source=liveness.HOST_KILLS, oom_kills=1))
    assert host == "the kernel killed 2 processes on this host because memory ran out"
    counted[0] = 2
    assert "not for memory" in liveness.how_it_ended(Process(pid=1, oom_source=group, oom_kills=2))
    for unknown in (Process(pid=1), Process(pid=1, oom_source=group)):
        assert liveness.how_it_ended(unknown).endswith("killed, by a scheduler or for memory?")
    counted[0] = None
    assert "by a scheduler or for memory?" in liveness.how_it_ended(Process(pid=1, oom_source=group, oom_kills=2))


def test_only_counters_of_the_kernel_are_opened_at_the_word_of_a_state(tmp_path: Path) -> None:
    mine = tmp_path / "memory.events"
    mine.write_text("oom_kill 5\n")
    assert liveness.oom_kills(str(mine)) is None
    assert liveness.oom_kills(f"/sys/fs/cgroup/../../..{mine}") is None
    if source := liveness.oom_source():
        assert isinstance(liveness.oom_kills(source), int)
