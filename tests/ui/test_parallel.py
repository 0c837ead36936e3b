"""A helper process changes nothing about what is read, whatever becomes of it or of the file."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from cafe_tui.reading import parallel
from cafe_tui.reading import run as reading_run
from cafe_tui.reading.parallel import ParallelReader
from cafe_tui.ui.screens import polling
from engine.contract.run.columns import ColumnReader, Piece, in_columns
from engine.contract.run.records import Message, RecordReader, Scalars, encode
from tests.contract.test_columns import ODD, joined
from tests.patience import PATIENCE
from tests.recorded import record_run
from tests.ui.test_app import app_on, open_run
from tests.ui.waiting import until

SAY = "import sys; sys.stdout.buffer.write({}); sys.stdout.flush(); input(); input()"


OTHERS: set[int] = set()
"""Children of this process that were there before the test."""


@pytest.fixture(autouse=True)
def _others() -> None:
    OTHERS.clear()
    OTHERS.update(child.pid for child in psutil.Process().children())


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many parts out of a small file, for which there is all the time in the world, on any machine."""
    for name, value in (("OWN_BYTES", 3000), ("HELPER_BYTES", 5000), ("GRACE", 30.0), ("LONG", 1)):
        monkeypatch.setattr(parallel, name, value)
    monkeypatch.setattr(parallel, "processors", lambda: 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of 8,000 lines of all sorts, its last one torn."""
    draw = random.Random(0)
    lines = []
    for step in range(8_000):
        values = {"loss": draw.gauss(0, 1), "lr": 10 ** draw.uniform(-320, 308), "psi": draw.choice([None, "nan", 1.0])}
        lines.append(encode(Scalars(stage="train" if step < 5_000 else "game", step=step, t=step / 7, values=values)))
        if draw.random() < 0.01:
            lines.append(draw.choice([line.encode() + b"\n" for line in ODD] + [encode(Message(text="m")), b"\n"]))
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"".join(lines)[:-5])
    return path


def drain(reader: ParallelReader) -> Iterator[Piece]:
    while found := reader.read_columns():
        yield from found


def check(reader: ParallelReader, path: Path) -> None:
    """What is read now is what a reader of one line at a time reads."""
    plain = RecordReader(path)
    assert joined(drain(reader)) == joined(in_columns(plain.read(1 << 30)))
    assert (reader.skipped, reader.offset, reader.more) == (plain.skipped, plain.offset, False)


def helpers() -> list[psutil.Process]:
    """The helpers of this process, which other tests may have left children of other kinds."""
    return [child for child in psutil.Process().children() if child.pid not in OTHERS]


def helper_of(reader: ParallelReader) -> psutil.Process:
    (process,) = helpers()
    assert reader._helper
    assert process.pid == reader._helper.pid
    return process


def test_what_a_helper_decodes_is_what_each_line_says(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received = []
    receive = ParallelReader._receive

    def counted(self: ParallelReader) -> list[Piece]:
        received.append(receive(self))
        return received[-1]

    monkeypatch.setattr(ParallelReader, "_receive", counted)
    reader = ParallelReader(ColumnReader(path))
    reader.call()
    process = helper_of(reader)
    reader._listen(PATIENCE)  # until it is there
    check(reader, path)
    assert sum(map(bool, received)) > 50
    assert not process.is_running(), "it has nothing more to do"


def test_a_helper_that_is_always_late_only_wastes_its_own_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "GRACE", 0.0)
    with closing(ParallelReader(ColumnReader(path))) as reader:
        reader.call()
        check(reader, path)


@pytest.mark.parametrize(
    "script",
    [
        "",
        "print('hello', flush=True); input()",
        SAY.format("bytes(8)"),
        SAY.format(r"bytes(8) + b'\3' + bytes(7) + b'abc'"),
        SAY.format(r"bytes(8) + b'\3' + bytes(7) + b'a'"),
        "import time; time.sleep(60)",
    ],
    ids=["ends at once", "talks", "says nothing more", "says what is no answer", "stops in the middle", "is silent"],
)
def test_whatever_a_helper_does_all_is_read(path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "PATIENCE", 0.2)
    with closing(ParallelReader(ColumnReader(path), [sys.executable, "-c", script])) as reader:
        reader.call()
        if "sleep" not in script:
            assert reader._readable(PATIENCE)
        check(reader, path)
    assert not helpers()


def test_a_helper_that_is_killed_and_one_that_cannot_be_started(path: Path) -> None:
    with closing(ParallelReader(ColumnReader(path))) as reader:
        reader.call()
        reader._listen(PATIENCE)
        begun = list(reader.read_columns())
        helper_of(reader).kill()
        plain = ColumnReader(path)
        assert joined([*begun, *drain(reader)]) == joined(in_columns(RecordReader(path).read(1 << 30)))
        assert not plain.more
    with closing(ParallelReader(ColumnReader(path), [str(path)])) as reader:
        reader.call()
        check(reader, path)


def test_a_file_that_is_cut_off_and_written_anew_is_read_from_its_start(path: Path) -> None:
    with closing(ParallelReader(ColumnReader(path))) as reader:
        reader.call()
        reader._listen(PATIENCE)
        while reader.offset < path.stat().st_size // 2:
            assert reader.read_columns()
        assert reader._asked
        path.write_bytes(encode(Message(text="a")) * 5)
        assert list(drain(reader)) == [Message(text="a")] * 5
        assert reader.restarts == 1


def test_no_helper_for_a_short_way_or_a_single_processor(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ParallelReader(ColumnReader(path))
    monkeypatch.setattr(parallel, "LONG", path.stat().st_size + 1)
    reader.call()
    assert not helpers()
    monkeypatch.setattr(parallel, "LONG", 1)
    monkeypatch.setattr(parallel, "processors", lambda: 1)
    reader = ParallelReader(ColumnReader(path))
    reader.call()
    assert not helpers()


async def test_the_helper_of_a_screen_ends_with_it(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_run, "READING_AT_FIRST", 0.0)
    monkeypatch.setattr(polling, "BREATH", 0.2)  # so that the screen is left long before all is read
    run = record_run(tmp_path / "runs", upto="game")
    path.replace(run.records_file)
    async with app_on(tmp_path / "runs").run_test() as pilot:
        screen = await open_run(pilot)
        await until(pilot, helpers)
        await pilot.press("q")
        await until(pilot, lambda: not helpers())
        assert not screen.complete
