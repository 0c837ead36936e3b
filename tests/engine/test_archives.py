"""Published archives in their real formats, small: read alike whichever form they have, and never trusted."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from engine import data
from engine.contract.catalogue import DATA_FACTS
from engine.contract.datasets import Archive
from engine.contract.errors import UsageError
from engine.contract.schema import Data
from engine.data.archives import Recipe, load, prepare
from engine.data.cifar import CIFAR10, CIFAR100
from engine.data.svhn import SVHN
from engine.data.tiny import TINY_IMAGENET
from engine.device import Compute

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
    table = {b"data": IMAGES[part].reshape(-1, 3072), key: LABELS[part].tolist()}
    return pickle.dumps(table, protocol=2)  # as the published files, which Python 2 wrote


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


def published(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe as if the files in the folder were the published ones."""

    def known(archive: Archive) -> Archive:
        path = folder / archive.name
        digest = hashlib.md5(path.read_bytes()).hexdigest() if path.exists() else archive.md5
        return replace(archive, md5=digest)

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
    monkeypatch.setitem(data.DATA, "cifar10", lambda: load("cifar10", published(CIFAR10, folder)))
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
    assert [entry.name for entry in folder.iterdir()] == ["cifar-10-binary.tar.gz"]


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
        assert recipe.alternatives[-1][0].name in caught.value.hint


def test_a_download_that_fails_says_what_to_do(folder: Path) -> None:
    said: list[str] = []
    nowhere = Archive("x.tar.gz", "http://127.0.0.1:9/x.tar.gz", "0" * 32, 1000)
    with pytest.raises(UsageError, match="cannot be fetched") as caught:
        prepare("cifar10", Recipe(((nowhere,),), CIFAR10.read), said.append)
    assert "put x.tar.gz into" in caught.value.hint
    assert "to fetch" in said[0]
    assert "for the cache" in said[0]


def test_a_download_is_checked_and_converted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    import functools
    import threading
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    site = tmp_path_factory.mktemp("site")
    write(site, "cifar10 binary")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        content = (site / "cifar-10-binary.tar.gz").read_bytes()
        url = f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"
        good = Archive("cifar-10-binary.tar.gz", url, hashlib.md5(content).hexdigest(), len(content))
        said: list[str] = []
        with pytest.raises(UsageError, match="cannot be fetched"):
            prepare("cifar10", Recipe(((replace(good, md5="0" * 32),),), CIFAR10.read), said.append)
        (folder / "cifar-10-binary.tar.gz").write_bytes(content[:500])  # of an interrupted copy
        recipe = Recipe(((good,),), CIFAR10.read)
        prepare("cifar10", recipe, said.append)
        assert said[-1].startswith("cifar10 is ready")
        prepare("cifar10", recipe, said.append)
        assert said[-1].startswith("cifar10 is ready")
    finally:
        server.shutdown()
        server.server_close()
    assert np.array_equal(load("cifar10", recipe).test_images, IMAGES[50:])


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
    assert sorted(path.name for path in folder.iterdir()) == ["tiny-imagenet", "tiny-imagenet-200.zip"]


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
    assert [entry.name for entry in folder.iterdir()] == [path.name]


def test_a_fetch_that_is_interrupted_says_so_without_a_traceback(folder: Path) -> None:
    """A server that accepts and then keeps silent; ctrl-C reaches the command and its engine alike."""
    import signal
    import socket
    import subprocess
    import sys
    import textwrap
    import time

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        program = textwrap.dedent(f"""
            import signal
            from dataclasses import replace
            from engine import data
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
            from engine.__main__ import _prepare
            recipe = data.RECIPES["cifar10"]
            archive = replace(recipe.alternatives[0][0], url={url!r})
            data.RECIPES["cifar10"] = replace(recipe, alternatives=((archive,),))
            raise SystemExit(_prepare("cifar10", None, None))
        """)
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        connection, _ = silent.accept()
        with connection, process:
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.startswith("cafe: interrupted")
    assert "Traceback" not in said
    assert not list(folder.glob("*"))
