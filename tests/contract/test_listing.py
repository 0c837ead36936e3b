"""Folders of runs: in the order of their creation whatever wall clocks said, and whole despite bad entries."""

from __future__ import annotations

import errno
import os
import shutil
import time
from ast import literal_eval
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from engine.contract.errors import RunNotFound
from engine.contract.run import listing, rundir
from engine.contract.run.rundir import RunDir

NOBODY = 65534


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def _clocks() -> Iterator[None]:
    """Lets a test change the time zone."""
    yield
    os.environ.pop("TZ", None)
    time.tzset()


def made(runs: Path, name: str, created: float, zone: str = "UTC", tags: tuple[str, ...] = ()) -> str:
    """A run that a host in some time zone made at a moment."""
    os.environ["TZ"] = zone
    time.tzset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.time", lambda: created)
        return rundir.create(runs, name, "", tags=tags).id


# --- order -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_clocks")
def test_runs_of_hosts_in_several_time_zones_are_in_the_order_of_their_creation(runs: Path) -> None:
    zones = ["Pacific/Kiritimati", "UTC", "Pacific/Pago_Pago", "Asia/Tokyo"]
    ids = [made(runs, f"r{i}", 1.8e9 + 600 * i, zone, ("t",)) for i, zone in enumerate(zones)]
    assert sorted(ids) != ids
    assert [run.id for run in listing.newest_first(runs)] == ids[::-1]
    assert [run.id for run in listing.tagged(runs, "t")] == ids
    assert listing.find(runs, "last").id == ids[-1]
    with pytest.raises(RunNotFound, match=f"begin with '20270115': {ids[3]}, {ids[1]}, {ids[0]}"):
        listing.find(runs, "20270115")


@pytest.mark.usefixtures("_clocks")
def test_the_hour_that_autumn_repeats_does_not_turn_runs_round(runs: Path) -> None:
    before, after = 1792890000.0 - 1800, 1792890000.0 + 900  # 2026-10-25 02:30 CEST, and 02:15 CET
    ids = [made(runs, "first", before, "Europe/Berlin"), made(runs, "second", after, "Europe/Berlin")]
    assert ids[0] > ids[1]
    assert listing.find(runs, "last").id == ids[1]
    assert [run.id for run in listing.newest_first(runs)] == ids[::-1]


@pytest.mark.usefixtures("_clocks")
def test_runs_of_one_moment_keep_their_order(runs: Path) -> None:
    ids = sorted(made(runs, f"r{i}", 1.8e9) for i in range(9))
    for _ in range(3):
        assert [run.id for run in listing.newest_first(runs)] == ids[::-1]


# --- entries that cannot be read -------------------------------------------------------------------------------------


def broken_entries(runs: Path) -> dict[str, str]:
    """Make one of each kind that needs no second account; what should be said of it."""
    (runs / "loop").symlink_to("loop")
    (runs / "20260101-120000-loop-aaaa").symlink_to("20260101-120000-loop-aaaa")
    (runs / "20260101-120000-file-aaaa").touch()
    (runs / "20260101-120000-link-aaaa").symlink_to("nowhere")
    return {
        "loop": "Too many levels of symbolic links",
        "20260101-120000-loop-aaaa": "Too many levels of symbolic links",
        "20260101-120000-file-aaaa": "a file, not a folder",
        "20260101-120000-link-aaaa": "a link to nothing",
    }


def test_bad_entries_are_left_out_and_named_and_all_runs_are_listed(runs: Path) -> None:
    run = rundir.create(runs, "good", "")
    wanted = broken_entries(runs)
    found = listing.read(runs)
    assert [run.id for run, _ in found.known] == [run.id]
    assert found.troubles == wanted
    assert listing.find(runs, "last").id == run.id
    assert listing.find(runs, run.id[:8]).id == run.id
    with pytest.raises(RunNotFound, match=r"cannot read loop in .*: Too many levels"):
        listing.find(runs, "loop")
    said = listing.complaint(runs, found.troubles)
    assert "cannot read 4 entries of " in said
    assert said.endswith(" and 1 more")


def test_a_run_whose_run_json_is_torn_is_listed_by_what_its_id_says(runs: Path) -> None:
    run = rundir.create(runs, "torn-one", "", tags=["t"])
    run.info_file.write_bytes(run.info_file.read_bytes()[:40])
    ((found, info),) = listing.read(runs).known
    assert (found.id, info.name) == (run.id, "torn-one")
    assert abs(info.created - time.time()) < 120
    assert listing.read(runs).troubles == {run.id: "run.json is damaged: no tags and no note are known"}
    run.info_file.unlink()
    run.info_file.mkdir()
    assert listing.read(runs).troubles == {run.id: "run.json: Is a directory"}
    assert listing.find(runs, "last").id == run.id


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.EACCES])
def test_a_dead_mount_in_the_place_of_a_run_is_left_out(
    number: int, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, dead = rundir.create(runs, "good", ""), rundir.create(runs, "dead", "")

    def refusing(real):  # type: ignore[no-untyped-def]
        def call(path, *rest, **more):  # type: ignore[no-untyped-def]
            if isinstance(path, str) and path.startswith(str(dead.path)):
                raise OSError(number, os.strerror(number), path)
            return real(path, *rest, **more)

        return call

    monkeypatch.setattr(os, "open", refusing(os.open))
    monkeypatch.setattr(os, "stat", refusing(os.stat))
    found = listing.read(runs)
    assert [run.id for run, _ in found.known] == [good.id]
    assert found.troubles == {dead.id: os.strerror(number)}
    assert listing.find(runs, "last").id == good.id
    with pytest.raises(RunNotFound, match=f"cannot read {dead.id}"):
        listing.find(runs, dead.id)


def test_a_run_that_vanishes_between_two_looks_is_no_trouble(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, going = rundir.create(runs, "good", ""), rundir.create(runs, "going", "")
    scanned = listing.scan(runs)
    shutil.rmtree(going.path)
    monkeypatch.setattr(listing, "scan", lambda _: scanned)
    assert [run.id for run, _ in listing.read(runs).known] == [good.id]
    assert listing.read(runs).troubles == {}


def as_nobody(act: Callable[[], object]) -> str:
    """What `act` returns, as text, in a process of an account that owns nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writing, repr(act()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        text = answer.read().decode()
    os.waitpid(child, 0)
    return text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_what_belongs_to_somebody_else_keeps_nothing_from_the_list() -> None:
    with TemporaryDirectory() as folder:
        top = Path(folder)
        top.chmod(0o755)
        runs, private = top / "runs", top / "private"
        good, theirs = rundir.create(runs, "good", ""), rundir.create(runs, "theirs", "")
        theirs.path.chmod(0o700)
        (private / "inside").mkdir(parents=True)
        private.chmod(0o700)
        (runs / "link").symlink_to(private / "inside")
        denied = {"link": "Permission denied", theirs.id: "Permission denied"}
        said = as_nobody(lambda: ([run.id for run, _ in listing.read(runs).known], dict(listing.read(runs).troubles)))
        assert literal_eval(said) == ([good.id], denied)
        assert as_nobody(lambda: listing.find(runs, "last").id) == repr(good.id)


def test_of_many_runs_with_some_bad_entries_every_good_one_is_listed(runs: Path) -> None:
    for i in range(300):
        run = RunDir(runs / f"20260101-120000-many-{i:04d}")
        run.path.mkdir(parents=True)
        run.info_file.write_text(f'{{"id":"{run.id}","name":"many","created":{i}}}')
    broken = len(broken_entries(runs))
    found = listing.read(runs)
    assert [info.created for _, info in found.known] == [float(i) for i in reversed(range(300))]
    assert len(found.troubles) == broken
