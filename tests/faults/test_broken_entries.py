"""A folder of runs of which one in a hundred is broken: the list has all the others, in their order."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from cafe_tui.reading.runs import RunsFollower
from engine.contract.run.rundir import Info, State
from tests.faults.test_sweep_faults import cafe

START = 1_790_000_000.0


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.parent / "no such folder")


def a_file(path: Path) -> None:
    path.write_text("not a folder")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def an_empty_folder(path: Path) -> None:
    path.mkdir()


def of_torn_files(path: Path) -> None:
    path.mkdir()
    for name in ("run.json", "state.json", "results.json", "profile.toml", "records.jsonl"):
        (path / name).write_bytes(b'{"id": "x", "created": 17')


def of_files_that_are_not_text(path: Path) -> None:
    path.mkdir()
    for name in ("run.json", "state.json", "results.json"):
        (path / name).write_bytes(b"\xff\x00\xfe" * 100)


def of_folders_in_place_of_files(path: Path) -> None:
    for name in ("run.json", "state.json", "results.json"):
        (path / name).mkdir(parents=True)


def forbidden(path: Path) -> None:
    path.mkdir(mode=0)


BROKEN: tuple[Callable[[Path], None], ...] = (
    *(a_link_to_itself, a_link_to_nothing, a_file, a_pipe, an_empty_folder),
    *(of_torn_files, of_files_that_are_not_text, of_folders_in_place_of_files, forbidden),
)


def fill(folder: Path, count: int) -> tuple[list[str], set[str]]:
    """Make so many entries; the ids of the runs, newest first, and the names of the broken entries."""
    state = msgspec.json.encode(State(state="finished", stage="evaluate", progress=1.0, heartbeat=START))
    sound, broken = [], set()
    folder.mkdir()
    for number in range(count):
        name = f"20260921-{number // 3600:02}{number // 60 % 60:02}{number % 60:02}-run{number}-{number:04}"
        path = folder / name
        if number % 100 == 50:
            BROKEN[len(broken) % len(BROKEN)](path)
            broken.add(name)
            continue
        path.mkdir()
        info = Info(id=name, name=f"run{number}", created=START + number)
        (path / "run.json").write_bytes(msgspec.json.encode(info))
        (path / "state.json").write_bytes(state)
        sound.append(name)
    return sound[::-1], broken


@pytest.mark.parametrize(
    "count", [pytest.param(900, id="900"), pytest.param(10_000, id="10000", marks=pytest.mark.long)]
)
def test_the_list_is_complete(tmp_path: Path, count: int) -> None:
    folder = tmp_path / "runs"
    sound, broken = fill(folder, count)
    assert len(broken) == count // 100

    follower = RunsFollower(folder)
    shown = [row.id for row in follower.poll() or ()]
    assert [name for name in shown if name not in broken] == sound
    follower.poll()

    answer = cafe("ls", "--json", folder=folder)
    assert answer.returncode == 0, answer.stderr
    rows = json.loads(answer.stdout)["runs"]
    assert [row["id"] for row in rows if row["id"] not in broken] == sound
    assert {row["state"] for row in rows if row["id"] not in broken} == {"finished"}
