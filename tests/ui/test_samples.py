"""The samples screen on folders as the engine writes them and as nobody should, and its half-cell pictures."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Static

from cafe_tui.terminal.half_cells import Cell, Picture, Run, Scale, half_cells, ramp_character, scale_for
from cafe_tui.terminal.protocols import FIRST, LAST
from cafe_tui.ui.app import CafeApp
from cafe_tui.ui.screens.run import RunScreen
from cafe_tui.ui.screens.samples import KEPT_SIDE, SamplesScreen, Unreadable, decode_png, read_inside, read_sheet
from cafe_tui.ui.widgets.key_bar import KeyBar
from cafe_tui.ui.widgets.sample_grid import KINDS, Example, SampleGrid
from engine.contract.run.rundir import RunDir
from tests.recorded import START, record_run
from tests.ui.waiting import quiet, until

BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)


@pytest.fixture(autouse=True)
def _quick_polls_and_many_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SamplesScreen, "PERIOD", 0.05)
    monkeypatch.setattr("textual.constants.COLOR_SYSTEM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)


async def open_samples(pilot: Pilot[None]) -> SamplesScreen:
    """From the list through the run to its samples, by keys; waits until they are read."""
    await until(pilot, lambda: bool(pilot.app.screen.query("RunTable")) and "finished" in shown(pilot, "RunTable"))
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
    await pilot.press("p")
    await until(pilot, lambda: isinstance(pilot.app.screen, SamplesScreen))
    screen = pilot.app.screen
    assert isinstance(screen, SamplesScreen)
    await until(pilot, lambda: bool(grid(screen).text()) or "reading" not in why(screen))
    return screen


def shown(pilot: Pilot[None], selector: str) -> str:
    return str(pilot.app.screen.query_one(selector).text())  # type: ignore[attr-defined]


def grid(screen: SamplesScreen) -> SampleGrid:
    return screen.query_one(SampleGrid)


def why(screen: SamplesScreen) -> str:
    return str(screen.query_one("#why", Static).content)


def app_on(runs: Path) -> CafeApp:
    return CafeApp(runs, clock=lambda: START + 60)


def entry(run: RunDir, index: int, said: int, *, size: int = 8, mode: str = "L") -> dict[str, Any]:
    """An example of label 5 that is right until it is attacked; its pictures are written."""
    files = {kind: f"{index:05}-{kind}.png" for kind in KINDS}
    for shade, file in enumerate(files.values()):
        Image.new(mode, (size, size), 60 * shade if mode == "L" else (60 * shade, 9, 9)).save(run.samples / file)
    return {
        "index": index,
        "label": 5,
        "predictions": {"clean": 5, "adversarial": said, "inversion": said},
        "files": files,
    }


def write_sheet(run: RunDir, entries: list[Any], **changes: Any) -> None:
    sheet = {"stage": "evaluate", "model": "train", "attack": "pgd", "perturbation_gain": 10, "samples": entries}
    (run.samples / "samples.json").write_bytes(msgspec.json.encode({**sheet, **changes}))


def bomb(width: int, height: int) -> bytes:
    """The beginning of a PNG that says it is this large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "room", "expected"),
    [
        ((8, 8), (18, 40), Scale(zoom=2)),
        ((8, 8), (18, 3), Scale(every=2)),
        ((8, 8), (200, 200), Scale(zoom=4)),
        ((32, 32), (48, 50), Scale()),
        ((32, 32), (18, 50), Scale(every=2)),
        ((224, 1), (18, 1), Scale(every=13)),
    ],
)
def test_the_largest_whole_scale_that_fits(size: tuple[int, int], room: tuple[int, int], expected: Scale) -> None:
    assert scale_for(*size, *room) == expected
    cells, rows = expected.cells(*size)
    assert cells <= room[0]
    assert rows <= room[1]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (Cell(10, 20), Scale(zoom=5)),
        (Cell(8, 16), Scale(zoom=4)),
        (Cell(3, 7), Scale()),
        (Cell(1, 2), Scale(every=2)),
    ],
)
def test_dots_of_cells_give_finer_scales(cell: Cell, expected: Scale) -> None:
    assert scale_for(32, 32, 18, 9, cell) == expected
    cells, rows = expected.cells(32, 32, cell)
    assert (cells, rows) <= (18, 9)
    assert rows <= 9


@pytest.mark.parametrize("scale", [Scale(), Scale(zoom=2), Scale(zoom=3), Scale(every=2), Scale(every=9)])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (5, 3)])
def test_half_cells_fill_exactly_their_box(size: tuple[int, int], scale: Scale) -> None:
    width, height = size
    rows = half_cells(Picture(width, height, bytes(range(3 * width * height))), scale)
    cells, down = scale.cells(width, height)
    assert len(rows) == down
    assert {sum(run.cells for run in row) for row in rows} == {cells}


def test_two_pixels_share_a_cell_and_an_odd_last_row_leaves_its_lower_half() -> None:
    picture = Picture(2, 3, bytes([*BLACK, *WHITE, *RED, *RED, *WHITE, *WHITE]))
    assert half_cells(picture, Scale()) == [[Run(1, BLACK, RED), Run(1, WHITE, RED)], [Run(2, WHITE, None)]]
    assert half_cells(picture, Scale(zoom=2))[1] == [Run(4, RED, RED)]


def test_the_ramp_goes_from_dark_to_bright() -> None:
    cells = [Run(1, BLACK, BLACK), Run(1, BLACK, WHITE), Run(1, WHITE, None)]
    assert [ramp_character(run) for run in cells][::2] == [" ", "@"]
    assert ramp_character(cells[1]) in "-=+"


# --- the screen ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40), (200, 60)])
@pytest.mark.parametrize(("side", "mode"), [(8, "L"), (32, "RGB"), (224, "RGB")])
async def test_examples_with_label_and_verdicts_fit_every_terminal(
    tmp_path: Path, size: tuple[int, int], side: int, mode: str
) -> None:
    run = record_run(tmp_path)
    write_sheet(run, [entry(run, i, said=9 if i % 2 else 5, size=side, mode=mode) for i in range(5)])
    async with app_on(tmp_path).run_test(size=size) as pilot:
        screen = await open_samples(pilot)
        lines = grid(screen).text().splitlines()
        assert len(lines) <= grid(screen).content_size.height
        assert run.id in lines[0]
        assert lines[1].split()[:2] == ["clean", "adversarial"]
        assert "×10" in lines[1]
        assert lines[2].split() == ["label", "5", "test", "image", "0"]
        assert lines[3].count("right: 5") == 3
        assert max(len(line.rstrip()) for line in lines[1:]) <= grid(screen).content_size.width
        assert "▀" in lines[4]
        await pilot.press("end")
        assert "image 4" in grid(screen).text()
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))


async def test_arrows_turn_pages_and_stop_at_the_ends(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    write_sheet(run, [entry(run, i, said=9) for i in range(5)])
    async with app_on(tmp_path).run_test(size=(80, 24)) as pilot:
        screen = await open_samples(pilot)
        pages = (
            ([], "images 1-2"),
            (["left", "up"], "images 1-2"),
            (["right"], "images 3-4"),
            (["down", "right"], "image 5"),
            (["k"], "images 3-4"),
            (["G"], "image 5"),
            (["g"], "images 1-2"),
        )
        for keys, expected in pages:
            await pilot.press(*keys)
            assert f"  {expected} of 5" in grid(screen).text(), keys
        assert grid(screen).text().count("wrong: 9") == 4
        assert "Next" in screen.query_one(KeyBar).text()
        await pilot.press("right")
        await pilot.resize_terminal(120, 60)
        await until(pilot, lambda: "images 3-5 of 5" in grid(screen).text())


async def test_colours_are_those_of_the_pixels(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    write_sheet(run, [entry(run, 0, said=9, mode="RGB")])
    async with app_on(tmp_path).run_test(size=(80, 24)) as pilot:
        screen = await open_samples(pilot)
        styles = [segment.style for segment in grid(screen).render_line(4) if "▀" in segment.text]
        reds = [(style.color.triplet[0], style.bgcolor.triplet[0]) for style in styles]  # type: ignore[union-attr,index]
        assert reds == [(0, 0), (60, 60), (120, 120), (180, 180)]


@pytest.mark.parametrize("few", ["NO_COLOR", "standard"])
async def test_without_colours_the_pictures_are_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: str
) -> None:
    if few == "NO_COLOR":
        monkeypatch.setenv("NO_COLOR", "1")
    else:
        monkeypatch.setattr("textual.constants.COLOR_SYSTEM", few)
    run = record_run(tmp_path)
    write_sheet(run, [entry(run, 0, said=9)])
    async with app_on(tmp_path).run_test(size=(80, 24)) as pilot:
        screen = await open_samples(pilot)
        assert "▀" not in grid(screen).text()
        assert "================" in grid(screen).text()
        assert "@ is bright" in grid(screen).text()


async def test_an_empty_folder_says_what_makes_samples_and_new_ones_appear(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    async with app_on(tmp_path).run_test(size=(80, 24)) as pilot:
        screen = await open_samples(pilot)
        assert 'kind = "evaluate"' in why(screen)
        await pilot.press("right", "left", "end", "g")
        example = entry(run, 3, said=9)
        write_sheet(run, [example])
        await until(pilot, lambda: "test image 3" in grid(screen).text())
        write_sheet(run, [])
        await until(pilot, lambda: bool(screen.query_one("#why").region))


async def test_pictures_that_cannot_be_drawn_become_half_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: object) -> None:
        raise RuntimeError("[red]another library")

    monkeypatch.setattr("cafe_tui.terminal.encode.encode", draw)
    run = record_run(tmp_path)
    write_sheet(run, [entry(run, 0, said=9)])
    app = CafeApp(tmp_path, clock=lambda: START + 60, pictures="kitty")
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await open_samples(pilot)
        await until(pilot, lambda: "▀" in grid(screen).text())
        told = [notification.message for notification in app._notifications]
        assert told == ["pictures are shown as half cells: RuntimeError: [red]another library"]
        await pilot.resize_terminal(100, 30)
        await pilot.pause(0.2)
        assert "▀" in grid(screen).text()
        assert len(app._notifications) == 1


async def test_without_room_for_them_pictures_are_half_cells_that_may_be_cut_off(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    write_sheet(run, [entry(run, 0, said=9)])
    app = CafeApp(tmp_path, clock=lambda: START + 60, pictures="kitty")
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_samples(pilot)
        await until(pilot, lambda: any(FIRST <= character <= LAST for character in grid(screen).text()))
        await pilot.resize_terminal(80, 5)
        await until(pilot, lambda: not any(FIRST <= character <= LAST for character in grid(screen).text()))
        assert "label 5" in grid(screen).text()


async def test_nothing_repaints_without_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = record_run(tmp_path)
    write_sheet(run, [entry(run, 0, said=9)])
    async with app_on(tmp_path).run_test(size=(80, 24)) as pilot:
        await open_samples(pilot)
        painted: list[Widget] = []
        refresh = Widget.refresh

        def count(self: Widget, *regions: object, **options: bool) -> Widget:
            painted.append(self)
            return refresh(self, *regions, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(Widget, "refresh", count)
        await quiet(pilot, lambda: len(painted), 0.3)
        painted.clear()
        await pilot.press("left", "g", "G", "right")
        assert painted == []


# --- hostile folders -------------------------------------------------------------------------------------------------


async def test_hostile_files_are_told_in_their_place(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    secret = tmp_path / "secret.png"
    Image.new("L", (8, 8)).save(secret)
    (run.samples / "link.png").symlink_to(secret)
    (run.samples / "text.png").write_text("[red]not a picture")
    (run.samples / "bomb.png").write_bytes(bomb(60_000, 60_000))
    (run.samples / "torn.png").write_bytes(bomb(8, 8)[:42])
    (run.samples / "folder.png").mkdir()
    os.mkfifo(run.samples / "pipe.png")
    names = ["../../secret.png", str(secret), "link.png", "text.png"]
    names += ["bomb.png", "torn.png", "folder.png", "pipe.png"]
    names += ["none.png", "a\0b.png", "\x1b[2J.png", "x" * 5000]
    entries = [entry(run, 0, said=9)]
    for start in range(0, len(names), 4):
        files = dict(zip(KINDS, names[start : start + 4], strict=True))
        entries.append({**entries[0], "index": start + 1, "files": files})
    write_sheet(run, [*entries, {"index": "one"}, [], {"index": 77, "label": 1}], attack="[red]\x1b[2J")
    pages = ""
    async with app_on(tmp_path).run_test(size=(160, 60)) as pilot:
        screen = await open_samples(pilot)
        for _ in range(4):
            pages += grid(screen).text()
            await pilot.press("right")
    text = " ".join(pages.split())
    assert "\x1b" not in pages
    assert pages.count("leads out of") == 3
    for reason in ("not a PNG picture", "60000×60000", "damaged", "not an ordinary file", "missing", "cannot be read"):
        assert reason in text
    assert text.count("this entry of samples.json is not as the engine writes it") == 2
    assert "test image 77: samples.json names no pictures" in text


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"[1]", b'{"samples": 3}', b"\xff\xfe"])
async def test_a_broken_sheet_is_said(tmp_path: Path, content: bytes) -> None:
    run = record_run(tmp_path)
    (run.samples / "samples.json").write_bytes(content)
    async with app_on(tmp_path).run_test(size=(80, 24)) as pilot:
        screen = await open_samples(pilot)
        assert "cannot be shown: samples.json is not as the engine writes it" in why(screen)


def test_a_sheet_may_be_absent_a_folder_or_lead_elsewhere(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    sheet = run.samples / "samples.json"
    with pytest.raises(Unreadable, match="missing"):
        read_sheet(run)
    sheet.mkdir()
    with pytest.raises(Unreadable, match="not an ordinary file"):
        read_sheet(run)
    sheet.rmdir()
    sheet.symlink_to(run.profile_file)
    with pytest.raises(Unreadable, match="leads out"):
        read_sheet(run)


def test_only_files_of_the_folder_itself_and_of_a_sane_size_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cafe_tui.ui.screens.samples.MOST_BYTES", 10)
    (tmp_path / "small").write_bytes(b"x" * 10)
    (tmp_path / "large").write_bytes(b"x" * 11)
    assert read_inside(tmp_path, "small") == b"x" * 10
    with pytest.raises(Unreadable, match="too large, 11 B"):
        read_inside(tmp_path, "large")
    for name in ("", ".", "..", "/etc/passwd"):
        with pytest.raises(Unreadable):
            read_inside(tmp_path, name)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_png_is_read_and_large_ones_are_thinned(tmp_path: Path, mode: str) -> None:
    file = tmp_path / "x.png"
    Image.new(mode, (130, 70)).save(file)
    picture = decode_png(file.read_bytes())
    assert (picture.width, picture.height, picture.every) == (44, 24, 3)
    assert len(picture.pixels) == 3 * 44 * 24
    assert max(picture.width, picture.height) <= KEPT_SIDE


def test_more_examples_than_are_read_are_counted(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    write_sheet(run, [{**entry(run, 0, said=5), "index": i} for i in range(203)])
    sheet = read_sheet(run)
    assert len(sheet.examples) == 200
    assert sheet.left_out == 3
    assert isinstance(sheet.examples[0], Example)
