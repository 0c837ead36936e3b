"""Scalars as columns: read in large steps by guessing what the lines are like, they are what one line after the
other gives."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import isfinite, isnan
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contract.run import columns, records
from engine.contract.run.columns import ColumnReader, Columns, Piece, in_columns
from engine.contract.run.records import AnyRecord, Message, RecordReader, Scalars, StageChange, encode
from tests.contract.test_records import FOREIGN, RECORD, TEXT, Writer, pieces


def joined(parts: Iterable[Piece]) -> list[object]:
    """The same however it was cut: columns of one stage that follow each other become one list of points a name."""
    found: list[object] = []
    stage, curves = None, dict[str, list[tuple[int, float | None, float]]]()
    for part in parts:
        if not isinstance(part, Columns):
            found.append(part)
            stage = None
            continue
        if part.stage != stage:
            stage, curves = part.stage, {}
            found.append([stage, part.t, curves])
        found[-1] = [stage, part.t, curves]
        for name, (steps, values, times) in part.curves.items():
            assert all(type(value) is float for value in values)
            marked = [None if isnan(value) else value for value in values]  # NaN is not equal to itself
            curves.setdefault(name, []).extend(zip(steps, marked, times, strict=True))
    return found


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path)


def drained(reader: ColumnReader, max_bytes: int) -> list[Piece]:
    found: list[Piece] = []
    while parts := reader.read_columns(max_bytes):
        found += parts
    return found


VALUE = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["1", "-0", "1e400", "123456789012345678901234567890", "null", '"nan"', '"-inf"', '"?"', "true"]),
)
NAME = st.sampled_from(["loss", "val_loss", "l\\u006fss", "é", "", 'a\\"b', "\\u0000"])
STEADY = st.builds(
    '{{"kind":"scalars","stage":"{}","step":{},"epoch":0.5,"values":{{{}}},"v":1,"t":{}}}'.format,
    st.sampled_from(["game", "game", "train"]),
    st.integers(0, 10**6),
    st.lists(st.builds('"{}":{}'.format, NAME, VALUE), max_size=3).map(",".join),
    st.sampled_from(["1.5", "2", "1.7e9"]),
)
BROKEN = '{{"kind":"scalars","stage":"game","step":1,{}}}\n{{"kind":"scalars","stage":"game","step":{}}}'
"""Two lines that are none, and one record without the line's end and what all lines begin with."""
CALM = '{"kind":"scalars","stage":"game","step":1,"values":{"loss":1.0}}'
ODD = [
    CALM.replace("loss", "new"),
    CALM.replace("game", "train"),
    f"{CALM}{CALM}\n",
    f"{CALM[:9]}\n{CALM[9:]}",
    f"\n{CALM}\t{CALM}",
    '{"stage":"game","t":3,"step":7,"values":{"loss":1},"kind":"scalars"}',
    '{"kind":"scalars","stage":"game","step":1}',
    '{"kind":"scalars","stage":"game","step":1,"values":{"loss":[1]}}',
    '{"kind":"scalars","stage":"game","step":-1,"values":{"loss":1.0}}',
    '{"kind":"scalars","stage":"game","step":4611686018427387904,"values":{"loss":1.0}}',
    '{"kind":"scalars","stage":"game","step":1.0,"values":{"loss":1.0}}',
    '{"kind":"scalars","stage":"game","step":1,"epoch":"x","values":{"loss":1.0}}',
    '{"kind":"scalars","stage":"game","step":1,"more":{"loss":"x"},"values":{"loss":1.0}}',
    '{"kind":"scalars","stage":"game","step":1,"values":{"loss":1.0}}{"kind":"message","text":""}',
    '{"kind":"scalars","stage":"game","step":1,"values":',
    '{"loss":1.0}}',
    '{"kind":"scalars","stage":"game","step":1},{"step":2}',
    '{"kind":"scalars","stage":"game","step":1}\t,{"step":2}',
    '{"kind":"scalars","stage":"game","step":\n1,"values":{"loss":1.0}}',
    '{"kind":"scalars","stage":"game","step":1,"stage":"train","values":{"loss":1.0}}',
    '{"kind":"scalars","stage":"game","step":1,"kind":"message","text":"","values":{"loss":1.0}}',
    '{"kind":"scalars","stage":"game","step":1,"step":2,"values":{"loss":1.0,"loss":2.0},"values":{"loss":3.0}}',
    BROKEN.format('"values":{"loss":"', '"}'),
    BROKEN.format('"values":{"loss":"', '"}') + '\n{"kind":"scalars","stage":"game","step":1},{"step":2}',
    BROKEN.format('"more":[{"a":1', "2}]"),
]
LINES = st.lists(
    st.one_of(
        st.lists(STEADY, min_size=3, max_size=8).map(lambda lines: [line.encode() for line in lines]),
        st.one_of(st.sampled_from(ODD).map(str.encode), RECORD.map(lambda r: encode(r).rstrip(b"\n")), FOREIGN).map(
            lambda line: [line]
        ),
    ),
    max_size=8,
).map(lambda groups: [line for group in groups for line in group])


def check(folder: Path, data: bytes, cuts: Iterable[int], max_bytes: int) -> None:
    """Columns read while the file grows are those of its lines, each read as a record."""
    writer, found = Writer(folder), list[Piece]()
    reader = ColumnReader(writer.path)
    for piece in pieces(data, cuts):
        writer.append(piece)
        found += drained(reader, max_bytes)
    assert joined(found) == joined(in_columns(writer.drain(max_bytes=1)))
    assert reader.skipped == writer.reader.skipped


@settings(deadline=None)
@given(lines=LINES, cuts=st.lists(st.integers(0, 10**6), max_size=12), max_bytes=st.integers(1, 2000))
def test_any_lines_in_any_chunks_give_the_columns_of_line_after_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], cuts: list[int], max_bytes: int
) -> None:
    check(tmp_path_factory.mktemp("run"), b"".join(line + b"\n" for line in lines), cuts, max_bytes)


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_a_line_like_no_other_among_many_of_one_shape(tmp_path: Path, odd: str) -> None:
    lines = f"{CALM}\n" * 3
    check(tmp_path, f"{lines}{lines}{odd}\n{lines}".encode(), [len(lines)], 10**6)


SPELLED = (
    st.floats(allow_nan=False, allow_infinity=False)
    .flatmap(
        lambda value: st.sampled_from(["{!r}", "{:.17e}", "{:.30g}", "{:.3E}", "{:.5f}", "{:.0f}"]).map(
            lambda how: how.format(value)
        )
    )
    .filter(lambda spelled: isfinite(float(spelled)))
)


@given(numbers=st.lists(SPELLED, min_size=2, max_size=40))
def test_numbers_are_what_json_says_however_they_are_spelled(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[str]
) -> None:
    writer = Writer(tmp_path_factory.mktemp("run"))
    first, *lines = [CALM.replace("1.0", number).encode() + b"\n" for number in numbers]
    reader = ColumnReader(writer.path)
    writer.append(first)
    found = drained(reader, 10**6)
    writer.append(b"".join(lines))  # which have the shape of the first
    found += drained(reader, 10**6)
    values = [value for piece in found if isinstance(piece, Columns) for value in piece.curves["loss"].values]
    assert [value.hex() for value in values] == [float(json.loads(number)).hex() for number in numbers]


@given(names=st.lists(TEXT, max_size=4, unique=True))
def test_names_may_be_any_text(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    writer = Writer(tmp_path_factory.mktemp("run"))
    record = Scalars(stage="a", step=3, values=dict.fromkeys(names, 0.5), t=2.0)
    writer.append(encode(record) * 40)
    (block,) = joined(drained(ColumnReader(writer.path), 4 * len(encode(record))))
    assert block == ["a", 2.0, dict.fromkeys(names, [(3, 0.5, 2.0)] * 40)]


def test_columns_and_records_stay_in_order(writer: Writer) -> None:
    a = Scalars(stage="a", step=1, values={"x": 1.0, "y": "nan"}, t=1.0)
    b = Scalars(stage="b", step=2, values={"x": None}, t=2.0)
    change, note = StageChange(stage="b", t=1.5), Message(text="m")
    writer.append(b"".join(map(encode, (a, a, note, a, change, b, a))))
    found = joined(drained(ColumnReader(writer.path), 10**6))
    x, y = (1, 1.0, 1.0), (1, None, 1.0)
    one = {"x": [x], "y": [y]}
    assert found == [
        ["a", 1.0, {"x": [x, x], "y": [y, y]}],
        note,
        ["a", 1.0, one],
        change,
        ["b", 2.0, {"x": [(2, None, 2.0)]}],
        ["a", 1.0, one],
    ]


def test_lines_of_other_names_and_kinds_between_are_read_as_quickly(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    line_by_line = []

    def decode(chunk: bytes) -> tuple[list[AnyRecord], int]:
        line_by_line.append(chunk)
        return records.decode(chunk)

    monkeypatch.setattr(columns, "decode", decode)
    steps = [encode(Scalars(stage="train", step=step, values={"loss": 0.5, "lr": 0.1})) for step in range(10_000)]
    for step in range(0, 10_000, 50):
        steps[step] += encode(Scalars(stage="train", step=step, values={"val_loss": "nan"}))
        steps[step] += encode(Message(text="an epoch is done"))
    writer.append(b"".join(steps))
    (block, *_) = [part for part in joined(drained(ColumnReader(writer.path), 1 << 16)) if isinstance(part, list)]
    assert len(line_by_line) == 1
    assert len(block[2]["val_loss"]) == 1


def test_lines_that_are_no_records_do_not_end_the_reading(writer: Writer) -> None:
    writer.append(b"garbage\n" * 1000 + encode(Message(text="a")))
    assert RecordReader(writer.path).read(100) == [Message(text="a")]
    assert ColumnReader(writer.path).read_columns(100) == [Message(text="a")]
