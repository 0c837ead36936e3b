"""Pictures of test images, one image a row: clean, attacked, what the attack changed, what the game found causal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import ClassVar, Final

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual import work
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget
from textual.worker import get_current_worker

from cafe_tui import format as fmt
from cafe_tui.terminal.half_cells import (
    HALF_BLOCK,
    HALVES,
    RGB,
    Cell,
    Picture,
    Run,
    Scale,
    half_cells,
    ramp_character,
    scale_for,
)
from cafe_tui.terminal.protocols import EncodedPicture, Placements, Way, farewell
from cafe_tui.ui.widgets.lines import ROLE_CSS, ROLES, Line, Piece, fit, role_styles, wrap

KINDS: Final = ("clean", "adversarial", "perturbation", "inversion")
"""The pictures of an example that are shown, from left to right, as the engine calls them."""
GAP: Final = 2
"""Cells between two pictures."""
TEXT_ROWS: Final = 2
"""Rows above the pictures of an example; as many head the whole page."""
MANY_COLOURS: Final = ("256", "truecolor")


@dataclass(frozen=True)
class Example:
    """A test image: pictures by kind, or instead of one the reason why it cannot be shown; `problem` is of them all."""

    index: int = -1
    label: int = -1
    predictions: Mapping[str, int] = field(default_factory=dict)
    pictures: Mapping[str, Picture | str] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Sheet:
    """The examples of one run, how often the perturbation is enlarged, and how many further examples are left out."""

    run: str
    model: str = ""
    attack: str = ""
    gain: float = 1.0
    examples: tuple[Example, ...] = ()
    left_out: int = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of which there is anything to show."""
        return tuple(kind for kind in KINDS if any(kind in example.pictures for example in self.examples))

    @property
    def picture_size(self) -> tuple[int, int, int]:
        """Width, height and `every` that most pictures have; so a foreign one does not make all others small."""
        pictures = chain.from_iterable(example.pictures.values() for example in self.examples)
        sizes = Counter((p.width, p.height, p.every) for p in pictures if isinstance(p, Picture))
        return sizes.most_common(1)[0][0] if sizes else (1, 1, 1)


@dataclass(frozen=True)
class _Layout:
    """What fits: a column for each kind, of it a box for the picture, and examples a page.

    Pictures consist of half cells, or of the dots of a `cell` where the terminal draws them.
    """

    column: int
    scale: Scale
    box: tuple[int, int]
    page: int
    cell: Cell

    @classmethod
    def of(cls, sheet: Sheet, cells: int, rows: int, cell: Cell) -> _Layout:
        kinds = max(len(sheet.kinds), 1)
        column = max((cells - GAP * (kinds - 1)) // kinds, 1)
        width, height, _ = sheet.picture_size
        free = max(rows - TEXT_ROWS, TEXT_ROWS + 1)
        scale = scale_for(width, height, column, free - TEXT_ROWS, cell)
        box = scale.cells(width, height, cell)
        return cls(column, scale, box, max((free + 1) // (box[1] + TEXT_ROWS + 1), 1), cell)


Part = Piece | Run
Motif = tuple[Picture, Scale, Cell]
"""All that an encoded picture depends on."""


@dataclass
class PicturesEncoded(Message, bubble=False):
    """Pictures are ready to be sent to the terminal; or none is, for a reason."""

    pictures: Mapping[Motif, EncodedPicture]
    problem: str = ""


class SampleGrid(Widget, can_focus=True):
    """As many whole examples as fit; keys and wheel turn the pages. Few colours give pictures made of characters.

    Where the app has placements, the terminal draws the pictures.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = set(ROLES)
    DEFAULT_CSS = f"SampleGrid {{ height: 1fr; {ROLE_CSS} }}"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,down,l,j,pagedown,space", "turn(1)", "Next", key_display="→"),
        Binding("left,up,h,k,pageup", "turn(-1)", "Previous", key_display="←"),
        Binding("home,g", "turn_to(0)", "First images", show=False),
        Binding("end,G", "turn_to(-1)", "Last images", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._sheet = Sheet("")
        self._first = 0
        self._rows: list[Sequence[Part]] = []
        self._size_composed = Size(0, 0)
        self._encoded: dict[Motif, tuple[EncodedPicture, list[str]]] = {}  # with the characters that stand for it
        self._wanted: set[Motif] = set()
        self._failed = False

    def show(self, sheet: Sheet) -> None:
        """Show these examples, as near as possible to those shown before."""
        self._sheet = sheet
        self._first = min(self._first, max(len(sheet.examples) - 1, 0))
        self._show_changes()

    def text(self) -> str:
        """What is shown, without colours; half cells as blocks."""
        return "\n".join("".join(self._characters(part) for part in row) for row in self._rows)

    def action_turn(self, pages: int) -> None:
        """Go on or back by whole pages, not past the ends."""
        first = self._first + pages * self._layout().page
        if first < len(self._sheet.examples):
            self._first = max(first, 0)
            self._show_changes()

    def action_turn_to(self, page: int) -> None:
        """Go to the first page (0) or the last (-1)."""
        size = self._layout().page
        self._first = 0 if page == 0 else max(len(self._sheet.examples) - 1, 0) // size * size
        self._show_changes()

    def on_mouse_scroll_down(self) -> None:
        self.action_turn(1)

    def on_mouse_scroll_up(self) -> None:
        self.action_turn(-1)

    # --- pictures that the terminal draws ----------------------------------------------------------------------------

    @property
    def _placements(self) -> Placements | None:
        return None if self._failed else getattr(self.app, "placements", None)

    def _characters_for(self, motif: Motif) -> list[str]:
        """Rows of characters that stand for a picture; blank ones until it is encoded."""
        self._wanted.add(motif)
        if motif in self._encoded:
            return self._encoded[motif][1]
        picture, scale, cell = motif
        columns, rows = scale.cells(picture.width, picture.height, cell)
        return [" " * columns] * rows

    def _turn_over(self, before: set[Motif]) -> None:
        """Let go of the pictures that are no longer wanted, and have those encoded that now are."""
        for motif in self._encoded.keys() - self._wanted:
            self._let_go(motif)
        placements = self._placements
        if placements and self._wanted - before - self._encoded.keys():
            self._encode([motif for motif in self._wanted if motif not in self._encoded], placements.way)

    @work(thread=True, exclusive=True, group="encoding")
    def _encode(self, motifs: Sequence[Motif], way: Way) -> None:
        from cafe_tui.terminal.encode import encode  # 200 ms, and some for each picture: neither is for the UI thread

        worker = get_current_worker()
        encoded: dict[Motif, EncodedPicture] = {}
        try:
            for motif in motifs:
                if worker.is_cancelled:
                    return
                encoded[motif] = encode(*motif, way)
        except Exception as error:  # a library that is not ours, of any version
            self.post_message(PicturesEncoded({}, f"{type(error).__name__}: {error}"))
        else:
            self.post_message(PicturesEncoded(encoded))

    def on_pictures_encoded(self, message: PicturesEncoded) -> None:
        if message.problem:
            self._failed = True
            self.notify(f"pictures are shown as half cells: {message.problem}", severity="warning", markup=False)
        elif placements := self._placements:
            for motif, picture in message.pictures.items():
                if motif in self._wanted and motif not in self._encoded:
                    self._encoded[motif] = picture, placements.add(picture)
        self._show_changes()

    def _let_go(self, motif: Motif) -> None:
        picture, characters = self._encoded.pop(motif)
        placements: Placements = self.app.placements  # type: ignore[attr-defined]
        placements.remove(characters)
        if picture.number:
            self.app.tell_terminal(farewell(picture.number))  # type: ignore[attr-defined]

    def on_unmount(self) -> None:
        for motif in list(self._encoded):
            self._let_go(motif)

    # --- composing ---------------------------------------------------------------------------------------------------

    def _layout(self) -> _Layout:
        columns, rows = self.content_size
        # Lines of half cells may be cut off where there is no room at all; other pictures would lie on what is there.
        roomy = rows > 2 * TEXT_ROWS and columns >= (GAP + 1) * len(KINDS)
        placements = self._placements if roomy else None
        return _Layout.of(self._sheet, columns, rows, placements.cell() if placements else HALVES)

    def _show_changes(self) -> None:
        before, self._rows = self._rows, self._compose_rows()
        rows = max(len(before), len(self._rows))
        changed = [y for y in range(rows) if before[y : y + 1] != self._rows[y : y + 1]]
        if changed:
            self.refresh(*(Region(0, y, self.content_size.width, 1) for y in changed))

    def _compose_rows(self) -> list[Sequence[Part]]:
        layout, sheet = self._layout(), self._sheet
        before, self._wanted = self._wanted, set()
        shown = sheet.examples[self._first : self._first + layout.page]
        rows: list[Sequence[Part]] = [self._title(layout, len(shown)), self._heads(layout)]
        for number, example in enumerate(shown):
            rows += [()] * (number > 0)
            rows += self._example(example, layout)
        self._turn_over(before)
        return rows[: self.content_size.height]

    def _title(self, layout: _Layout, shown: int) -> Line:
        sheet = self._sheet
        last = self._first + shown
        which = f"image {last}" if shown == 1 else f"images {self._first + 1}-{last}"
        left_out = f" ({sheet.left_out} more in its folder)" if sheet.left_out else ""
        width, height, every = sheet.picture_size
        every *= layout.scale.every
        pixels = f"{width}×{height} pixels" if every == 1 else f"1 pixel in {every} each way"
        note = "@ is bright" if layout.cell == HALVES and not self._many_colours else pixels
        return (
            (fmt.printable(sheet.run), "strong"),
            (f"  {which} of {len(sheet.examples)}{left_out}", ""),
            (fmt.printable(f"  {sheet.attack} on {sheet.model}, {note}"), "dim"),
        )

    def _heads(self, layout: _Layout) -> Line:
        heads = {
            "clean": ("clean",),
            "adversarial": ("adversarial",),
            "perturbation": (f"perturbation ×{self._sheet.gain:g}", f"change ×{self._sheet.gain:g}"),
            "inversion": ("causal inversion", "inversion"),
        }
        names = [
            next((name for name in heads[k] if len(name) <= layout.column), heads[k][-1]) for k in self._sheet.kinds
        ]
        return _columns([(name, "dim") for name in names], layout)

    def _example(self, example: Example, layout: _Layout) -> list[Sequence[Part]]:
        if example.problem:
            lines = wrap(fmt.printable(example.problem), self.content_size.width)
            return [((line, "bad"),) for line in lines[: layout.box[1] + TEXT_ROWS]]
        kinds = self._sheet.kinds
        pictures = [self._picture(example.pictures.get(kind, "no picture"), layout) for kind in kinds]
        return [
            ((f"label {example.label}", "strong"), (f"  test image {example.index}", "dim")),
            _columns([_verdict(example, kind, layout.column) for kind in kinds], layout),
            *(list(chain.from_iterable(parts)) for parts in zip(*pictures, strict=True)),
        ]

    def _picture(self, picture: Picture | str, layout: _Layout) -> list[list[Part]]:
        """The rows of one column, each as wide as the column and the gap after it."""
        cells, rows = layout.box
        room = layout.column + GAP
        if isinstance(picture, str):
            lines = wrap(fmt.printable(picture), layout.column)
            lines = [*lines[: rows - 1], " ".join(lines[rows - 1 :])]
            padded = [*lines, *[""] * (rows - len(lines))]
            return [[(fit(line, layout.column) + " " * GAP, "warn")] for line in padded]
        scale = scale_for(picture.width, picture.height, cells, rows, layout.cell)
        width, _ = scale.cells(picture.width, picture.height, layout.cell)
        parts: Sequence[Sequence[Part]]
        if layout.cell == HALVES:
            parts = half_cells(picture, scale)
        else:
            parts = [[(row, "")] for row in self._characters_for((picture, scale, layout.cell))]
        drawn: list[list[Part]] = [[*part, (" " * (room - width), "")] for part in parts]
        return drawn + [[(" " * room, "")] for _ in range(rows - len(drawn))]

    # --- painting ----------------------------------------------------------------------------------------------------

    @property
    def _many_colours(self) -> bool:
        return not self.app.no_color and self.app.console.color_system in MANY_COLOURS

    def render_line(self, y: int) -> Strip:
        if self._size_composed != self.content_size:
            # Here and not on the resize event, which comes after the first painting in the new size.
            self._size_composed = self.content_size
            self._rows = self._compose_rows()
        row = self._rows[y] if y < len(self._rows) else ()
        return Strip(list(self._segments(row))).adjust_cell_length(self.content_size.width, self.rich_style)

    def _segments(self, row: Sequence[Part]) -> Iterator[Segment]:
        base, styles, many = self.rich_style, role_styles(self), self._many_colours
        for part in row:
            if isinstance(part, Run):
                yield Segment(self._characters(part), base + _style(part.upper, part.lower) if many else base)
            else:
                yield Segment(part[0], styles[part[1]] if part[1] else base)

    def _characters(self, part: Part) -> str:
        if not isinstance(part, Run):
            return part[0]
        return (HALF_BLOCK if self._many_colours else ramp_character(part)) * part.cells


def _columns(pieces: Sequence[Piece], layout: _Layout) -> Line:
    return tuple((fit(text, layout.column) + " " * GAP, role) for text, role in pieces)


def _verdict(example: Example, kind: str, cells: int) -> Piece:
    """What the network says of a picture, with the word that judges it first."""
    said = example.predictions.get(kind)
    if said is None:
        note = "grey: no change"
        return (note if kind == "perturbation" and len(note) <= cells else ""), "dim"
    return (f"right: {said}", "good") if said == example.label else (f"wrong: {said}", "bad")


@lru_cache(maxsize=4096)
def _style(upper: RGB, lower: RGB | None) -> Style:
    return Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower) if lower else None)
