"""Small pictures by the protocols of kitty and of sixel terminals. textual-image does it, imported when needed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Final

from cafe_tui.terminal.half_cells import Cell, Picture, Scale
from cafe_tui.terminal.protocols import ASSUMED, EncodedPicture, Way

if TYPE_CHECKING:
    from PIL.Image import Image

PLACEHOLDER: Final = 4
"""Characters of a cell of a kitty picture: one that says so, its row, its column, a part of the picture's number."""
MOST_COLOURS: Final = 256
"""Of a sixel picture."""
OPAQUE, TRANSPARENT = "\x1bP0;0;0q", "\x1bP0;1;0q"
"""How a sixel picture begins. Its height is a multiple of six; what it lacks of that is black, or left as it is."""
_alone = threading.Lock()


def encode(picture: Picture, scale: Scale, cell: Cell, way: Way) -> EncodedPicture:
    """The picture at this scale for the terminal, by a protocol; `cell` is what its scale was made for."""
    return _sixel(picture, scale, cell) if way == "sixel" else _kitty(picture, scale)


def _sixel(picture: Picture, scale: Scale, cell: Cell) -> EncodedPicture:
    from PIL.Image import Resampling
    from textual_image._sixel import image_to_sixels  # not from `textual_image.renderable`, which asks the terminal

    # Colours are reduced here: among the few pixels that there are, not among all their copies.
    image = _thinned(picture, scale).quantize(MOST_COLOURS)
    image = image.resize((image.width * scale.zoom, image.height * scale.zoom), Resampling.NEAREST)
    columns, rows = scale.cells(picture.width, picture.height, cell)
    return EncodedPicture(columns, rows, image_to_sixels(image).replace(OPAQUE, TRANSPARENT, 1))


def _kitty(picture: Picture, scale: Scale) -> EncodedPicture:
    from PIL import Image
    from rich.console import Console

    columns, rows = scale.cells(picture.width, picture.height, ASSUMED)
    image = _thinned(picture, scale)
    image = image.resize((image.width * scale.zoom, image.height * scale.zoom), Image.Resampling.NEAREST)
    # Exactly the size to which textual-image would otherwise resize it, with soft edges and out of shape.
    canvas = Image.new("RGBA", (columns * ASSUMED.width, rows * ASSUMED.height))
    canvas.paste(image)
    with _terminal_replaced() as written:
        from textual_image.renderable import TGPImage

        renderable = TGPImage(canvas, columns, rows)
        console = Console(file=StringIO(), width=columns, height=rows, color_system="truecolor", force_terminal=True)
        lines = [segment.text.rstrip("\n") for segment in console.render(renderable)]
        number = renderable.terminal_image_id or 0
    placeholders = tuple(
        tuple(line[at : at + PLACEHOLDER] for at in range(0, len(line), PLACEHOLDER)) for line in lines
    )
    style = f"38;2;{number >> 16 & 255};{number >> 8 & 255};{number & 255}"
    return EncodedPicture(columns, rows, written.getvalue(), number, placeholders, style)


def _thinned(picture: Picture, scale: Scale) -> Image:
    from PIL import Image

    image = Image.frombytes("RGB", (picture.width, picture.height), picture.pixels)
    if scale.every == 1:
        return image
    return image.resize((-(-picture.width // scale.every), -(-picture.height // scale.every)), Image.Resampling.NEAREST)


@contextmanager
def _terminal_replaced() -> Iterator[StringIO]:
    """Collects what textual-image writes past Textual, and keeps it from asking the terminal when it is imported.

    Textual reads all that the terminal says, so the answers would come as keys.
    """
    with _alone:
        streams, terminal, written = vars(sys), sys.__stdout__, StringIO()
        streams["__stdout__"] = written
        try:
            yield written
        finally:
            streams["__stdout__"] = terminal
