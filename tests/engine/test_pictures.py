"""Pictures as files become arrays: upright, opaque, 8 bits a channel; and which of them are in both parts."""

from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from engine import data
from engine.__main__ import _prepare
from engine.contract import datasets
from engine.contract.errors import UsageError
from engine.contract.folders import counted, has_no_colour
from engine.contract.profile import files as profiles
from engine.contract.profile.catalogue import DATA_FACTS
from engine.contract.profile.schema import Data
from engine.data.pictures import decode
from engine.device import Compute

CPU = Compute(torch.device("cpu"))
RNG = np.random.default_rng(7)
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, 1),
}
"""By orientation, as the standard words it: what is stored -> what is seen."""


def saved(pixels: np.ndarray, kind: str, orientation: int = 1) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def png(pixels: np.ndarray, colour: int, clear: bytes = b"") -> bytes:
    """A PNG of 16 bits a channel, which Pillow writes of grey pictures alone; `clear` is the colour that is none."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    hidden = chunk(b"tRNS", clear) if clear else b""
    return b"\x89PNG\r\n\x1a\n" + head + hidden + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", list(UPRIGHT))
def test_a_picture_is_turned_as_its_exif_says(kind: str, orientation: int) -> None:
    pixels = np.kron(RNG.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    seen = decode(saved(pixels, kind, orientation), 3, 32).transpose(1, 2, 0).astype(int)
    assert np.abs(seen - UPRIGHT[orientation](pixels)).mean() < 3, "JPEG loses a little"
    if kind == "WEBP":
        return  # knows no grey
    grey = pixels[..., 0]
    seen = decode(saved(grey, kind, orientation), 1, 32)[0].astype(int)
    assert np.abs(seen - UPRIGHT[orientation](grey)).mean() < 3


def test_exif_that_cannot_be_read_turns_nothing() -> None:
    pixels, buffer = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=b"Exif\0\0no such thing")
    assert np.array_equal(decode(buffer.getvalue(), 3, 8).transpose(1, 2, 0), pixels)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparent_pixels_are_seen_before_white(kind: str) -> None:
    pixels = RNG.integers(0, 256, (8, 8, 4), dtype=np.uint8)
    pixels[:4, :, 3], pixels[4:6, :, 3], pixels[6:, :, 3] = 0, 255, 128
    seen = decode(saved(pixels, kind), 3, 8).transpose(1, 2, 0).astype(float)
    share = pixels[..., 3:] / 255
    assert np.abs(seen - (share * pixels[..., :3] + (1 - share) * 255)).max() <= 1
    assert (seen[:4] == 255).all()


def test_transparency_of_grey_and_of_palettes_is_alike() -> None:
    grey = np.array([[[0, 0], [0, 255]], [[90, 0], [90, 255]]], np.uint8).repeat(4, 0).repeat(4, 1)
    assert np.array_equal(decode(saved(grey, "PNG"), 1, 8)[0], np.where(grey[..., 1] == 0, 255, grey[..., 0]))
    palette, buffer = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8), "P"), io.BytesIO()
    palette.putpalette([value for i in range(64) for value in (i, 2 * i, 3 * i)])
    palette.save(buffer, "PNG", transparency=5)
    seen = decode(buffer.getvalue(), 3, 8).reshape(3, 64)
    assert seen[:, 5].tolist() == [255] * 3
    assert seen[:, 6].tolist() == [6, 12, 18]


def test_sixteen_bits_are_cut_alike_in_grey_and_colour(tmp_path: Path) -> None:
    values = RNG.integers(0, 1 << 16, (8, 8))
    high = values >> 8
    colour = np.stack([values] * 3, 2)
    assert np.array_equal(decode(png(values, 0), 1, 8)[0], high)
    assert np.array_equal(decode(png(values, 0), 3, 8)[1], high)
    assert np.array_equal(decode(png(colour, 2), 3, 8)[2], high)
    for kind in ("TIFF", "PPM"):
        Image.fromarray(values.astype(np.uint16)).save(tmp_path / "x", kind)
        assert np.array_equal(decode((tmp_path / "x").read_bytes(), 1, 8)[0], high)
    both = np.stack([values, np.full((8, 8), 65535)], 2)
    assert np.array_equal(decode(png(both, 4), 1, 8)[0], high)
    with Image.open(io.BytesIO(png(both, 4))) as picture:
        assert has_no_colour(picture)
    clear = int(values[2, 3])
    assert decode(png(values, 0, struct.pack(">H", clear)), 1, 8)[0, 2, 3] == 255
    assert (decode(png(colour, 2, struct.pack(">HHH", *[clear] * 3)), 3, 8)[:, 2, 3] == 255).all()
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "x", "TIFF")
    with pytest.raises(ValueError, match="at most 16 bits"):
        decode((tmp_path / "x").read_bytes(), 1, 8)


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six pictures to train on and four to test on, of two classes."""
    monkeypatch.setenv("CAFE_DATA", str(tmp_path / "cache"))
    counted.cache_clear()
    for part, count in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pets" / part / name / f"{i}.png")
    return tmp_path / "pets"


def section_of(pets: Path) -> Data:
    return profiles.from_tables(
        {"name": "x", "data": {"name": "folder", "path": str(pets), "size": 16}, "stage": [{"kind": "train"}]}
    ).data


def test_test_pictures_in_train_are_counted_whatever_their_names(
    pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pets / "train" / "cat" / "again.png").write_bytes((pets / "val" / "dog" / "1.png").read_bytes())
    with Image.open(pets / "val" / "cat" / "0.png") as picture:
        picture.save(pets / "train" / "cat" / "other.webp", lossless=True)
    splits = data.load(section_of(pets), seed=0, compute=CPU)
    assert splits.shared == 2
    assert "2 of the 4 test images are in train too, pixel for pixel" in capsys.readouterr().out
    assert data.load(section_of(pets), seed=0, compute=CPU).shared == 2, "the cache knows"
    assert splits.class_names == ("cat", "dog")


def test_a_cache_of_an_earlier_release_is_made_again(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = section_of(pets)
    data.load(section, seed=0, compute=CPU)
    file = datasets.cache_folder(section) / "facts.json"
    facts = json.loads(file.read_text())
    facts["stamp"] = "made by another release"
    arrays = file.parent / "test_images.npy"
    right = np.load(arrays)
    np.save(arrays, 255 - right)
    file.write_text(json.dumps(facts))
    data.load(section, seed=0, compute=CPU)
    assert (np.load(arrays) == right).all()


def test_imagenet_that_an_earlier_release_prepared_is_refused_until_it_is_made_again(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(DATA_FACTS, "imagenet", replace(DATA_FACTS["imagenet"], classes=2, pool=6, test=4))
    section = Data(name="imagenet", path=str(pets), size=16)
    assert _prepare("imagenet", str(pets), 16) == 0
    file = datasets.cache_folder(section) / "facts.json"
    file.write_text(file.read_text().replace('"conversion": 2', '"conversion": 1'))
    assert not datasets.is_here(section)
    with pytest.raises(UsageError, match="prepared by an earlier release"):
        data.load(section, seed=0, compute=CPU)
    assert _prepare("imagenet", None, 16) == 2
    assert _prepare("imagenet", str(pets), 16) == 0
    assert datasets.is_here(section)
