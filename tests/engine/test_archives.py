"""Published archives in their real formats, small: read alike whichever form they have, and never trusted."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from cafe_tui.launch import spawn
from engine import data
from engine.contract import archives, datasets
from engine.contract.archives import Archive
from engine.contract.errors import DiskError, UsageError
from engine.contract.profile.catalogue import DATA_FACTS
from engine.contract.profile.schema import Data
from engine.data.archives import Recipe, load, prepare
from engine.data.cifar import CIFAR10, CIFAR100
from engine.data.svhn import SVHN
from engine.data.tiny import TINY_IMAGENET
from engine.device import Compute
from tests.patience import PATIENCE

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 60)
COARSE = RNG.integers(0, 20, 60)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, and facts of sets with 50 images to train on and 10 to test on."""
    monkeypatch.setenv("CAFE_DATA", str(tmp_path))
    for name in data.RECIPES:
        monkeypatch.setitem(DATA_FACTS, name, replace(DATA_FACTS[name], pool=50, test=10))
    monkeypatch.setitem(DATA_FACTS, "tiny-imagenet", replace(DATA_FACTS["tiny-imagenet"], pool=50, test=10, classes=2))
    return tmp_path


def tar_of(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def records(part: slice, *labels: np.ndarray) -> bytes:
    columns = [label[part, None].astype(np.uint8) for label in labels]
    return np.hstack([*columns, IMAGES[part].reshape(-1, 3072)]).tobytes()


def pickled(part: slice, key: bytes) -> bytes:
    """As the published files, which Python 2 wrote: protocol 2, texts and pixels as its strings of bytes."""

    def text(content: bytes) -> bytes:
        short = len(content) < 256
        return (b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content))) + content

    def short(value: int) -> bytes:
        return b"M" + struct.pack("<H", value)

    pixels = IMAGES[part].reshape(-1, 3072)
    names = [text(b"automobile_s_%06d.png" % i) for i in range(len(pixels))]
    kind = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNN" + 2 * b"J\xff\xff\xff\xff"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R(K\x01"
    array += b"".join(map(short, pixels.shape)) + b"\x86" + kind + b"K\x00tb\x89" + text(pixels.tobytes()) + b"tb"
    table = {
        b"batch_label": text(b"training batch 1 of 5"),
        key: b"](" + b"".join(b"K" + bytes([label]) for label in LABELS[part].tolist()) + b"e",
        b"data": array,
        b"filenames": b"](" + b"".join(names) + b"e",
    }
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in table.items()) + b"u."


BATCHES = {f"data_batch_{i + 1}": slice(10 * i, 10 * i + 10) for i in range(5)} | {"test_batch": slice(50, 60)}
TRAIN_TEST = {"train": slice(0, 50), "test": slice(50, 60)}


def write(folder: Path, kind: str) -> None:
    if kind == "cifar10 binary":
        files = {f"{name}.bin": records(part, LABELS) for name, part in BATCHES.items()}
        tar_of(folder / "cifar-10-binary.tar.gz", files)
    elif kind == "cifar10 python":
        tar_of(folder / "cifar-10-python.tar.gz", {name: pickled(part, b"labels") for name, part in BATCHES.items()})
    elif kind == "cifar100 binary":
        files = {f"{name}.bin": records(part, COARSE, LABELS) for name, part in TRAIN_TEST.items()}
        tar_of(folder / "cifar-100-binary.tar.gz", files)
    elif kind == "cifar100 python":
        files = {name: pickled(part, b"fine_labels") for name, part in TRAIN_TEST.items()}
        tar_of(folder / "cifar-100-python.tar.gz", files)
    else:
        ten = np.where(LABELS == 0, 10, LABELS)[:, None]
        for name, part in TRAIN_TEST.items():
            savemat(folder / f"{name}_32x32.mat", {"X": IMAGES[part].transpose(2, 3, 1, 0), "y": ten[part]})


RECIPES = {"cifar10": CIFAR10, "cifar100": CIFAR100, "svhn": SVHN}
KINDS = ["cifar10 binary", "cifar10 python", "cifar100 binary", "cifar100 python", "svhn"]


def as_published(archive: Archive, content: bytes) -> Archive:
    return replace(archive, md5=hashlib.md5(content).hexdigest(), size=len(content))


def names(folder: Path) -> list[str]:
    """What lies in the data folder beside its locks."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".locks")


def published(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe as if the files in the folder were the published ones."""

    def known(archive: Archive) -> Archive:
        path = folder / archive.name
        return as_published(archive, path.read_bytes()) if path.exists() else archive

    return replace(recipe, alternatives=tuple(tuple(map(known, files)) for files in recipe.alternatives))


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_gives_the_same_images_and_labels(kind: str, folder: Path) -> None:
    name = kind.split()[0]
    write(folder, kind)
    recipe = published(RECIPES[name], folder)
    source = load(name, recipe)
    assert np.array_equal(source.train_images, IMAGES[:50])
    assert np.array_equal(source.test_images, IMAGES[50:])
    assert source.train_labels.tolist() == LABELS[:50].tolist()
    assert source.test_labels.tolist() == LABELS[50:].tolist()
    assert np.allclose(source.mean, (IMAGES[:50] / 255).mean((0, 2, 3)))
    assert np.allclose(source.std, (IMAGES[:50] / 255).std((0, 2, 3)))
    for path in folder.glob("*.*z*"):
        path.unlink()
    for path in folder.glob("*.mat"):
        path.unlink()
    again = load(name, recipe)
    assert np.array_equal(again.train_images, IMAGES[:50]), "from the cache, without the archive"


def test_a_prepared_set_is_resident_like_any_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "cifar10 binary")
    monkeypatch.setitem(data.DATA, "cifar10", lambda data: load("cifar10", published(CIFAR10, folder)))
    splits = data.load(Data(name="cifar10", validation=0.2), seed=0, compute=Compute(torch.device("cpu")))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (40, 10, 10)
    assert splits.facts.flip
    assert not DATA_FACTS["svhn"].flip, "a mirrored digit is none"


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch evil",)


def test_a_pickle_with_code_is_refused_and_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    files = {name: pickle.dumps({b"data": Evil(), b"labels": [0]}, protocol=2) for name in BATCHES}
    tar_of(folder / "cifar-10-python.tar.gz", files)
    with pytest.raises(UsageError, match=r"the pickle asks for (posix|nt)\.system"):
        load("cifar10", published(CIFAR10, folder))
    assert not (folder / "evil").exists()
    assert not (folder / "cifar10").exists()


@pytest.mark.parametrize("damage", ["truncated", "a link", "missing", "too few", "wrong label", "noise"])
def test_damaged_and_hostile_archives_are_one_message_and_leave_nothing(damage: str, folder: Path) -> None:
    path = folder / "cifar-10-binary.tar.gz"
    files = {f"{name}.bin": records(part, LABELS) for name, part in BATCHES.items()}
    if damage == "too few":
        files["test_batch.bin"] = files["test_batch.bin"][: 3 * 3073]
    elif damage == "wrong label":
        files["test_batch.bin"] = bytes([77]) + files["test_batch.bin"][1:]
    elif damage == "missing":
        del files["data_batch_3.bin"]
    tar_of(path, files)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-900])
    elif damage == "noise":
        path.write_bytes(RNG.bytes(5000))
    elif damage == "a link":
        with tarfile.open(path, "w:gz") as tar:
            info = tarfile.TarInfo("../../data_batch_1.bin")
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info)
    with pytest.raises(UsageError, match=r"cifar-10-binary\.tar\.gz"):
        load("cifar10", published(CIFAR10, folder))
    assert names(folder) == ["cifar-10-binary.tar.gz"]


def test_a_file_that_is_not_the_published_one_is_refused(folder: Path) -> None:
    write(folder, "svhn")
    with pytest.raises(UsageError, match="not the published file") as caught:
        load("svhn", SVHN)
    assert "bytes" in caught.value.message, "it is shorter than it should be"


def test_without_archives_it_is_said_what_to_put_where(folder: Path) -> None:
    for name, recipe in RECIPES.items():
        with pytest.raises(UsageError, match=f"{name} is not in") as caught:
            load(name, recipe)
        assert f"cafe data prepare {name}" in caught.value.hint
        for archive in (archive for files in recipe.alternatives for archive in files):
            assert f"{archive.url} ({archive.size:,} bytes, MD5 {archive.md5})" in caught.value.hint
        assert caught.value.hint.count("; or ") == len(recipe.alternatives) - 1


def test_a_whole_alternative_serves_where_another_is_cut_short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("cifar10 binary", "cifar10 python"):
        write(folder, kind)
    recipe = published(CIFAR10, folder)
    monkeypatch.setitem(archives.PUBLISHED, "cifar10", recipe.alternatives)
    victim = folder / "cifar-10-binary.tar.gz"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:1000])
    assert datasets.is_here(Data(name="cifar10"))
    said: list[str] = []
    prepare("cifar10", recipe, said.append)
    assert said[0] == f"{victim}: not the published file: 1,000 of {len(whole):,} bytes"
    assert "for the cache" in said[1]
    assert said[-1].startswith("cifar10 is ready")
    assert victim.read_bytes() == whole[:1000]


def test_a_data_folder_that_cannot_be_written_or_found_is_told_before_a_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "svhn")
    monkeypatch.setitem(archives.PUBLISHED, "svhn", published(SVHN, folder).alternatives)
    datasets.check_here(Data(name="svhn"))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UsageError, match=f"{folder} cannot be written"):
        datasets.check_here(Data(name="svhn"))
    monkeypatch.setenv("CAFE_DATA", "~nobody-of-this-name/data")
    with pytest.raises(UsageError, match="no home is known for ~nobody") as caught:
        datasets.check_here(Data(name="svhn"))
    assert "Set CAFE_DATA" in caught.value.hint


def test_a_relative_data_folder_is_the_same_for_an_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CAFE_DATA", "mine")
    assert archives.data_folder() == folder / "mine"
    assert spawn.environment()["CAFE_DATA"] == str(folder / "mine")


CUT = 2048


@contextmanager
def serving(content: bytes, *, breaks: int = 0, ranges: bool = True) -> Iterator[tuple[str, list[int]]]:
    """A server of one file whose first answers, `breaks` of them, end after CUT bytes.

    Its address, and a list of the bytes from which on it was asked.
    """
    asked: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1]))
            start = asked[-1] if ranges else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:][: CUT if len(asked) <= breaks else None])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/x", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def content(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The binary archive of CIFAR-10, to be fetched without waiting between tries."""
    monkeypatch.setattr("engine.data.fetching.WAITS", (0.0, 0.0, 0.0))
    site = tmp_path_factory.mktemp("site")
    write(site, "cifar10 binary")
    return (site / "cifar-10-binary.tar.gz").read_bytes()


def recipe_of(content: bytes, url: str, **others: str) -> Recipe:
    archive = replace(as_published(CIFAR10.alternatives[0][0], content), url=url, **others)
    return Recipe(((archive,),), CIFAR10.read)


def test_a_download_that_fails_says_what_to_do(folder: Path) -> None:
    said: list[str] = []
    nowhere = "http://127.0.0.1:9/x.tar.gz"
    with pytest.raises(UsageError, match="cannot be fetched: Connection refused") as caught:
        prepare("cifar10", recipe_of(bytes(1000), nowhere), said.append)
    assert f"put into {folder}: {nowhere} (1,000 bytes, MD5 " in caught.value.hint
    assert "to fetch" in said[0]
    assert "for the cache" in said[0]
    assert not names(folder)


def test_a_download_is_checked_and_converted(folder: Path, content: bytes) -> None:
    said: list[str] = []
    mine = folder / "cifar-10-binary.tar.gz"
    mine.write_bytes(content[:500])  # of a copy that was broken off, or still goes on
    with serving(content) as (url, _):
        with pytest.raises(UsageError, match=r"cannot be fetched.* MD5 .*500 of") as caught:
            prepare("cifar10", recipe_of(content, url, md5="0" * 32), said.append)
        assert "fetches it anew" in caught.value.hint
        assert mine.read_bytes() == content[:500]
        recipe = recipe_of(content, url)
        said.clear()
        prepare("cifar10", recipe, said.append)
        assert said[-1].startswith("cifar10 is ready")
        assert said.count("0 of 0 MB") == 10, "each tenth once, though this is no terminal"
        prepare("cifar10", recipe, said.append)
        assert "checksums are right" in said[-1]
    assert names(folder) == ["cifar-10-binary.tar.gz", "cifar10"]
    (folder / "new").touch()
    assert mine.stat().st_mode == (folder / "new").stat().st_mode, "others may read it where the umask says so"
    assert np.array_equal(load("cifar10", recipe).test_images, IMAGES[50:])


@pytest.mark.parametrize("ranges", [True, False], ids=["goes on", "begins anew"])
def test_a_download_that_breaks_goes_on_by_itself(ranges: bool, folder: Path, content: bytes) -> None:
    said: list[str] = []
    with serving(content, breaks=2, ranges=ranges) as (url, asked):
        prepare("cifar10", recipe_of(content, url), said.append)
    assert asked == [0, CUT, 2 * CUT if ranges else CUT]
    assert sum(line.startswith("broken off") for line in said) == 2
    assert (folder / "cifar-10-binary.tar.gz").read_bytes() == content
    assert names(folder) == ["cifar-10-binary.tar.gz", "cifar10"]


def test_what_a_broken_download_brought_is_kept_for_the_next_command(folder: Path, content: bytes) -> None:
    with serving(content, breaks=99, ranges=False) as (url, asked):
        with pytest.raises(UsageError, match="cannot be fetched") as caught:
            prepare("cifar10", recipe_of(content, url), str)
        assert len(asked) == 4, "no further try where none brings more"
    assert "the same command goes on there" in caught.value.hint
    assert names(folder) == ["cifar-10-binary.tar.gz.part"]
    with serving(content) as (url, asked):
        prepare("cifar10", recipe_of(content, url), str)
    assert asked == [CUT]
    assert names(folder) == ["cifar-10-binary.tar.gz", "cifar10"]


def test_a_page_in_place_of_the_archive_is_refused_at_once(folder: Path, content: bytes) -> None:
    (folder / "cifar-10-binary.tar.gz.part").write_bytes(content[:CUT])
    with serving(b"please sign in", ranges=False) as (url, _), pytest.raises(UsageError, match="offers 14 bytes"):
        prepare("cifar10", recipe_of(content, url), str)
    assert (folder / "cifar-10-binary.tar.gz.part").read_bytes() == content[:CUT]


def test_a_full_disk_is_told_as_such(folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(content) as (url, _):
        (folder / "cifar-10-binary.tar.gz.part").symlink_to("/dev/full")
        with pytest.raises(DiskError, match=r"part: cannot be written: No space left") as caught:
            prepare("cifar10", recipe_of(content, url), str)
    assert "Free some" in caught.value.hint


def test_a_cache_that_was_changed_is_found_out(folder: Path) -> None:
    write(folder, "svhn")
    recipe = published(SVHN, folder)
    said: list[str] = []
    prepare("svhn", recipe, said.append)
    prepare("svhn", recipe, said.append)
    assert "checksums are right" in said[-1]
    with (folder / "svhn" / "train_images.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(UsageError, match=r"train_images\.npy: not what was written"):
        prepare("svhn", recipe, said.append)


def zip_of(path: Path, change: dict[str, bytes | None] | None = None) -> np.ndarray:
    """Tiny-ImageNet in its real layout with 2 classes of 25 pictures, the second of them grey; the images (60,...)."""
    wnids = ("n02", "n01")
    files: dict[str, bytes | None] = {"wnids.txt": "\n".join(wnids).encode(), "words.txt": b"n01\tfish"}
    told, images = [], []
    for i in range(60):
        grey = i == 1
        pixels = RNG.integers(0, 256, (64, 64) if grey else (64, 64, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG" if i else "JPEG")  # PNG, so that pixels come back as they were
        decoded = np.asarray(Image.open(buffer).convert("RGB"))
        wnid = ("n01", "n02")[i // 25 if i < 50 else i % 2]
        picture = f"{wnid}_{i:02d}.JPEG" if i < 50 else f"val_{i - 50}.JPEG"
        files[f"train/{wnid}/images/{picture}" if i < 50 else f"val/images/{picture}"] = buffer.getvalue()
        if i >= 50:
            told.append(f"{picture}\t{wnid}\t0\t0\t9\t9")
        images.append(decoded.transpose(2, 0, 1))
    files |= {"train/n01/n01_boxes.txt": b"n01_00.JPEG\t0\t0\t9\t9", "test/images/test_0.JPEG": b"unlabelled"}
    files |= {"val/val_annotations.txt": "\n".join(told).encode(), **(change or {})}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            if content is not None:
                archive.writestr(f"tiny-imagenet-200/{name}", content)
    return np.stack(images)


def test_tiny_imagenet_is_read_from_the_zip(folder: Path) -> None:
    images = zip_of(folder / "tiny-imagenet-200.zip")
    source = load("tiny-imagenet", published(TINY_IMAGENET, folder))
    assert np.array_equal(source.train_images, images[:50])
    assert np.array_equal(source.test_images, images[50:])
    assert source.train_labels.tolist() == [0] * 25 + [1] * 25, "labels are the places of the sorted wnids"
    assert source.test_labels.tolist() == [0, 1] * 5
    assert np.array_equal(source.train_images[1, 0], source.train_images[1, 2]), "a grey picture"
    assert np.allclose(source.std, (images[:50] / 255).std((0, 2, 3)))
    assert names(folder) == ["tiny-imagenet", "tiny-imagenet-200.zip"]


def bomb() -> bytes:
    """A picture that claims 10^9 pixels in a few bytes."""
    header = struct.pack(">IIBBBBB", 31_623, 31_623, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


VAL = "val/val_annotations.txt"
HOSTILE: dict[str, dict[str, bytes | None]] = {
    "a bomb": {"train/n01/images/n01_03.JPEG": bomb()},
    "a script": {"train/n01/images/n01_03.JPEG": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"},
    "no list of classes": {"wnids.txt": None},
    "a class too many": {"wnids.txt": b"n01\nn02\nn03"},
    "a path out of the archive": {VAL: b"../../../../etc/passwd\tn01\t0\t0\t9\t9\n" * 10},
    "an unknown class": {VAL: b"val_0.JPEG\tn77\t0\t0\t9\t9\n" * 10},
    "too few": {"train/n02/images/n02_30.JPEG": None},
    "too large": {"train/n01/images/n01_03.JPEG": bytes(17 << 20)},
    "truncated": {},
}


@pytest.mark.parametrize("damage", HOSTILE)
def test_a_damaged_or_hostile_zip_is_one_message_and_leaves_nothing(damage: str, folder: Path) -> None:
    path = folder / "tiny-imagenet-200.zip"
    zip_of(path, HOSTILE[damage])
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(UsageError, match=r"tiny-imagenet-200\.zip: ") as caught:
        load("tiny-imagenet", published(TINY_IMAGENET, folder))
    assert len(caught.value.message.splitlines()) == 1
    assert names(folder) == [path.name]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=lambda ending: ending.name)
def test_a_fetch_that_is_interrupted_says_so_and_its_engine_ends_too(ending: signal.Signals, folder: Path) -> None:
    """A server that accepts and then keeps silent. Ctrl-C reaches the engine too, SIGTERM not."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "cafe_tui", "data", "prepare", "svhn"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "http_proxy": proxy, "no_proxy": ""},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored in the background
        )
        connection, _ = silent.accept()
        with connection, process:
            if ending == signal.SIGINT:
                os.killpg(process.pid, ending)
            else:
                process.send_signal(ending)
            _, said = process.communicate(timeout=PATIENCE)
            connection.settimeout(PATIENCE)
            while connection.recv(4096):
                pass  # to the end, which comes with that of the engine
    assert process.returncode == 130
    assert said.startswith("cafe: interrupted")
    assert "Traceback" not in said
    assert not names(folder)
