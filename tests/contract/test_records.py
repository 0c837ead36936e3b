"""The append format: whatever is written, however it is cut and whenever it is read, the reader gives the same list."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.contract.run import records
from engine.contract.run.records import (
    AnyRecord,
    Cell,
    CheckpointWritten,
    ErrorNote,
    Message,
    Number,
    Progress,
    RecordReader,
    SampleSheet,
    Scalars,
    StageChange,
    WarningNote,
    encode,
    to_dict,
    to_float,
    to_number,
)

A = Message(text="a")
B = Scalars(stage="train", step=3, epoch=0.5, values={"loss": 1.25, "val_loss": "nan", "lr": None})
LINE = encode(A)


class Writer:
    """A records file that grows piece by piece, with the reader that follows it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "records.jsonl"
        self.reader = RecordReader(self.path)

    def append(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def drain(self, max_bytes: int = 1 << 24) -> list[AnyRecord]:
        found: list[AnyRecord] = []
        while True:
            before = self.reader.offset
            found += self.reader.read(max_bytes)
            if self.reader.offset == before:
                return found


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path)


def read_all(path: Path) -> list[AnyRecord]:
    return RecordReader(path).read()


# --- any record, any chunks, any moment ------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
COUNT = st.integers(0, 2**53)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.dictionaries(TEXT, st.floats().map(to_number) | st.none(), max_size=4)
RECORD: st.SearchStrategy[AnyRecord] = st.one_of(
    st.builds(StageChange, t=FINITE, stage=TEXT, state=st.sampled_from(["started", "finished", "resumed"])),
    st.builds(Scalars, t=FINITE, stage=TEXT, step=COUNT, epoch=FINITE, values=VALUES),
    st.builds(
        Cell,
        t=FINITE,
        model=TEXT,
        attack=TEXT,
        correct=COUNT,
        total=COUNT,
        accuracy=FINITE,
        low=FINITE,
        high=FINITE,
        seconds=FINITE,
        gradient_steps=COUNT,
        warnings=st.lists(TEXT, max_size=2),
    ),
    st.builds(Progress, t=FINITE, model=TEXT, attack=TEXT, done=COUNT, total=COUNT, robust_so_far=COUNT),
    st.builds(SampleSheet, t=FINITE, stage=TEXT, path=TEXT),
    st.builds(CheckpointWritten, t=FINITE, stage=TEXT, path=TEXT, step=COUNT, label=TEXT),
    st.builds(WarningNote, t=FINITE, text=TEXT, stage=TEXT),
    st.builds(ErrorNote, t=FINITE, text=TEXT, stage=TEXT, hint=TEXT),
    st.builds(Message, t=FINITE, text=TEXT, stage=TEXT),
)
FOREIGN = st.one_of(
    st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")),
    st.sampled_from(
        [
            b"",
            b"   ",
            b"\r",
            b"{}",
            b"null",
            b"[1]",
            b"\xff\xfe\x00",
            b'{"kind":"scalars"}',
            b'{"kind":"message",',  # with the next line, a whole record
            b'"text":"broken over lines"}',
            b'{"kind":"tomorrow","text":"a"}',
            b'{"kind":"message","text":"a","v":"new"}',
            LINE.strip() + LINE.strip(),
            LINE[:-9],
        ]
    ),
)


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`data` cut at positions given as any numbers."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


@given(
    written=st.lists(RECORD, max_size=12),
    cuts=st.lists(st.integers(0, 10**6), max_size=30),
    max_bytes=st.integers(1, 400),
)
def test_any_chunking_gives_the_records_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, written: list[AnyRecord], cuts: list[int], max_bytes: int
) -> None:
    writer = Writer(tmp_path_factory.mktemp("run"))
    found: list[AnyRecord] = []
    for piece in pieces(b"".join(map(encode, written)), cuts):
        writer.append(piece)
        found += writer.drain(max_bytes)
    assert found == written
    assert writer.reader.skipped == 0


@example(lines=[b"", 2 * b'{"kind":"message","text":"a","stage":"","v":1,"t":0.0}'], cuts=[], max_bytes=1)
@given(
    lines=st.lists(RECORD.map(lambda record: encode(record).rstrip(b"\n")) | FOREIGN, max_size=12),
    cuts=st.lists(st.integers(0, 10**6), max_size=20),
    max_bytes=st.integers(1, 400),
)
def test_foreign_lines_between_do_not_depend_on_chunks_either(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], cuts: list[int], max_bytes: int
) -> None:
    data = b"".join(line + b"\n" for line in lines)
    whole, cut = Writer(tmp_path_factory.mktemp("whole")), Writer(tmp_path_factory.mktemp("cut"))
    whole.append(data)
    expected = whole.drain()
    found: list[AnyRecord] = []
    for piece in pieces(data, cuts):
        cut.append(piece)
        found += cut.drain(max_bytes)
    assert found == expected
    assert cut.reader.skipped == whole.reader.skipped


# --- lines that are no records ---------------------------------------------------------------------------------------


def test_a_torn_last_line_waits_for_its_end(writer: Writer) -> None:
    writer.append(LINE + encode(B)[:-7])
    assert writer.drain() == [A]
    assert writer.drain() == []
    writer.append(encode(B)[-7:])
    assert writer.drain() == [B]


def test_a_line_torn_for_good_costs_only_itself(writer: Writer) -> None:
    writer.append(encode(B)[:-7] + b"\n" + LINE)
    assert writer.drain() == [A]
    assert writer.reader.skipped == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"not json",
        b'{"kind":"tomorrow","what":1}',
        b'{"text":"no kind"}',
        b'{"kind":"message"}',
        b'{"kind":"message","text":3}',
        b'{"kind":"scalars","stage":"a","step":"three"}',
        b'{"kind":"scalars","stage":"a","step":1,"values":{"loss":NaN}}',
        b'{"kind":"scalars","stage":"a","step":1,"values":{"loss":1e999}}',
        b'{"kind":"message","text":"\xff"}',
        b'{"kind":"message","text":"a","deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[" * 100_000,
        bytes(range(11, 256)),
        b"\x00" * 4096,
        LINE.strip() * 2,
    ],
    ids=range(14),
)
def test_garbage_is_counted_and_passed_over(writer: Writer, garbage: bytes) -> None:
    writer.append(LINE + garbage + b"\n" + encode(B))
    assert writer.drain() == [A, B]
    assert writer.reader.skipped == 1


def test_a_record_broken_over_lines_is_no_record(writer: Writer) -> None:
    writer.append(b'{"kind":\n"message","text":"a"}\n' + LINE)
    assert writer.drain() == [A]
    assert writer.reader.skipped == 2


def test_empty_lines_are_nothing(writer: Writer) -> None:
    writer.append(b"\n\n" + LINE + b"\n   \n\r\n" + LINE.replace(b"\n", b"\r\n"))
    assert writer.drain() == [A, A]
    assert writer.reader.skipped == 0


def test_unknown_keys_are_passed_over(writer: Writer) -> None:
    writer.append(b'{"v":2,"kind":"message","text":"a","colour":{"deep":[1,null]},"t":0.0}\n')
    assert writer.drain() == [Message(text="a", v=2)]


# --- files that change -----------------------------------------------------------------------------------------------


def test_a_file_cut_short_is_read_again(writer: Writer) -> None:
    writer.append(LINE + encode(B))
    assert writer.drain() == [A, B]
    os.truncate(writer.path, len(LINE))
    assert writer.drain() == [A]
    assert writer.reader.restarts == 1
    writer.append(LINE)
    assert writer.drain() == [A]


def test_a_file_replaced_by_a_shorter_one_is_read_again(writer: Writer, tmp_path: Path) -> None:
    writer.append(LINE + encode(B))
    writer.drain()
    other = tmp_path / "other"
    other.write_bytes(encode(ErrorNote(text="new")))
    other.replace(writer.path)
    assert writer.drain() == [ErrorNote(text="new")]
    assert writer.reader.restarts == 1


def test_a_mirrored_file_replaced_by_its_longer_self_goes_on(writer: Writer, tmp_path: Path) -> None:
    writer.append(LINE)
    assert writer.drain() == [A]
    other = tmp_path / "other"
    other.write_bytes(LINE + encode(B))
    other.replace(writer.path)
    assert writer.drain() == [B]
    assert writer.reader.restarts == 0


def test_a_file_that_goes_and_comes_back(writer: Writer) -> None:
    assert writer.drain() == []
    writer.append(LINE)
    assert writer.drain() == [A]
    writer.path.unlink()
    assert writer.drain() == []
    writer.append(LINE)
    assert writer.drain() == []
    writer.append(encode(B))
    assert writer.drain() == [B]


@pytest.mark.parametrize("name", ["missing/records.jsonl", ".", "file/below", "x" * 300], ids=str)
def test_what_is_no_file_has_no_records(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    assert read_all(tmp_path / name) == []


def test_a_line_longer_than_a_read_is_read_whole(writer: Writer) -> None:
    long = Message(text="x" * 10_000)
    writer.append(LINE + encode(long) + LINE)
    assert writer.drain(max_bytes=64) == [A, long, A]


def test_many_records(writer: Writer) -> None:
    count = 100_000
    writer.append(b"".join(encode(Scalars(stage="train", step=i, values={"loss": 1.0})) for i in range(count)))
    steps = [record.step for record in writer.drain() if isinstance(record, Scalars)]
    assert steps == list(range(count))


# --- numbers and text ------------------------------------------------------------------------------------------------


@given(st.floats())
def test_every_float_comes_back(value: float) -> None:
    record = Scalars(stage="a", step=0, values={"x": to_number(value)})
    line = encode(record)
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    (back,) = msgspec.json.decode(line, type=Scalars).numbers().values()
    assert back == value or (math.isnan(back) and math.isnan(value))


@pytest.mark.parametrize(("written", "read"), [("inf", math.inf), ("-inf", -math.inf), (0, 0.0), (2.5, 2.5)])
def test_numbers_as_written(written: Number, read: float) -> None:
    assert to_float(written) == read


@pytest.mark.parametrize("written", [None, "nan", "NaN?", ""])
def test_what_is_no_number_is_nan(written: Number) -> None:
    assert math.isnan(to_float(written))


def test_a_line_is_one_line_of_plain_json(tmp_path: Path) -> None:
    record = ErrorNote(text="two\nlines, \x00, é and \u2028", hint="", t=1.5)
    line = encode(record)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert (
        json.loads(line)
        == to_dict(record)
        == {"v": 1, "t": 1.5, "kind": "error", "stage": ""}
        | {
            "text": record.text,
            "hint": "",
        }
    )


def test_text_that_utf8_cannot_hold_is_written_with_a_question_mark(writer: Writer) -> None:
    writer.append(encode(ErrorNote(text=os.fsdecode(b"no file caf\xe9"))))
    assert writer.drain() == [ErrorNote(text="no file caf?")]


def test_the_line_of_a_cell_keeps_its_keys_and_their_order() -> None:
    part = b'{"attack":"fgsm","correct":3,"gradient_steps":4,"forwards":5,"seconds":0.5}'
    line = (
        b'{"kind":"cell","model":"train","attack":"aa","correct":3,"total":4,"accuracy":75.0,"low":30.0,"high":95.5,'
        b'"seconds":1.5,"gradient_steps":30,"forwards":7,"norm":"linf","eps":0.1,"source":"other","how":"bf16",'
        b'"images":"1b2c","parts":[' + part + b'],"warnings":["weak"],"v":1,"t":2.5}\n'
    )
    (cell,) = records.decode_lines(line)
    assert isinstance(cell, Cell)
    assert (cell.high, cell.eps, cell.parts[0].correct, cell.t) == (95.5, 0.1, 3, 2.5)
    assert encode(cell) == line


def test_every_kind_of_the_contract_is_known() -> None:
    kinds = {kind.__struct_config__.tag for kind in AnyRecord.__args__}
    assert kinds == {"stage", "scalars", "cell", "progress", "sample", "checkpoint", "warning", "error", "message"}
    assert all(issubclass(kind, records.Record) for kind in AnyRecord.__args__)
