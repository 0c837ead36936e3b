"""Pictures in their file formats, decoded to square uint8 arrays by threads, a block at a time."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from engine.contract.folders import FORMATS, GREY

COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
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
    """A picture as (channels, size, size) uint8; a grey one in three channels is made of three equal ones."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        if picture.mode not in (*GREY, *COLOUR):
            raise ValueError(f"pixels of the kind {picture.mode}; needed are at most 8 bits a channel")
        if channels == 1 and picture.mode not in GREY:
            raise ValueError("a colour picture among grey ones")
        converted = picture.convert("L" if channels == 1 else "RGB")
    fitted = ImageOps.fit(converted, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(fitted).reshape(size, size, channels).transpose(2, 0, 1)


def is_grey(data: bytes) -> bool:
    """Whether a picture has no colour."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        return picture.mode in GREY
