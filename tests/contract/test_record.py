"""The Recorder, as the readers of its run directory see it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from engine import record
from engine.contract.errors import DiskError
from engine.contract.run import rundir
from engine.contract.run.records import ErrorNote, Message, RecordReader, Scalars
from engine.contract.run.results import Results, make_cell
from engine.contract.run.rundir import RunDir, State, Status
from engine.record import Recorder
from tests.patience import PATIENCE, wait_until

ROOT = Path(record.__file__).parents[1]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return rundir.create(tmp_path / "runs", "quick", 'name = "quick"\n')


@pytest.fixture
def quick_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "HEARTBEAT_SECONDS", 0.02)


def texts(run: RunDir) -> list[str]:
    return [found.text for found in RecordReader(run.records_file).read() if isinstance(found, Message)]


# --- records ---------------------------------------------------------------------------------------------------------


def test_a_record_is_one_line_in_one_write_stamped_with_the_time(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    plain_write = os.write

    def write(file: int, data: bytes) -> int:
        writes.append(data)
        return plain_write(file, data)

    with Recorder(run) as recorder:
        monkeypatch.setattr(os, "write", write)
        before = time.time()
        for i in range(3):
            recorder.write(Message(text=f"line\n{i}"))
        monkeypatch.undo()
        assert len(writes) == 3
        assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in writes)
        assert run.records_file.read_bytes() == b"".join(writes)  # seen at once, not when the file is closed
    found = RecordReader(run.records_file).read()
    assert all(before <= one.t <= time.time() for one in found)


def test_a_torn_tail_is_ended_before_the_first_record(run: RunDir) -> None:
    run.records_file.write_bytes(b'{"kind":"message","text":"whole"}\n{"kind":"message","te')
    with Recorder(run) as recorder:
        recorder.write(Message(text="resumed"))
    reader = RecordReader(run.records_file)
    assert [one.text for one in reader.read() if isinstance(one, Message)] == ["whole", "resumed"]
    assert reader.skipped == 1


def test_a_whole_tail_is_left_alone(run: RunDir) -> None:
    run.records_file.write_bytes(b'{"kind":"message","text":"whole"}\n')
    with Recorder(run) as recorder:
        recorder.write(Message(text="resumed"))
    assert b"\n\n" not in run.records_file.read_bytes()
    assert texts(run) == ["whole", "resumed"]


def test_a_reader_beside_the_writer_sees_every_record_once(run: RunDir) -> None:
    count = 5000

    def write() -> None:
        with Recorder(run) as recorder:
            for step in range(count):
                recorder.write(Scalars(stage="train", step=step, values={"loss": 0.5}))

    writer = threading.Thread(target=write)
    writer.start()
    reader = RecordReader(run.records_file)
    steps: list[int] = []
    deadline = time.monotonic() + PATIENCE
    while len(steps) < count:
        steps += [one.step for one in reader.read(max_bytes=1000) if isinstance(one, Scalars)]
        assert time.monotonic() < deadline
    writer.join()
    assert steps == list(range(count))
    assert reader.skipped == 0


def test_a_closed_recorder_writes_nowhere(run: RunDir, tmp_path: Path) -> None:
    with Recorder(run) as recorder:
        pass
    with (tmp_path / "innocent").open("wb"), pytest.raises(DiskError):  # takes the number of the closed file
        recorder.write(Message(text="late"))
    assert (tmp_path / "innocent").read_bytes() == b""
    assert texts(run) == []


def test_a_run_directory_that_is_gone_is_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="missing does not exist"):
        Recorder(RunDir(tmp_path / "missing"))


# --- a full disk -----------------------------------------------------------------------------------------------------

FULL = """
import os, resource, sys
from pathlib import Path
from engine.contract.errors import DiskError
from engine.contract.run.records import ErrorNote, Message
from engine.contract.run.rundir import RunDir
from engine.record import Recorder

with Recorder(RunDir(Path(sys.argv[1]))) as recorder:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    try:
        for i in range(1000):
            recorder.write(Message(text=f"{i} " + "x" * 500))
    except DiskError as error:
        print(i, error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    recorder.write(ErrorNote(text="the disk was full"))
"""


def test_a_full_disk_is_told_and_what_was_written_stays_readable(run: RunDir) -> None:
    script = [sys.executable, "-c", textwrap.dedent(FULL), str(run.path)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    refused, _, message = done.stdout.partition(" ")
    assert message.startswith(f"cannot write {run.records_file}: No space left, though ")
    assert "\nFree some space" in message
    reader = RecordReader(run.records_file)
    found = reader.read()
    assert [int(one.text.split()[0]) for one in found if isinstance(one, Message)] == list(range(int(refused)))
    # The line torn by the full disk is ended, so that the reason, once there is space, is a line of its own.
    assert isinstance(found[-1], ErrorNote)
    assert reader.skipped == 1


# --- state and heartbeat ---------------------------------------------------------------------------------------------


def test_on_entering_the_process_is_named_and_alive(run: RunDir) -> None:
    with Recorder(run):
        state = run.state()
        assert (state.state, state.pid) == ("starting", os.getpid())
        assert run.status() == Status("starting")


def test_a_change_of_state_is_on_disk_at_once(run: RunDir) -> None:
    with Recorder(run) as recorder:
        recorder.state("running")
        assert run.state().state == "running"
        recorder.state("failed", error="no space", hint="make some")
        state = run.state()
    assert (state.state, state.error, state.hint) == ("failed", "no space", "make some")
    assert run.status() == Status("failed", "no space")


def test_progress_reaches_the_disk_with_the_next_flush(run: RunDir) -> None:
    with Recorder(run) as recorder:
        recorder.progress("game", 3, 10, 1.5)
        assert run.state().stage == ""
        recorder.flush_state()
        state = run.state()
    assert (state.stage, state.step, state.total_steps, state.progress) == ("game", 3, 10, 1.0)


@pytest.mark.usefixtures("quick_heart")
def test_the_heart_beats_while_the_main_thread_is_busy_and_stops_on_leaving(run: RunDir) -> None:
    with Recorder(run) as recorder:
        recorder.progress("train", 7, 10, 0.5)
        beats: set[float] = set()
        deadline = time.monotonic() + PATIENCE
        while len(beats) < 3:  # never yields: only the switch of threads lets the heart beat
            beats.add(run.state().heartbeat)
            assert time.monotonic() < deadline
        assert run.state().step == 7
    last = run.state().heartbeat
    time.sleep(0.1)
    assert run.state().heartbeat == last
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


@pytest.mark.usefixtures("quick_heart")
def test_the_heart_survives_a_disk_that_refuses_for_a_while(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    write, refused = RunDir.write_state, threading.Event()

    def watched(run: RunDir, state: State) -> None:
        try:
            write(run, state)
        except DiskError:
            refused.set()
            raise

    monkeypatch.setattr(RunDir, "write_state", watched)
    with Recorder(run) as recorder:
        away = run.path.with_name("away")
        run.path.rename(away)
        assert refused.wait(PATIENCE), "of the heart"
        with pytest.raises(DiskError):
            recorder.flush_state()
        away.rename(run.path)
        before = run.state().heartbeat
        wait_until(lambda: run.state().heartbeat != before)


def test_progress_does_not_wait_for_a_slow_disk(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, entered = threading.Event(), threading.Event()

    def fsync(_: int) -> None:
        entered.set()
        slow.wait(PATIENCE)

    with Recorder(run) as recorder:
        monkeypatch.setattr(os, "fsync", fsync)
        flush = threading.Thread(target=recorder.flush_state)
        flush.start()
        assert entered.wait(PATIENCE)
        recorder.progress("train", 8, 10, 0.5)  # would wait for `slow` for ever
        assert flush.is_alive()
        slow.set()
        flush.join()


def test_an_exception_ends_the_heartbeat_too(run: RunDir) -> None:
    with pytest.raises(ZeroDivisionError), Recorder(run):
        _ = 1 / 0
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


# --- results and facts -----------------------------------------------------------------------------------------------


def test_results_and_facts_are_read_back(run: RunDir) -> None:
    results = Results(cells=[make_cell("train", "pgd", 5, 10)], headline={"robust": 50.0})
    with Recorder(run) as recorder:
        recorder.results(results)
        recorder.add_facts(versions={"torch": "2.6"}, devices=["cpu"])
    assert run.results() == results
    info = run.info()
    assert (info.name, info.versions, info.devices) == ("quick", {"torch": "2.6"}, ["cpu"])
    assert list(run.path.glob(".*")) == []
