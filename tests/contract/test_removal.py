"""Removing runs: what a removal leaves can be seen and removed, and a link is only a link."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cafe_tui.launch import local
from engine.contract.errors import DiskError, RunNotFound, UsageError
from engine.contract.run import listing, rundir
from engine.contract.run.rundir import RunDir, State


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def run(runs: Path) -> RunDir:
    made = rundir.create(runs, "quick", "", tags=["sweep"])
    made.write_state(State(state="finished"))
    return made


def fail_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that lets its first files go and then no more, as where one is held open over NFS."""

    def rmtree(path: Path) -> None:
        for name in ("run.json", "state.json", "profile.toml"):
            (path / name).unlink(missing_ok=True)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path / ".nfs0001"))

    monkeypatch.setattr(shutil, "rmtree", rmtree)


def test_a_removed_run_leaves_nothing(run: RunDir, runs: Path) -> None:
    rundir.remove(run)
    assert list(runs.iterdir()) == []


def test_of_a_linked_run_the_link_is_removed(run: RunDir, runs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / run.id
    elsewhere.parent.mkdir()
    run.path.rename(elsewhere)
    run.path.symlink_to(elsewhere)
    linked = listing.find(runs, "last")
    rundir.remove(linked)
    assert list(runs.iterdir()) == []
    assert RunDir(elsewhere).info().tags == ["sweep"]
    assert RunDir(elsewhere).profile_file.is_file()


def test_what_a_failed_removal_leaves_is_listed_and_removed(
    run: RunDir, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_half_way(patch)
        with pytest.raises(DiskError, match=r"cannot delete all of .*busy: .*nfs0001") as caught:
            rundir.remove(run)
        assert f"cafe rm {run.id}.partly-removed" in caught.value.hint
    (rest,) = listing.newest_first(runs)
    assert rest.id == f"{run.id}.partly-removed"
    assert rest.info().name == "quick"
    assert rest.status().state == "lost"
    assert "partly removed; `cafe rm" in rest.status().reason
    with pytest.raises(RunNotFound):
        listing.find(runs, "last")
    assert listing.tagged(runs, "sweep") == []
    with pytest.raises(UsageError, match="rest of a removed run"):
        local.resume(rest)
    assert listing.find(runs, run.id).path == rest.path
    rundir.remove(rest)
    assert list(runs.iterdir()) == []


def test_what_a_killed_removal_leaves_is_listed_and_removed(run: RunDir, runs: Path) -> None:
    child = os.fork()
    if child == 0:
        shutil.rmtree = lambda path: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, misc]
        rundir.remove(run)
    os.waitpid(child, 0)
    (rest,) = listing.newest_first(runs)
    assert rest.partly_removed
    assert rest.info().tags == ["sweep"], "what is left is read"
    assert listing.tagged(runs, "sweep") == [], "but a sweep makes the run anew"
    rundir.remove(rest)
    assert list(runs.iterdir()) == []


def test_what_earlier_versions_left_hidden_is_listed_and_removed(run: RunDir, runs: Path) -> None:
    run.path.rename(runs / f".gone-{run.id}")
    (rest,) = listing.newest_first(runs)
    assert (rest.partly_removed, rest.info().name) == (True, "quick")
    rundir.remove(listing.find(runs, f".gone-{run.id}"))
    assert list(runs.iterdir()) == []


def test_a_folder_that_refuses_keeps_the_run_as_it_was(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(DiskError, match=r"cannot delete .*: Read-only file system; it was left as it is"):
        rundir.remove(run)
    assert run.status().state == "finished"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_run_of_somebody_else_is_left_as_it_is_even_in_a_folder_that_lets_it_be_renamed() -> None:
    with TemporaryDirectory() as folder:
        run = rundir.create(Path(folder) / "runs", "quick", "")
        run.write_state(State(state="finished"))
        Path(folder).chmod(0o755)
        run.path.parent.chmod(0o777)
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            try:
                rundir.remove(run)
            except DiskError as error:
                os._exit(7 if "Permission denied; it was left as it is" in str(error) else 8)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert [path.name for path in run.path.parent.iterdir()] == [run.id]


def test_two_who_remove_the_same_run_are_both_content(run: RunDir, runs: Path) -> None:
    shutil.rmtree(run.path)
    run.path.mkdir()
    (run.path / "state.json").write_text('{"state":"finished"}')
    real = shutil.rmtree

    def quicker(path: Path) -> None:
        real(path)
        real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", quicker)
        rundir.remove(run)
    assert list(runs.iterdir()) == []
