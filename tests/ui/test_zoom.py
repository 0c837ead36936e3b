"""Points read again from the records, against a series that was given all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cafe_tui.charts.series import Series
from cafe_tui.reading import zoom
from cafe_tui.reading.zoom import ZoomReader
from engine.contract.run.records import Message, Scalars, StageChange, encode

KEY = ("game", "psi")


def write(path: Path, points: list[tuple[int, float]], stage: str = "game") -> None:
    newest = 0
    with path.open("ab") as file:
        for number, (step, value) in enumerate(points):
            if step < newest:
                file.write(encode(StageChange(stage=stage, stage_kind=stage, state="resumed")))
            newest = step
            if number % 7 == 0:
                file.write(encode(Message(text="x" * (number % 50))))
            file.write(encode(Scalars(stage=stage, step=step, values={"psi": value, "other": -value})))


def whole(points: list[tuple[int, float]]) -> Series:
    return Series(points, capacity=1 << 20)


def seen(series: Series, low: int, high: int) -> list[object]:
    return list(series.columns(low, high, high - low))


@settings(deadline=None, max_examples=60)
@given(
    jumps=st.lists(st.integers(1, 3) | st.integers(-300, 0), min_size=1, max_size=400),
    low=st.integers(0, 600),
    span=st.integers(1, 200),
    piece=st.integers(40, 4000),
)
def test_any_part_has_the_points_that_resumes_left(
    tmp_path_factory: object, jumps: list[int], low: int, span: int, piece: int
) -> None:
    path = tmp_path_factory.mktemp("exact") / "records.jsonl"  # type: ignore[attr-defined]
    points, step = [], 0
    for number, jump in enumerate(jumps):
        step = max(step + jump, 0)
        points.append((step, number / 3))
    with path.open("ab") as file:
        file.write(encode(StageChange(stage="train", stage_kind="train")))
    write(path, [(step, 9.0) for step in range(50)], "train")
    write(path, points)
    usual, zoom.PIECE = zoom.PIECE, piece  # type: ignore[misc]
    try:
        found = ZoomReader(path).read([KEY], low, low + span)
    finally:
        zoom.PIECE = usual  # type: ignore[misc]
    assert found is not None
    assert seen(found[KEY], low, low + span) == seen(whole(points), low, low + span)


def test_a_part_of_a_long_file_is_found_while_it_grows_and_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    points = [(step, float(step % 97)) for step in range(20_000)]
    write(path, points)
    reader = ZoomReader(path)
    found = reader.read([KEY, ("game", "other")], 15_000, 15_100)
    assert found is not None
    assert seen(found[KEY], 15_000, 15_100) == seen(whole(points), 15_000, 15_100)
    assert found["game", "other"].last is not None
    write(path, [(step, 5.0) for step in range(20_000, 20_050)])
    with path.open("ab") as file:
        file.write(b'{"kind":"scal')  # torn
    found = reader.read([KEY], 19_990, 20_050)
    assert found is not None
    assert len(found[KEY]) == 60
    path.write_bytes(b"")
    write(path, points[:10])
    found = reader.read([KEY], 0, 100)
    assert found is not None
    assert len(found[KEY]) == 10
    path.unlink()
    assert reader.read([KEY], 0, 100) is None


def test_a_resume_within_a_piece_of_the_file_overwrites_what_an_earlier_piece_has(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    points = [(step, float(number)) for number, step in enumerate([*range(5000), *range(4300, 12_000)])]
    write(path, points)
    for low in range(4000, 5400, 50):
        found = ZoomReader(path).read([KEY], low, low + 50)
        assert found is not None
        assert seen(found[KEY], low, low + 50) == seen(whole(points), low, low + 50)


@pytest.mark.parametrize("cut", range(900, 1300, 25))
def test_a_line_that_was_torn_when_it_was_indexed_is_read_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    monkeypatch.setattr(zoom, "PIECE", 1000)
    path = tmp_path / "records.jsonl"
    write(path, [(step, 1.0) for step in range(100)])
    data = path.read_bytes()
    path.write_bytes(data[:cut])
    reader = ZoomReader(path)
    reader.read([KEY], 0, 100)
    path.write_bytes(data)
    found = reader.read([KEY], 0, 100)
    assert found is not None
    assert len(found[KEY]) == 100


def test_too_much_is_left_coarse(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write(path, [(step, 1.0) for step in range(3_000)])
    usual, zoom.MOST_BYTES = zoom.MOST_BYTES, 1000  # type: ignore[misc]
    try:
        assert ZoomReader(path).read([KEY], 0, 3_000) is None
    finally:
        zoom.MOST_BYTES = usual  # type: ignore[misc]
