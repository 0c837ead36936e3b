"""The pictures that a run's evaluation left: what the attack did to a few test images, and what is causal in them."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import ClassVar, Final

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from cafe_tui import format as fmt
from cafe_tui.terminal.half_cells import Picture
from cafe_tui.ui.messages import Newest
from cafe_tui.ui.screens.opening import NotSelected, Selection
from cafe_tui.ui.screens.polling import PollingScreen
from cafe_tui.ui.widgets.key_bar import KeyBar
from cafe_tui.ui.widgets.sample_grid import KINDS, Example, SampleGrid, Sheet
from engine.contract.run.rundir import RunDir

MOST_EXAMPLES: Final = 200
MOST_BYTES: Final = 16 << 20
"""Of a file; a picture as the engine writes it has a few hundred kilobytes at most."""
MOST_PIXELS: Final = 4 << 20
"""Of a picture; a few bytes of PNG can unfold to gigabytes."""
KEPT_SIDE: Final = 64
"""Pixels a side that are kept of a picture: about what half cells of a wide terminal can show of four side by side."""
KEPT_FINER: Final = 128
"""The same where the terminal draws pictures itself."""
PNG_HEAD: Final = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"

NONE_YET: Final = """\
No samples in this run.

An evaluate stage draws them when its table is finished, with the last attack of its list:

    [[stage]]
    kind = "evaluate"
    samples = 8        # how many test images; 0 for none
    attacks = ["clean", "pgd"]

The causal inversion needs a game stage before it."""


class Unreadable(Exception):
    """A file of the samples that cannot be shown; says why."""


class _Entry(msgspec.Struct):
    index: int
    label: int
    predictions: dict[str, int] = {}
    files: dict[str, str] = {}


class _SheetFile(msgspec.Struct):
    model: str = ""
    attack: str = ""
    perturbation_gain: float = 1.0
    samples: list[msgspec.Raw] = []  # each read by itself, so that one broken entry costs one row


@dataclass
class SamplesRead(Newest, bubble=False):
    """samples.json was read: its pictures, or why there are none."""

    sheet: Sheet | None
    problem: str = ""


def read_sheet(run: RunDir, side: int = KEPT_SIDE) -> Sheet:
    """The samples of a run with pictures of at most `side` pixels. Raises Unreadable for a bad samples.json."""
    name = "samples.json"
    try:
        file = msgspec.json.decode(read_inside(run.samples, name), type=_SheetFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable(f"{name} is not as the engine writes it") from None
    examples = tuple(_example(run.samples, entry, side) for entry in file.samples[:MOST_EXAMPLES])
    left_out = len(file.samples) - len(examples)
    return Sheet(run.id, file.model, file.attack, file.perturbation_gain, examples, left_out)


def _example(folder: Path, raw: msgspec.Raw, side: int) -> Example:
    try:
        entry = msgspec.json.decode(raw, type=_Entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Example(problem="this entry of samples.json is not as the engine writes it")
    names: dict[str, str] = {kind: entry.files[kind] for kind in KINDS if kind in entry.files}
    if not names:
        return Example(problem=f"test image {entry.index}: samples.json names no pictures of it")
    pictures = {kind: _picture(folder, name, side) for kind, name in names.items()}
    return Example(entry.index, entry.label, entry.predictions, pictures)


def _picture(folder: Path, name: str, side: int) -> Picture | str:
    try:
        return decode_png(read_inside(folder, name), side)
    except Unreadable as reason:
        return f"{name}: {reason}"


def read_inside(folder: Path, name: str) -> bytes:
    """The bytes of an ordinary file that lies in `folder` itself. Raises Unreadable."""
    try:
        path = (folder / name).resolve()
        if path.parent != folder.resolve():
            raise Unreadable("leads out of the folder of the samples")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("not an ordinary file")
        if status.st_size > MOST_BYTES:
            raise Unreadable(f"too large, {fmt.size(status.st_size)}")
        return path.read_bytes()
    except FileNotFoundError:
        raise Unreadable("missing") from None
    except (OSError, ValueError, RuntimeError) as error:  # names with null bytes, loops of links
        raise Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def decode_png(data: bytes, side: int = KEPT_SIDE) -> Picture:
    """A PNG of at most MOST_PIXELS, thinned to at most `side` pixels a side. Raises Unreadable."""
    if not data.startswith(PNG_HEAD) or len(data) < len(PNG_HEAD) + 8:
        raise Unreadable("not a PNG picture")
    start = len(PNG_HEAD)
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (start, start + 4))
    if not 0 < width * height <= MOST_PIXELS:
        raise Unreadable(f"{width}×{height} pixels are too many" if width * height else "a picture without pixels")
    every = -(-max(width, height) // side)
    from PIL import Image  # 40 ms that only who looks at pictures pays

    try:
        with Image.open(BytesIO(data), formats=["PNG"]) as opened:
            image = opened.convert("RGB")
    except Exception:  # Pillow has no one error for damage: OSError, SyntaxError, ValueError, zlib.error, struct.error
        raise Unreadable("a damaged PNG picture") from None
    if every > 1:
        kept = (-(-width // every), -(-height // every))
        image = image.resize(kept, Image.Resampling.NEAREST)
    return Picture(image.width, image.height, image.tobytes(), every)


def opened(selection: Selection) -> SamplesScreen:
    """The samples of the selected run."""
    if selection.run is None:
        raise NotSelected("select a run to see its samples")
    return SamplesScreen(selection.run)


class SamplesScreen(PollingScreen):
    """The samples of `run`, read again when its evaluation writes new ones."""

    PERIOD = 2.0
    DEFAULT_CSS = """
    SamplesScreen SampleGrid { display: none; margin: 0 1; }
    SamplesScreen #why { height: 1fr; padding: 1 2; }
    SamplesScreen.-drawn SampleGrid { display: block; }
    SamplesScreen.-drawn #why { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("q,escape", "app.pop_screen", "Back")]

    def __init__(self, run: RunDir) -> None:
        super().__init__()
        self._run = run
        self._signature: object = ()  # of the samples.json that was read last; the reader thread's

    def compose(self) -> ComposeResult:
        yield SampleGrid()
        yield Static("reading …", id="why")
        yield KeyBar()

    def read(self) -> None:
        """Read the samples if they are not those read last (reader thread)."""
        try:
            status = (self._run.samples / "samples.json").stat()
            signature: object = (status.st_mtime_ns, status.st_size, status.st_ino)
        except (FileNotFoundError, NotADirectoryError):
            signature = None
        except OSError as error:
            signature = str(error)
        if signature == self._signature:
            return
        self._signature = signature
        self.post_message(self._look() if signature else SamplesRead(None, NONE_YET))

    def _look(self) -> SamplesRead:
        try:
            sheet = read_sheet(self._run, KEPT_FINER if getattr(self.app, "placements", None) else KEPT_SIDE)
        except Unreadable as reason:
            return SamplesRead(None, f"The samples of {self._run.id} cannot be shown: {reason}.")
        return SamplesRead(sheet) if sheet.examples else SamplesRead(None, NONE_YET)

    def on_samples_read(self, message: SamplesRead) -> None:
        self.set_class(message.sheet is not None, "-drawn")
        if message.sheet is None:
            lines = message.problem.splitlines()
            self.query_one("#why", Static).update(Content("\n".join(map(fmt.printable, lines))))
        else:
            grid = self.query_one(SampleGrid)
            grid.show(message.sheet)
            grid.focus()
