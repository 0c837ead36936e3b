"""Entries of the runs folder that cannot be read, in the list of the command, of the follower and of the UI."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cafe_tui.reading.runs import RunsFollower, rows_of
from cafe_tui.ui.app import CafeApp
from cafe_tui.ui.screens.runs import RunsScreen
from engine.contract.run import rundir
from engine.contract.run.rundir import RunDir, State
from tests.ui.test_cli import cafe
from tests.ui.waiting import until


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def finished(runs: Path, name: str) -> RunDir:
    run = rundir.create(runs, name, "")
    run.write_state(State(state="finished", progress=1.0))
    return run


def test_the_list_names_what_it_leaves_out_on_stderr_and_is_whole(runs: Path) -> None:
    good, torn = finished(runs, "good"), finished(runs, "torn")
    torn.info_file.write_text('{"id":')
    (runs / "loop\x1b[31m").symlink_to("loop\x1b[31m")
    answer = cafe("ls", "--json", cwd=runs.parent)
    assert answer.returncode == 0
    assert {row["id"]: row["name"] for row in json.loads(answer.stdout)["runs"]} == {good.id: "good", torn.id: "torn"}
    (line,) = answer.stderr.splitlines()
    assert line.startswith("cafe: cannot read 2 entries of runs: ")
    assert f"{torn.id} (run.json is damaged" in line
    assert "(Too many levels of symbolic links)" in line
    assert "\x1b" not in line


def test_a_linked_run_loses_its_link_and_what_failed_keeps_no_other_from_going(runs: Path, tmp_path: Path) -> None:
    linked, other, alive = finished(runs, "linked"), finished(runs, "other"), finished(runs, "alive")
    elsewhere = tmp_path / "elsewhere"
    linked.path.rename(elsewhere)
    linked.path.symlink_to(elsewhere)
    (runs / f"{other.id}.partly-removed").mkdir()
    (runs / f"{other.id}.partly-removed" / "file").touch()
    answer = cafe("rm", other.id, linked.id, alive.id, "--yes", cwd=tmp_path)
    assert answer.returncode == 1
    assert answer.stdout == f"{linked.id}: link deleted; what it leads to is kept\n{alive.id} deleted\n"
    assert answer.stderr == f"cafe: cannot delete runs/{other.id}: Directory not empty; it was left as it is\n"
    assert (elsewhere / "run.json").is_file()
    assert sorted(path.name for path in runs.iterdir()) == [other.id, f"{other.id}.partly-removed"]


def test_a_follower_lists_the_rest_and_takes_back_what_can_be_read_again(runs: Path) -> None:
    good = finished(runs, "good")
    (runs / "20260101-120000-link-aaaa").symlink_to(runs.parent / "later")
    follower = RunsFollower(runs)
    rows = follower.poll()
    assert rows is not None
    assert [row.id for row in rows] == [good.id]
    assert follower.troubles == {"20260101-120000-link-aaaa": "a link to nothing"}
    (runs.parent / "later").mkdir()
    rows = follower.poll()
    assert rows is not None
    assert [row.id for row in rows] == [good.id, "20260101-120000-link-aaaa"]
    assert follower.troubles == {}
    assert [row.id for row in rows_of(runs, at_most=1)[0]] == [good.id]


async def test_the_ui_says_it_once(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(runs, "good")
    (runs / "loop").symlink_to("loop")
    monkeypatch.setattr(RunsScreen, "PERIOD", 0.02)
    said: list[str] = []
    monkeypatch.setattr(RunsScreen, "notify", lambda _, text, **__: said.append(text))
    app = CafeApp(runs)
    async with app.run_test() as pilot:
        await until(pilot, lambda: bool(said))
        looks = []
        real = RunsFollower.poll
        monkeypatch.setattr(RunsFollower, "poll", lambda self: looks.append(1) or real(self))
        await until(pilot, lambda: len(looks) > 5)
    assert said == [f"cannot read an entry of {runs}: loop (Too many levels of symbolic links)"]
