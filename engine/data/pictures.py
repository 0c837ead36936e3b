"""Pictures in their file formats, decoded to square uint8 arrays by threads, a block at a time."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps

from engine.contract.folders import FORMATS, GREY, has_no_colour, stored_as

COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By the orientation of EXIF: what brings a picture upright."""
BLOCK = 512
"""Images that are held in memory at once while a cache is written."""

warnings.simplefilter("error", Image.DecompressionBombWarning)  # a small file that claims an enormous picture


class BadPictures(Exception):
    """Pictures that cannot be read: `reasons` has a name and a reason for each."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(f"{len(reasons)} pictures")
        self.reasons = reasons


@dataclass(frozen=True)
class Pictures:
    """Images (N, `channels`, `size`, `size`) uint8 that are still files: `read` gives the bytes of each name.

    The shorter side becomes `size`, the longer one is cut around the middle. `read` is called by several threads.
    """

    names: Sequence[str]
    read: Callable[[str], bytes]
    channels: int
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """As an array's."""
        return (len(self.names), self.channels, self.size, self.size)

    def blocks(self) -> Iterator[np.ndarray]:
        """All of them in order, at most BLOCK at a time; all are tried before BadPictures is raised."""
        bad: list[str] = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(self.names), BLOCK):
                block = list(pool.map(self._pixels, self.names[start : start + BLOCK]))
                bad += [pixels for pixels in block if isinstance(pixels, str)]
                if not bad:
                    yield np.stack(block)
        if bad:
            raise BadPictures(bad)

    def _pixels(self, name: str) -> np.ndarray | str:
        """Or what is wrong with it."""
        try:
            return decode(self.read(name), self.channels, self.size)
        except Exception as error:  # Pillow raises many kinds for one meaning
            return f"{name}: {type(error).__name__}: {error}"


def decode(data: bytes, channels: int, size: int) -> np.ndarray:
    """A picture as (channels, size, size) uint8; a grey one in three channels is made of three equal ones.

    It is turned as its EXIF says. Transparent pixels are seen before white, as far as they are transparent. Of 16 bits
    a channel the upper 8 are kept.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        if picture.mode not in (*GREY, *COLOUR):
            raise ValueError(f"pixels of the kind {picture.mode}; needed are at most 16 bits a channel")
        if channels == 1 and not has_no_colour(picture):
            raise ValueError("a colour picture among grey ones")
        opaque = _before_white(picture)
        turn = TURNS.get(_orientation(picture))
        upright = opaque if turn is None else opaque.transpose(turn)
        converted = upright.convert("L" if channels == 1 else "RGB")
    fitted = ImageOps.fit(converted, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(fitted).reshape(size, size, channels).transpose(2, 0, 1)


def _before_white(picture: Image.Image) -> Image.Image:
    """The picture without transparency, 8 bits a channel."""
    deep = ";16" in stored_as(picture)
    clear = picture.info.get("transparency")
    if picture.mode.startswith("I"):
        if picture.mode == "I" and picture.format not in ("PNG", "PPM"):
            raise ValueError("pixels of the kind I; needed are at most 16 bits a channel")
        values = np.asarray(picture)
        high = (values >> 8).astype(np.uint8)
        high[values == clear] = 255  # nothing is, where it is None
        return Image.fromarray(high)
    if picture.mode not in ("RGBA", "LA", "PA") and clear is None:
        picture.load()
        return picture
    if deep and isinstance(clear, tuple):
        picture.info["transparency"] = tuple(value >> 8 for value in clear)
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture.convert("RGBA"))
    return white.convert("RGB")


def _orientation(picture: Image.Image) -> int:
    """What the EXIF of a loaded picture says, 1 to 8; 1, upright, where it has none or none that can be read.

    A TIFF is turned by the library as it is loaded.
    """
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises many kinds for one meaning, and pixels do not depend on it
        return 1


def is_grey(data: bytes) -> bool:
    """Whether a picture has no colour."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        return has_no_colour(picture)
