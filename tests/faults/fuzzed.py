"""Files of every kind that is read, and what damage, chance and ill will make of them.

Everything is made at run time from a seed: `Kind.sample` writes good files into a folder, `spoil` changes the bytes of
one, `Kind.read` reads as the program does. Input number i of a seed is always the same.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from cafe_tui.console import painter, views
from cafe_tui.reading.log import LogFollower
from cafe_tui.reading.run import whole_view
from cafe_tui.reading.runs import row_of
from cafe_tui.results import exporting
from cafe_tui.results.outcomes import Unreadable as UnreadableOutcomes
from cafe_tui.results.outcomes import evaluated, read_outcomes
from cafe_tui.results.settings import read_settings
from cafe_tui.ui import preferences
from cafe_tui.ui.screens.samples import Unreadable as UnreadableSamples
from cafe_tui.ui.screens.samples import read_sheet
from engine.attacks.tally import Tally
from engine.checkpoints import foreign, own
from engine.contract import datasets, weights
from engine.contract.errors import CafeError
from engine.contract.profile import files as profiles
from engine.contract.profile.catalogue import DATA_FACTS
from engine.contract.run import listing
from engine.contract.run.columns import ColumnReader
from engine.contract.run.records import Part, Progress, RecordReader, Scalars, encode
from engine.contract.run.results import make_cell
from engine.contract.run.rundir import RunDir
from engine.data import cache
from engine.data.archives import Recipe
from engine.data.cifar import CIFAR10, CIFAR100
from engine.data.svhn import SVHN
from engine.evaluation import outcomes
from engine.models import build
from engine.models.base import Inputs
from engine.models.loading import fill_from
from tests.recorded import record_run, story

OWN = (CafeError, UnreadableOutcomes, UnreadableSamples)
"""What may be raised about a file: our own words."""

NUMBERS = (
    *(b"-1", b"0.1", b"1e999", b"-1e999", b"NaN", b"Infinity", b"1e308"),
    *(b"9223372036854775808", b"9" * 25, b"9" * 5000),
)
VALUES = (b"null", b"true", b"[]", b"{}", b'""', b'"\\ud800"', b'"\\u0000"', b'"\\u001b[2J"', '"ε\u202e"'.encode())
NUMBER = re.compile(rb"-?\d+(\.\d+)?([eE][-+]?\d+)?")
TEXT = re.compile(rb'"[^"\n]*"')


# --- damage ----------------------------------------------------------------------------------------------------------


def _flip(data: bytearray, random: Random) -> None:
    for _ in range(random.choice((1, 1, 1, 8, 64))):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _cut(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data)) :]


def _take_out(data: bytearray, random: Random) -> None:
    start = random.randrange(len(data))
    del data[start : start + random.choice((1, 8, 100, 4000))]


def _repeat(data: bytearray, random: Random) -> None:
    start = random.randrange(len(data))
    piece = data[start : start + random.choice((1, 8, 100, 4000))]
    data[start:start] = piece * random.choice((1, 2, 20))


def _move(data: bytearray, random: Random) -> None:
    start, to = random.randrange(len(data)), random.randrange(len(data))
    piece = data[start : start + random.choice((4, 50, 500))]
    del data[start : start + len(piece)]
    data[to:to] = piece


def _noise(data: bytearray, random: Random) -> None:
    start = random.randrange(len(data))
    fresh = random.choice((b"\x00", b"\xff", random.randbytes(1))) * random.choice((1, 4, 8, 64))
    data[start : start + len(fresh) * random.randrange(2)] = fresh


def _number(data: bytearray, random: Random) -> None:
    if found := list(NUMBER.finditer(data)):
        one = random.choice(found)
        data[one.start() : one.end()] = random.choice(NUMBERS)


def _value(data: bytearray, random: Random) -> None:
    if found := [*NUMBER.finditer(data), *TEXT.finditer(data)]:
        one = random.choice(found)
        data[one.start() : one.end()] = random.choice(VALUES)


def _nest(data: bytearray, random: Random) -> None:
    depth = random.choice((3, 200, 2_000, 100_000))
    opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"[{a=", b"}]")))
    found = [*NUMBER.finditer(data), *TEXT.finditer(data)]
    start, end = random.choice(found).span() if found else (random.randrange(len(data)),) * 2
    data[start:end] = opening * depth + b"1" + closing * (depth * random.randrange(2))


def _shuffle_lines(data: bytearray, random: Random) -> None:
    lines = data.split(b"\n")
    one, two = random.randrange(len(lines)), random.randrange(len(lines))
    what = random.randrange(4)
    if what == 0:
        lines[one], lines[two] = lines[two], lines[one]
    elif what == 1:
        lines[one:one] = [lines[two]] * random.choice((1, 3, 30))
    elif what == 2:
        del lines[min(one, two) : max(one, two)]
    else:
        lines[one] = lines[one][: random.randrange(len(lines[one]) + 1)] + lines[two]
    data[:] = b"\n".join(lines)


DAMAGES = (_flip, _flip, _cut, _take_out, _repeat, _move, _noise, _number, _value, _nest, _shuffle_lines)


def spoil(good: bytes, random: Random) -> bytes:
    """The bytes after one to four changes."""
    data = bytearray(good)
    for _ in range(random.choice((1, 1, 2, 4))):
        if not data:
            break
        random.choice(DAMAGES)(data, random)
    return bytes(data)


# --- kinds of files --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of file: `sample` writes good ones into a folder and returns those to spoil, `read` reads the folder.

    Of all inputs it gets a share by its `weight`.
    """

    name: str
    weight: int
    sample: Callable[[Path], Sequence[Path]]
    read: Callable[[Path, Path], object]


RUN = "20260921-144000-quickstart-k3f9"


def _run(folder: Path) -> RunDir:
    """A finished run with few records, outcomes and samples."""
    run = record_run(folder, run_id=RUN)
    kept = [record for i, record in enumerate(story("finished")) if i % 20 == 0 or not isinstance(record, Scalars)]
    parts = [Part(attack="apgd-ce", correct=5), Part(attack="square", correct=4)]
    radii = [make_cell("train", f"pgd@{eps}", 5, 9, eps=eps, norm="linf", parts=parts) for eps in (0.1, 0.2)]
    at_work = Progress(model="train", attack="aa", done=3, total=9, part="square", parts=parts[:1], share=0.5)
    run.records_file.write_bytes(b"".join(map(encode, [*kept, *radii, at_work])))
    right = np.arange(8) % 2 == 0
    np.savez_compressed(run.outcomes / "evaluate-train-pgd.npz", right=right, labels=np.arange(8))
    Image.new("RGB", (8, 8), "red").save(run.samples / "0-clean.png")
    entry = {"index": 0, "label": 3, "predictions": {"clean": 3}, "files": {"clean": "0-clean.png"}}
    sheet = {"model": "train", "attack": "pgd", "perturbation_gain": 10.0, "samples": [entry, entry]}
    (run.samples / "samples.json").write_text(json.dumps(sheet))
    return run


def _seen(run: RunDir) -> None:
    """What the list, the live view, `cafe show` and `cafe table` make of a run."""
    view = whole_view(run)
    row_of(run).to_json()
    signs = views.Signs()
    lines = [*views.frame(view, 100, 40, signs), *views.summary(view, 100, signs), *views.ending(view, signs, RUN)]
    painter.render(lines, 100, io.StringIO())
    exporting.cells_csv(view.table)
    views.radius_lines(view.table, 100, signs)
    exporting.markdown(exporting.robust_grid(view.table))


def _read_records(folder: Path, file: Path) -> None:
    for reader in (RecordReader(file), ColumnReader(file)):
        while reader.read(1 << 12) if type(reader) is RecordReader else reader.read_columns(1 << 12):  # type: ignore[attr-defined]
            pass
    _seen(RunDir(file.parent))


def _read_run(folder: Path, file: Path) -> None:
    for run in listing.newest_first(folder):
        _seen(run)
        run.results(), LogFollower(run, lines=5).poll()
        evaluated(run, read_settings(run))
    with_samples = RunDir(folder / RUN)
    read_sheet(with_samples)


def _small_files(folder: Path) -> list[Path]:
    run = _run(folder)
    return [run.info_file, run.state_file, run.results_file]


def _whole_run(folder: Path) -> list[Path]:
    run = _run(folder)
    return [path for path in run.path.rglob("*") if path.is_file()]


def _profile(folder: Path) -> list[Path]:
    text = 'extends = "base"\n[set]\n"stage.train.epochs" = 3\n[sweep]\nseed = [0, 1]\n"threat.eps" = ["8/255", 0.1]\n'
    (folder / "it.toml").write_text(text)
    (folder / "base.toml").write_text(profiles.dumps(profiles.load("quickstart").profile))
    return [folder / "it.toml", folder / "base.toml"]


def _read_profile(folder: Path, file: Path) -> None:
    for path in (folder / "it.toml", folder / "base.toml"):
        profiles.load_sweep(str(path)) or profiles.load(str(path))


def _outcomes(folder: Path) -> list[Path]:
    right, tried = np.arange(6) % 2 == 0, np.ones((6, 2), dtype=bool)
    made = outcomes.Outcomes.begin("train", "pgd", right, {"a": [1, "b"]}, {})
    outcomes.save(folder / "done.npz", made, np.arange(6))
    made.tally = Tally(right, tried, ~tried, np.ones((6, 2, 6), dtype=np.int32))
    outcomes.save(folder / "partial.npz", made, np.arange(6), finished=False)
    with np.load(folder / "partial.npz") as packed:
        np.savez(folder / "plain.npz", **packed)
    return [folder / "done.npz", folder / "partial.npz", folder / "plain.npz"]


def _read_outcomes(folder: Path, file: Path) -> None:
    outcomes.load(file, "train", "pgd", 6)
    read_outcomes(file)


def _samples(folder: Path) -> list[Path]:
    run = _run(folder)
    return [run.samples / "samples.json", run.samples / "samples.json", run.samples / "0-clean.png"]


def _network() -> nn.Module:
    return build("small", Inputs(10, 1, 8, (0.3,), (0.4,)), seed=1)


def _checkpoints(folder: Path) -> list[Path]:
    own.save_weights(folder / "own.safetensors", {"classifier": nn.Linear(3, 2)}, {"mean": [0.1], "classes": 10})
    save_file({"w": torch.zeros(2, 3)}, folder / "bare.safetensors", metadata={"format": "pt"})
    return [folder / "own.safetensors", folder / "bare.safetensors"]


def _read_checkpoint(folder: Path, file: Path) -> None:
    weights.read_facts(file)
    _any_of(
        lambda: own.load_weights(file, {"classifier": nn.Linear(3, 2)}),
        lambda: own.read_facts(file),
        lambda: foreign.find_weights(foreign.read(file)),
    )


def _foreign(folder: Path) -> list[Path]:
    state = _network().state_dict()
    torch.save({"net": state, "args": argparse.Namespace(eps=0.03), "acc": 1.0}, folder / "zip.pt")
    torch.save({"net": state, "epoch": 3}, folder / "old.t7", _use_new_zipfile_serialization=False)
    torch.save(nn.Linear(2, 2).state_dict(), folder / "bare.pt")
    return [folder / "zip.pt", folder / "old.t7", folder / "old.t7", folder / "bare.pt"]


def _read_foreign(folder: Path, file: Path) -> None:
    weights.read_facts(file)
    fill_from(foreign.read(file), _network())


def _resume(folder: Path) -> list[Path]:
    state = {"model": nn.Linear(2, 2).state_dict(), "step": 3, "rng": torch.get_rng_state()[:64], "list": [1.0, "a"]}
    own.save_resume(folder / "train.resume.pt", state)
    return [folder / "train.resume.pt"]


def _preferences(folder: Path) -> list[Path]:
    preferences.save(folder / "ui.json", preferences.Preferences(folded=["a", "b"]))
    return [folder / "ui.json"]


def _cache(folder: Path) -> list[Path]:
    """A cache as `engine.data.cache` writes it, of five pictures."""
    kept = folder / "folder-8-x"
    kept.mkdir()
    pixels = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(1, 3, 4, 4).repeat(5, 0)
    arrays = {part: pixels if "images" in part else np.arange(5) for part in cache.PARTS}
    for part, array in arrays.items():
        np.save(kept / f"{part}.npy", array)
    sums = {part: hashlib.sha256(array.tobytes()).hexdigest() for part, array in arrays.items()}
    facts = vars(DATA_FACTS["cifar10"]) | {"pool": 5, "test": 5, "size": 4, "mean": [0.1] * 3, "std": [0.2] * 3}
    (kept / "facts.json").write_text(json.dumps(facts | {"from": "/pictures", "stamp": "", "sha256": sums}))
    return [kept / "facts.json", kept / "facts.json", *(kept / f"{part}.npy" for part in cache.PARTS)]


def _read_cache(folder: Path, file: Path) -> None:
    os.environ["CAFE_DATA"] = str(folder)
    datasets.prepared()
    _any_of(lambda: cache.load(file.parent), lambda: cache.stamp(file.parent), lambda: cache.verify(file.parent))


def _archives(folder: Path) -> list[Path]:
    """Published archives in small, not packed, so that damage reaches what is in them."""
    import pickle

    from scipy.io import savemat

    pixels, labels = np.arange(3072, dtype=np.uint8).reshape(1, -1).repeat(2, 0), [1, 3]
    record = np.hstack([np.array([[1], [3]], dtype=np.uint8), pixels]).tobytes()
    fine = pickle.dumps({b"data": pixels, b"fine_labels": labels}, protocol=2)
    ten = {f"{name}.bin": record for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")}
    for name, files in {"cifar-10-binary.tar": ten, "cifar-100-python.tar": {"train": fine, "test": fine}}.items():
        with tarfile.open(folder / name, "w") as tar:
            for inner, content in files.items():
                info = tarfile.TarInfo(inner)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    images = pixels.reshape(2, 3, 32, 32).transpose(2, 3, 1, 0)
    for name in ("train_32x32.mat", "test_32x32.mat"):
        savemat(folder / name, {"X": images, "y": np.array([[1], [10]])})
    return [folder / "cifar-10-binary.tar", folder / "cifar-100-python.tar", folder / "train_32x32.mat"]


def _read_archive(folder: Path, file: Path) -> None:
    recipes: dict[str, tuple[Recipe, list[Path]]] = {
        "cifar-10-binary.tar": (CIFAR10, [file]),
        "cifar-100-python.tar": (CIFAR100, [file]),
        "train_32x32.mat": (SVHN, [file, folder / "test_32x32.mat"]),
    }
    recipe, paths = recipes[file.name]
    with cache.Origin(str(file), "").readable():
        recipe.read(paths)


KINDS = (
    Kind("records", 6, lambda folder: [_run(folder).records_file], _read_records),
    Kind("small files of a run", 2, _small_files, _read_run),
    Kind("whole run", 2, _whole_run, _read_run),
    Kind("profile", 2, _profile, _read_profile),
    Kind("outcomes", 1, _outcomes, _read_outcomes),
    Kind("samples", 1, _samples, _read_run),
    Kind("checkpoint", 2, _checkpoints, _read_checkpoint),
    Kind("foreign checkpoint", 2, _foreign, _read_foreign),
    Kind("resume state", 1, _resume, lambda folder, file: own.load_resume(file)),
    Kind("preferences", 1, _preferences, lambda folder, file: preferences.load(file)),
    Kind("cache", 1, _cache, _read_cache),
    Kind("archive", 1, _archives, _read_archive),
)
"""All of them. Records get at least a quarter of the inputs."""


def _any_of(*readers: Callable[[], object]) -> None:
    """Each of them, whatever those before it said of the file."""
    refusals = []
    for read in readers:
        try:
            read()
        except OWN as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]
