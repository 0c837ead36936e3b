"""run.json under many hands: no tag is lost, and what cannot be read is never written over."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest

from engine.contract.errors import UsageError
from engine.contract.run import rundir
from engine.contract.run.records import RecordReader, WarningNote
from engine.contract.run.rundir import RunDir
from engine.record import Recorder


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return rundir.create(tmp_path / "runs", "quick", "", tags=["first"], command=["cafe", "run"])


def child(act: Callable[[], object]) -> int:
    """A process of its own that does something; its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return pid


def test_of_twelve_who_tag_at_once_all_tags_stay(run: RunDir) -> None:
    words = [f"tag{i}" for i in range(12)]
    gate_out, gate_in = os.pipe()

    def tag(word: str) -> None:
        os.read(gate_out, 1)  # all begin when the first word is given
        rundir.annotate(run, add=[word])

    children = [child(lambda word=word: tag(word)) for word in words]
    engine = child(lambda: (os.read(gate_out, 1), Recorder(run).add_facts(versions={"python": "3"}, devices=["cpu"])))
    os.write(gate_in, b"!" * 13)
    assert [os.waitpid(pid, 0)[1] for pid in (*children, engine)] == [0] * 13
    info = run.info()
    assert sorted(info.tags) == sorted(["first", *words])
    assert (info.command, info.versions, info.devices) == (["cafe", "run"], {"python": "3"}, ["cpu"])


def test_one_who_dies_while_changing_it_stops_nobody(run: RunDir) -> None:
    def die() -> None:
        with rundir.changed_info(run) as info:
            info.tags = []
            os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(child(die), 0)
    assert rundir.annotate(run, add=["second"]).tags == ["first", "second"]


def test_one_who_never_ends_is_told_and_run_json_left(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "INFO_PATIENCE", 0.1)
    before = run.info_file.read_bytes()
    with filelock.FileLock(run.control / "info.lock"):
        with pytest.raises(UsageError, match=r"another process has been changing .*run\.json"):
            rundir.annotate(run, add=["second"])
        Recorder(run).add_facts(versions={}, devices=[])
    assert run.info_file.read_bytes() == before


def test_a_file_system_without_locks_takes_tags_all_the_same(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert rundir.annotate(run, add=["second"]).tags == ["first", "second"]


@pytest.mark.parametrize("damage", [b"", b'{"id":"x","name":"x","created":1,"tags":["a"', b"\xff\xfe", None])
def test_a_run_json_that_cannot_be_read_is_never_written_over(run: RunDir, damage: bytes | None) -> None:
    if damage is None:
        run.info_file.unlink()
    else:
        run.info_file.write_bytes(damage)
    with Recorder(run) as engine:
        engine.add_facts(versions={"python": "3"}, devices=["cpu"])
    with pytest.raises(UsageError, match=r"cannot read .*run\.json: .*; it was left as it is"):
        rundir.annotate(run, note="new")
    if damage is None:
        assert not run.info_file.exists()
    else:
        assert run.info_file.read_bytes() == damage
    (warning,) = (record for record in RecordReader(run.records_file).read() if isinstance(record, WarningNote))
    assert warning.text.startswith("versions and devices are not recorded: cannot read ")
    assert run.info().name == "quick"
