"""Run directories: made whole or not at all, found by name and by nothing else, judged alive or lost."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.contract.errors import DiskError, RunNotFound, UsageError
from engine.contract.run import listing, rundir
from engine.contract.run.liveness import LOST_AFTER_SECONDS, process_alive, process_started
from engine.contract.run.results import Results
from engine.contract.run.rundir import RunDir, State, Status
from tests.patience import PATIENCE, wait_until

HERE = socket.gethostname()
NOW = 1_800_000_000.0


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def make(runs: Path, name: str = "quick", **more: Any) -> RunDir:
    return rundir.create(runs, name, 'name = "quick"\n', **more)


def bare(runs: Path, *names: str) -> None:
    for name in names:
        (runs / name).mkdir(parents=True)


@pytest.fixture
def run(runs: Path) -> RunDir:
    return make(runs)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that refuses, with an error of the operating system, whatever goes beyond `size` bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- creating --------------------------------------------------------------------------------------------------------


def test_a_new_run_is_complete(runs: Path) -> None:
    before = time.time()
    run = make(runs, description="why", tags=["a", "b"], command=["cafe", "run"], parent="other")
    assert {path.name for path in run.path.iterdir()} == {
        *("profile.toml", "run.json", "state.json", "records.jsonl", "engine.log"),
        *("checkpoints", "outcomes", "samples", "control"),
    }
    info = run.info()
    assert (info.id, info.name, info.host, info.parent) == (run.id, "quick", HERE, "other")
    assert (info.description, info.tags, info.command) == ("why", ["a", "b"], ["cafe", "run"])
    assert before <= info.created <= time.time()
    assert run.profile_file.read_text(encoding="utf-8") == 'name = "quick"\n'
    assert run.status() == Status("starting")
    assert run.results() is None


def test_an_id_is_date_time_name_and_four_characters(runs: Path) -> None:
    before = int(time.time())
    run = make(runs, "a.b_c-D")
    stamp, letters = run.id.split("-a.b_c-D-")
    assert before <= time.mktime(time.strptime(stamp, "%Y%m%d-%H%M%S")) <= time.time()
    assert len(letters) == 4
    assert letters.isalnum()


def test_runs_made_in_the_same_second_have_their_own_ids(runs: Path) -> None:
    assert len({make(runs).id for _ in range(50)}) == 50


def test_an_id_that_is_taken_is_drawn_again(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = iter("aaaabbbbaaaabbbbcccc")
    monkeypatch.setattr("random.SystemRandom.choices", lambda _, alphabet, k: [next(letters) for _ in range(k)])
    monkeypatch.setattr("time.time", lambda: NOW)
    first = make(runs)
    unfinished = runs / f".new-{first.id[:-4]}bbbb"
    unfinished.mkdir()
    (unfinished / "mine").touch()
    assert [first.id[-4:], make(runs).id[-4:]] == ["aaaa", "cccc"]
    assert (unfinished / "mine").exists()


def test_a_full_disk_leaves_nothing_behind(runs: Path) -> None:
    with largest_file(1000), pytest.raises(UsageError, match=r"cannot create a run in .*: File too large") as caught:
        rundir.create(runs, "quick", "#" * 5000)
    assert "--runs" in caught.value.hint
    assert list(runs.iterdir()) == []


def test_a_profile_that_is_no_text_leaves_nothing_behind(runs: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        rundir.create(runs, "quick", "\udcff")
    assert list(runs.iterdir()) == []


@pytest.mark.parametrize("below", ["", "deep/er"])
def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot create a run in "):
        make(tmp_path / "file" / below)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="Permission denied"):
        make(tmp_path / "runs")
    with pytest.raises(UsageError, match="Permission denied"):
        make(tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", "a b", "a\n", "x" * 61, "é", "-a", ".hidden"])
def test_a_name_that_is_no_part_of_a_folder_name_is_refused(runs: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be called"):
        make(runs, name)
    assert not runs.exists()


# --- listing and finding ---------------------------------------------------------------------------------------------

IDS = ("20260101-120000-b-aaaa", "20260102-120000-a-aaaa", "20260102-120001-a-aaab")


def test_the_newest_run_is_listed_first(runs: Path) -> None:
    bare(runs, *IDS)
    assert [run.id for run in listing.newest_first(runs)] == list(reversed(IDS))


def test_runs_of_the_same_second_are_listed_by_the_time_of_their_creation(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([NOW, NOW + 0.1, NOW + 0.2, NOW + 0.3])
    monkeypatch.setattr("time.time", lambda: next(moments))
    made = [make(runs, name).id for name in "bacd"]
    assert [run.id for run in listing.newest_first(runs)] == made[::-1]
    assert listing.find(runs, "last").id == made[-1]


def test_a_renamed_run_keeps_its_place(runs: Path) -> None:
    bare(runs, "20200101-120000-old-aaaa", "29990101-120000-new-aaaa")
    make(runs).path.rename(runs / "renamed")
    assert [run.id for run in listing.newest_first(runs)] == [
        "29990101-120000-new-aaaa",
        "renamed",
        "20200101-120000-old-aaaa",
    ]


def test_what_is_no_run_is_left_out(runs: Path) -> None:
    bare(runs, IDS[0], "notes", ".git", f".new-{IDS[1]}", "20260101", "20260101-120000-b-AAAA")
    (runs / IDS[2]).touch()
    (runs / "dangling").symlink_to("nowhere")
    assert [run.id for run in listing.newest_first(runs)] == [IDS[0]]


def test_a_folder_that_does_not_exist_has_no_runs(runs: Path) -> None:
    assert listing.newest_first(runs) == []
    with pytest.raises(RunNotFound, match="no runs in"):
        listing.find(runs, "last")


def test_a_file_is_no_runs_folder(runs: Path) -> None:
    runs.touch()
    with pytest.raises(UsageError, match="cannot read the runs folder"):
        listing.newest_first(runs)


@pytest.mark.parametrize(
    ("reference", "found"),
    [("last", IDS[2]), (IDS[0], IDS[0]), ("20260101", IDS[0]), ("20260102-120001", IDS[2]), (IDS[1][:-1], IDS[1])],
)
def test_runs_are_found_by_id_prefix_and_last(runs: Path, reference: str, found: str) -> None:
    bare(runs, *IDS)
    assert listing.find(runs, reference).path == runs / found


def test_an_id_that_begins_another_is_found(runs: Path) -> None:
    bare(runs, IDS[0], f"{IDS[0]}-bbbb")
    assert listing.find(runs, IDS[0]).id == IDS[0]


def test_an_ambiguous_prefix_names_what_it_could_mean(runs: Path) -> None:
    bare(runs, *IDS)
    with pytest.raises(RunNotFound, match=f"2 runs begin with '20260102': {IDS[2]}, {IDS[1]}") as caught:
        listing.find(runs, "20260102")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "reference",
    [
        "",
        ".",
        "..",
        "../outside",
        "/",
        "/etc",
        "*",
        "20260101*",
        f"{IDS[0]}/..",
        f"../runs/{IDS[0]}",
        "a\0b",
        "x" * 5000,
    ],
)
def test_no_reference_leaves_the_folder(runs: Path, reference: str) -> None:
    bare(runs, *IDS)
    bare(runs.parent, "outside")
    (runs.parent / "outside" / "run.json").touch()
    with pytest.raises(RunNotFound, match="no run "):
        listing.find(runs, reference)


# --- small files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"[" * 100_000], ids=range(5))
def test_broken_small_files_are_read_as_missing(run: RunDir, content: bytes) -> None:
    for file in (run.info_file, run.state_file, run.results_file):
        file.write_bytes(content)
    assert run.state() == State(state="starting")
    assert run.results() is None
    info = run.info()
    assert (info.id, info.name) == (run.id, "quick")
    assert abs(info.created - time.time()) < 5


@pytest.mark.parametrize("content", [b'{"state":"dancing"}', b'{"step":1.5}', b'{"pid":"1"}'])
def test_a_state_of_wrong_types_is_read_as_missing(run: RunDir, content: bytes) -> None:
    run.state_file.write_bytes(content)
    assert run.state() == State(state="starting")


def test_a_directory_without_files_is_still_a_run(runs: Path) -> None:
    bare(runs, IDS[0])
    run = listing.find(runs, IDS[0])
    assert run.info().name == "b"
    assert run.status() == Status("lost", f"no sign of life; see {run.log_file}")


def test_unknown_keys_of_later_versions_are_passed_over(run: RunDir) -> None:
    run.state_file.write_bytes(b'{"state":"finished","mood":"good"}')
    run.results_file.write_bytes(b'{"v":2,"cells":[],"plot":"x"}')
    assert run.status() == Status("finished")
    assert run.results() == Results(v=2)


def test_a_reader_never_sees_a_torn_state(run: RunDir) -> None:
    rounds = 300

    def write() -> None:
        for step in range(1, rounds + 1):
            run.write_state(State(state="running", step=step, error="x" * (step * 37 % 5000)))

    run.write_state(State(state="running"))
    writer = threading.Thread(target=write)
    writer.start()
    seen: set[int] = set()
    while writer.is_alive():
        state = json.loads(run.state_file.read_bytes())
        assert len(state["error"]) == state["step"] * 37 % 5000
        seen.add(state["step"])
    writer.join()
    assert len(seen) > 1
    assert run.state().step == rounds
    assert sorted(path.name for path in run.path.glob(".*")) == []


def test_a_state_the_disk_refuses_leaves_the_old_one(run: RunDir) -> None:
    run.write_state(State(state="running", step=7))
    with largest_file(100), pytest.raises(DiskError, match=r"cannot write .*state\.json: File too large"):
        run.write_state(State(state="running", step=8, error="x" * 1000))
    assert run.state().step == 7
    assert list(run.path.glob(".*")) == []


def test_writing_where_no_folder_is_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing" / "state.json", tmp_path / "file" / "state.json"):
        with pytest.raises(DiskError, match="cannot write"):
            rundir.write_atomically(path, b"{}")


def test_an_error_text_that_utf8_cannot_hold_is_written(run: RunDir) -> None:
    run.write_state(State(state="failed", error=os.fsdecode(b"caf\xe9")))
    assert run.status() == Status("failed", "caf?")


def test_a_stop_is_asked_for_by_a_file(run: RunDir) -> None:
    shutil.rmtree(run.control)
    run.request_stop()
    run.request_stop()
    assert run.stop_file.is_file()


def test_a_stop_that_cannot_be_asked_for_is_told(run: RunDir) -> None:
    shutil.rmtree(run.control)
    run.control.touch()
    with pytest.raises(DiskError, match="cannot ask"):
        run.request_stop()


# --- alive or lost ---------------------------------------------------------------------------------------------------


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.communicate(timeout=PATIENCE)


def here(pid: int, started: float | None = None) -> State:
    """A state as an engine on this host writes it, with a heartbeat long past."""
    return State(state="running", pid=pid, pid_started=started, host=HERE, heartbeat=NOW - 1e6)


def test_a_living_process_of_this_host_needs_no_heartbeat(run: RunDir, child: subprocess.Popen[bytes]) -> None:
    state = here(child.pid, process_started(child.pid))
    assert run.status(state, NOW) == Status("running")


def test_a_dead_process_is_lost(run: RunDir, child: subprocess.Popen[bytes]) -> None:
    state = here(child.pid, process_started(child.pid))
    child.communicate(timeout=PATIENCE)
    status = run.status(state, NOW)
    assert (status.state, status.final) == ("lost", True)
    assert f"process {child.pid} is gone" in status.reason
    assert str(run.log_file) in status.reason


def test_a_zombie_is_lost(run: RunDir, child: subprocess.Popen[bytes]) -> None:
    state = here(child.pid, process_started(child.pid))
    child.kill()
    wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
    assert run.status(state, NOW).state == "lost"


def test_another_process_with_the_same_number_is_lost(run: RunDir) -> None:
    pid = os.getpid()
    assert run.status(here(pid, process_started(pid) - 100), NOW).state == "lost"
    assert run.status(here(pid, process_started(pid)), NOW).state == "running"
    assert run.status(here(pid), NOW).state == "running"


@pytest.mark.parametrize("pid", [-1, 2**22 + 1, 2**31, 2**63, 10**30])
def test_what_is_no_process_number_is_no_process(pid: int) -> None:
    assert not process_alive(pid, None)


@pytest.mark.parametrize("state", ["queued", "starting", "running", "stopping"])
def test_another_host_is_judged_by_its_heartbeat(run: RunDir, state: rundir.StateName) -> None:
    # Our own pid: it must not be looked for here.
    far = State(state=state, pid=os.getpid(), pid_started=0.0, host="elsewhere", heartbeat=NOW)
    assert run.status(far, NOW + LOST_AFTER_SECONDS) == Status(state)
    status = run.status(far, NOW + LOST_AFTER_SECONDS + 1)
    assert status.state == "lost"
    assert re.search(r"no sign of life since \S+ \S+ by the clock of host elsewhere", status.reason)


def test_a_clock_that_runs_ahead_does_not_lose_a_run(run: RunDir) -> None:
    assert run.status(State(state="running", host="elsewhere", heartbeat=NOW + 3600), NOW) == Status("running")


def test_an_engine_that_never_started_is_lost_after_a_minute(run: RunDir) -> None:
    created = run.state().heartbeat
    assert run.status(now=created + LOST_AFTER_SECONDS - 1) == Status("starting")
    assert run.status(now=created + LOST_AFTER_SECONDS + 1).state == "lost"


def test_a_run_that_waits_is_lost_with_its_queue(tmp_path: Path) -> None:
    run = rundir.create(tmp_path, "waits", "", state="queued", tags=["sweep"])
    assert run.status().state == "queued", "nobody has taken it yet"
    waits = State(state="queued", pid=os.getpid(), host=HERE, heartbeat=NOW - 1e6)
    assert run.status(waits, NOW) == Status("queued")
    waits.pid = 2**22 + 1
    status = run.status(waits, NOW)
    assert status.state == "lost"
    assert "its queue (process 4194305) is gone; `cafe resume`" in status.reason
    assert [found.id for found in listing.tagged(tmp_path, "sweep")] == [run.id]


@pytest.mark.parametrize("state", ["stopped", "finished", "failed", "lost"])
def test_a_final_state_stays(run: RunDir, state: rundir.StateName) -> None:
    written = State(state=state, pid=2**22 + 1, host=HERE, heartbeat=0.0, error="why")
    assert run.status(written, NOW) == Status(state, "why")
    assert run.status(written, NOW).final
