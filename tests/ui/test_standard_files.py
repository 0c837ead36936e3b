"""Standard files that are closed, full, or whose reader has left: no command makes a defect of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.recorded import record_run

CAFE = f"{sys.executable} -m cafe_tui"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("standard")
    record_run(top / "runs")
    return top


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("ls <&-", 0),
        ("ls >&-", 0),
        ("ls <&- >&- 2>&-", 0),
        ("rm last <&-", 2),
        ("show nothing 2>&-", 2),
        (" <&-", 2),
        ("tag last one <&- >&-", 0),
    ],
)
def test_closed_standard_files_are_like_the_null_device(command: str, code: int, folder: Path) -> None:
    answer = shell(f"{CAFE} {command}", folder)
    assert answer.returncode == code, answer.stderr
    assert "defect" not in answer.stderr
    assert "Traceback" not in answer.stderr
    if ">&-" in command and "2>&-" not in command:
        assert (answer.stdout, answer.stderr) == ("", "")


def test_no_file_gets_the_number_of_a_closed_standard_file(folder: Path) -> None:
    script = (
        "import os, sys; sys.argv = ['cafe', 'ls']\n"
        "from cafe_tui import __main__ as m\n"
        "m._main = lambda: sys.exit(0 if os.open('runs', os.O_RDONLY) > 2 else 9)\n"
        "m.main()"
    )
    assert shell(f'{sys.executable} -c "{script}" <&- >&- 2>&-', folder).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [["ls"], ["--help"], ["ls", "--json"], ["show", "last"], ["profiles"], ["tag", "last", "two"]],
    ids=" ".join,
)
def test_a_reader_that_has_left_is_no_failure(arguments: Sequence[str], folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    answer = subprocess.run(
        [sys.executable, "-m", "cafe_tui", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (answer.returncode, answer.stderr) == (141, "")


def test_a_reader_of_errors_that_has_left_is_no_failure_either(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for command in (["show", "nothing"], ["nonsense"]):
        answer = subprocess.run(
            [sys.executable, "-m", "cafe_tui", *command], cwd=folder, stdout=writing, stderr=writing, check=False
        )
        assert answer.returncode == 141
    os.close(writing)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
def test_an_output_that_is_full_is_one_message(folder: Path) -> None:
    answer = shell(f"{CAFE} ls >/dev/full", folder)
    assert answer.returncode == 1
    assert answer.stderr == "cafe: cannot write the output: No space left on device\n"
