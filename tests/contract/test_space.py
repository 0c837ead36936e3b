"""A disk that refuses says why in one of four ways, and a run has room for its last words."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from engine import process
from engine.contract.errors import CafeError, DiskError, UsageError
from engine.contract.run import rundir, space
from engine.contract.run.records import ErrorNote, Message, RecordReader
from engine.contract.run.rundir import RunDir, State
from engine.record import Recorder

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A small file system of one's own, with the options given."""
    places: list[Path] = []

    def make(options: str) -> Path:
        if os.geteuid() != 0:
            pytest.skip("only root can mount a small file system")
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
        places.append(place)
        return place

    yield make
    for place in places:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def another_user() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root can be two users")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def fill(folder: Path) -> None:
    """Write until nothing more fits."""
    with (folder / "full").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    assert os.statvfs(folder).f_bavail == 0


def refused(path: Path) -> str:
    with pytest.raises(DiskError) as caught:
        rundir.write_atomically(path, b"x" * 5000)
    return str(caught.value)


def test_full_without_inodes_forbidden_and_missing_are_four_messages(tmp_path: Path, mount: Mount) -> None:
    full, crowded = mount("size=1m"), mount("size=1m,nr_inodes=3")
    fill(full)
    for name in "ab":
        (crowded / name).touch()
    told = [refused(full / "x"), refused(crowded / "x"), refused(tmp_path / "away" / "x")]
    with tempfile.TemporaryDirectory() as mine:  # not below the folder of pytest, which others may not enter
        os.chmod(mine, 0o755)
        with another_user():
            told.append(refused(Path(mine, "x")))
    for message, words in zip(
        told,
        (
            "the disk is full, 0 MB free",
            "no inodes are left",
            f"the folder {tmp_path / 'away'} does not exist",
            f"Permission denied; {mine} belongs to root",
        ),
        strict=True,
    ):
        assert words in message
    assert len({message.partition(": ")[2] for message in told}) == 4


def test_the_same_four_where_nothing_can_be_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = os.statvfs(tmp_path)
    values = {name: getattr(disk, name) for name in dir(disk) if name.startswith("f_")}

    def told(number: int, path: Path, **other: int) -> str:
        found = type("Disk", (), values | other)()
        monkeypatch.setattr(space.os, "statvfs", lambda _: found)
        return space.refusal(OSError(number, os.strerror(number)), path)[0]

    inside = tmp_path / "x"
    assert told(errno.ENOSPC, inside, f_bavail=3, f_frsize=1_000_000, f_favail=9) == "the disk is full, 3 MB free"
    assert told(errno.ENOSPC, inside, f_files=9, f_favail=0).startswith("no inodes are left")
    assert told(errno.ENOSPC, inside, f_files=0, f_favail=0, f_bavail=10**6, f_frsize=10**6).startswith("No space left")
    assert told(errno.EACCES, inside).startswith(f"Permission denied; {tmp_path} belongs to ")
    assert told(errno.ENOENT, tmp_path / "away" / "x") == f"the folder {tmp_path / 'away'} does not exist"
    assert told(errno.EROFS, inside) == "the disk is mounted read-only"
    assert told(errno.EDQUOT, inside) == "your disk quota is used up"
    assert told(errno.EIO, inside) == "Input/output error"


def test_a_run_on_a_full_disk_fails_with_its_reason_and_a_log(
    mount: Mount, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = mount("size=1m")
    run = rundir.create(disk, "quick", 'name = "quick"\n')
    assert run.reserve_file.stat().st_size == space.RESERVE_BYTES

    def work(directory: RunDir, recorder: Recorder, brake: object) -> None:
        recorder.state("running")
        fill(disk)
        while True:
            recorder.write(Message(text="x" * 5000))

    monkeypatch.setattr("engine.pipeline.execute", work)
    assert process.run(run) == 1
    state = run.state()
    assert state.state == "failed"
    assert "the disk is full, 0 MB free" in state.error
    assert "Free some space" in state.hint
    (note,) = [record for record in RecordReader(run.records_file).read() if isinstance(record, ErrorNote)]
    assert note.text == state.error
    assert "the disk is full" in capfd.readouterr().err
    assert not run.reserve_file.exists()


def test_an_engine_that_begins_on_a_full_disk_says_so(mount: Mount) -> None:
    disk = mount("size=1m")
    run = rundir.create(disk, "quick", 'name = "quick"\n')
    fill(disk)
    with pytest.raises(CafeError, match="the disk is full"):
        process.run(run)
    assert (run.state().state, run.status().state) == ("failed", "failed")
    assert "the disk is full" in run.status().reason
    with pytest.raises(UsageError, match=r"cannot create a run in .*: the disk is full, 0 MB free"):
        rundir.create(disk, "another", "#" * 5000)


def test_a_run_that_vanished_on_a_full_disk_says_so(mount: Mount) -> None:
    disk = mount("size=3m")
    run = rundir.create(disk, "quick", 'name = "quick"\n')
    gone = State(state="running", pid=2**22 + 1, host=run.info().host)
    run.write_state(gone)
    assert "ended without a word" in run.status().reason
    fill(disk)
    assert "the disk is full, 0 MB free" in run.status().reason


def test_the_reserve_is_there_while_a_run_lives_and_gone_when_it_has_ended(tmp_path: Path) -> None:
    run = rundir.create(tmp_path, "quick", 'name = "quick"\n')
    with Recorder(run) as recorder:
        recorder.state("running")
        assert run.reserve_file.exists()
        recorder.end("stopped")
    assert run.state().state == "stopped"
    assert not run.reserve_file.exists()
    shutil.rmtree(run.control)
