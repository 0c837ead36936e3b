"""Image folders, ImageNet's among them, and data sets of the Hugging Face hub: counted without torch, read, refused."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cafe_tui.launch import local
from engine import data
from engine.__main__ import _prepare
from engine.contract import datasets
from engine.contract.errors import ProfileError, UsageError
from engine.contract.folders import counted
from engine.contract.plan import plan, train_size
from engine.contract.profile import files as profiles
from engine.contract.profile.catalogue import DATA_FACTS, DATA_SETS
from engine.contract.profile.schema import Data
from engine.contract.profile.tables import to_tables
from engine.device import Compute
from tests.patience import PATIENCE, kill

CPU = Compute(torch.device("cpu"))
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 12 pictures to train on and 4 to test on, in several shapes, modes and formats; an empty cache."""
    monkeypatch.setenv("CAFE_DATA", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "pets"
    for part, count in (("train", 6), ("val", 2)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                shape = (16, 24) if i == 1 else (32, 16, 3)
                pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.{'JPEG' if i == 2 else 'png'}")
            (root / part / name / "notes.txt").write_text("not a picture")
    (root / "train" / ".cache").mkdir()
    counted.cache_clear()
    return root


def test_another_set_out_of_a_folder_is_a_row_like_that_of_folder(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATA_SETS, "pets", DATA_SETS["folder"])
    monkeypatch.setitem(data.DATA, "pets", data.DATA["folder"])
    section = Data(name="pets", path=str(pets), size=16)
    assert datasets.complete(section) == []
    datasets.check_here(section)
    assert len(data.load(section, seed=0, compute=CPU).test) == 4
    assert datasets.cache_folder(section).name.startswith("pets-pets-16-")


def profile_of(**section: Any) -> Any:
    return profiles.from_tables({"name": "x", "data": section, "stage": [{"kind": "train"}, {"kind": "evaluate"}]})


def test_a_folder_is_counted_for_the_plan_and_read_as_it_says(pets: Path) -> None:
    profile = profile_of(name="folder", path="pets", size=16, validation=0.25)
    section = profile.data
    assert section.path == str(pets), "an engine works in another folder"
    assert (section.classes, section.channels, section.train_images, section.test_images) == (2, 3, 12, 4)
    assert train_size(profile) == 9
    assert [stage.steps for stage in plan(profile)][1] == 4 * 3
    splits = data.load(section, seed=0, compute=CPU)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (9, 3, 4)
    assert not splits.facts.flip, "nobody knows whether a mirrored picture keeps its class"
    assert splits.test.labels.tolist() == [0, 0, 1, 1]
    with Image.open(pets / "val" / "cat" / "0.png") as picture:
        middle = np.asarray(picture)[8:24]
    assert np.array_equal(splits.test.images[0].permute(1, 2, 0).numpy(), middle), "cut around the middle"
    assert torch.equal(splits.test.images[1, 0], splits.test.images[1, 2]), "a grey picture among colour"
    again = profiles.from_tables(to_tables(profile))
    assert again.data == section, "a resolved profile needs the folder no more"
    assert profile_of(name="folder", path="pets", size=16, flip=True).data.flip
    assert profile_of(name="folder", path="pets", size=16, flip=True).data.facts.flip


def test_a_folder_that_changes_is_read_anew_or_refused(pets: Path) -> None:
    section = profile_of(name="folder", path="pets", size=16).data
    first = data.load(section, seed=0, compute=CPU)
    Image.fromarray(np.full((16, 16, 3), 7, np.uint8)).save(pets / "val" / "cat" / "0.png")
    second = data.load(section, seed=0, compute=CPU)
    assert not torch.equal(first.test.images, second.test.images)
    assert (second.test.images[0] == 7).all()
    (pets / "train" / "dog" / "5.png").unlink()
    with pytest.raises(UsageError, match="needed"):
        data.load(section, seed=0, compute=CPU)


def test_grey_folders_have_one_channel(pets: Path) -> None:
    for path in pets.glob("*/*/*.*"):
        if path.suffix != ".txt":
            path.unlink()
            Image.fromarray(RNG.integers(0, 256, (16, 16), dtype=np.uint8)).save(path.with_suffix(".png"))
    section = profile_of(name="folder", path="pets", size=16).data
    assert data.load(section, seed=0, compute=CPU).train.images.shape[1:] == (1, 16, 16)
    Image.fromarray(RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(pets / "val" / "dog" / "0.png")
    with pytest.raises(UsageError, match=r"val/dog/0\.png: .*colour picture among grey"):
        data.load(section, seed=0, compute=CPU)


def damage_class(pets: Path) -> None:
    (pets / "val" / "mouse").mkdir()


def damage_empty(pets: Path) -> None:
    for path in (pets / "train" / "dog").iterdir():
        path.unlink()


def damage_test(pets: Path) -> None:
    (pets / "val").rename(pets / "held")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_class, "only one of both has mouse"),
        (damage_empty, "train/dog holds no picture"),
        (damage_test, r"no folders train and test \(or val\)"),
    ],
)
def test_a_folder_of_another_form_is_a_problem_of_the_profile(damage: Any, said: str, pets: Path) -> None:
    damage(pets)
    with pytest.raises(ProfileError, match=said) as caught:
        profile_of(name="folder", path="pets", size=16)
    assert caught.value.problems[0].startswith("data.path: ")


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ({"name": "folder"}, ["data.size", "data.path"]),
        ({"name": "folder", "size": 16, "path": "nowhere"}, ["data.path"]),
        ({"name": "folder", "size": 16, "path": "pets", "classes": 3}, ["data.classes"]),
        ({"name": "cifar10", "size": 16, "path": "pets"}, ["data.path", "data.size"]),
        ({"name": "svhn", "flip": True}, ["data.flip"]),
        ({"name": "hf:a/b"}, ["data.size"]),
        ({"name": "hf:../b", "size": 16}, ["data.name", "data.size"]),
        ({"name": "foldr", "size": 16, "path": "pets"}, ["data.name"]),
    ],
)
def test_keys_that_do_not_go_together_are_told(section: dict[str, Any], keys: list[str]) -> None:
    with pytest.raises(ProfileError) as caught:
        profile_of(**section)
    told = [problem.split(":")[0] for problem in caught.value.problems]
    assert told == [key for key in keys if key != "data.size" or section["name"] != "hf:../b"]


def test_pictures_in_folders_of_a_class_are_its_own_and_hidden_files_are_none(pets: Path) -> None:
    (pets / "train" / "cat" / "more" / "still").mkdir(parents=True)
    (pets / "train" / "cat" / "0.png").rename(pets / "train" / "cat" / "more" / "still" / "0.png")
    for hidden in ("._1.png", ".hidden"):
        (pets / "train" / "cat" / hidden).write_bytes(b"\x00\x05\x16\x07")  # as macOS puts beside each file
    section = profile_of(name="folder", path="pets", size=16).data
    assert section.train_images == 12
    assert data.load(section, seed=0, compute=CPU).test.images.shape == (4, 3, 16, 16)
    (pets / "val" / "dog" / "gone.png").symlink_to("nowhere")
    counted.cache_clear()
    with pytest.raises(ProfileError, match=r"val/dog/gone\.png: cannot be read: No such file"):
        profile_of(name="folder", path="pets", size=16)


def test_all_broken_pictures_are_told_at_once(pets: Path) -> None:
    section = profile_of(name="folder", path="pets", size=16).data
    broken = [*sorted((pets / "train" / "dog").glob("?.*"))[1:], *(pets / "val" / "cat").glob("0.*")]
    for path in broken:
        path.write_bytes(b"noise")
    with pytest.raises(UsageError, match="and 1 more pictures") as caught:
        data.load(section, seed=0, compute=CPU)
    assert all(str(path.relative_to(pets)) in caught.value.message for path in broken[:-1])


def test_two_processes_that_make_one_cache_both_have_it(pets: Path, tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom engine.contract.profile.schema import Data\nfrom engine.data import folders\n"
        "for i in range(12):\n"
        "    os.environ['CAFE_DATA'] = f'{sys.argv[1]}/{i}'\n"
        "    counted = {'classes': 2, 'channels': 3, 'train_images': 12, 'test_images': 4}\n"
        "    folders.load(Data(name='folder', path='pets', size=16, **counted))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "many")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        said = [process.communicate(timeout=PATIENCE)[1] for process in both]
    finally:
        for process in both:
            kill(process)
    assert [process.returncode for process in both] == [0, 0], said
    assert len(list((tmp_path / "many").glob("*/folder-*/facts.json"))) == 12


def test_a_reader_that_leaves_does_not_end_the_preparation(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as nobody:
        monkeypatch.setattr("sys.stdout", nobody)
        assert _prepare("folder", str(pets), 16) == 0
    assert list((tmp_path / "cache").glob("folder-*/facts.json"))


@pytest.mark.parametrize("content", [b"", b"noise" * 50, "cut"], ids=["empty", "noise", "cut"])
def test_a_broken_picture_is_named_and_nothing_is_left(content: bytes | str, pets: Path, tmp_path: Path) -> None:
    section = profile_of(name="folder", path="pets", size=16).data
    victim = pets / "train" / "dog" / "4.png"
    victim.write_bytes(victim.read_bytes()[:-60] if isinstance(content, str) else content)
    with pytest.raises(UsageError, match=r"pets: damaged.*train/dog/4\.png") as caught:
        data.load(section, seed=0, compute=CPU)
    assert "replace that picture" in caught.value.hint
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".locks"]


def test_imagenet_is_prepared_from_its_folder(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = replace(DATA_FACTS["imagenet"], classes=2, pool=12, test=4)
    monkeypatch.setitem(DATA_FACTS, "imagenet", facts)
    section = Data(name="imagenet", size=32)
    with pytest.raises(UsageError, match="not prepared at 32 pixels") as caught:
        data.load(section, seed=0, compute=CPU)
    assert "cafe data prepare imagenet --path FOLDER --size 32" in caught.value.hint
    assert _prepare("imagenet", None, 32) == 2
    assert _prepare("imagenet", str(pets), 32) == 0
    said = capsys.readouterr()
    assert "--path FOLDER" in said.err
    assert "MB for the cache" in said.out
    assert data.load(section, seed=0, compute=CPU).train.images.shape[1:] == (3, 32, 32)
    assert _prepare("imagenet", None, 32) == 0
    assert "checksums are right" in capsys.readouterr().out
    (pets / "train" / "dog").rename(pets / "train" / "wolf")
    assert _prepare("imagenet", str(pets), 64) == 2
    assert "must agree" in capsys.readouterr().err


class Part:
    """A part of a data set as the library `datasets` hands it out."""

    def __init__(self, rows: list[dict[str, Any]], features: dict[str, Any]) -> None:
        self.rows, self.features = rows, features

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | str) -> Any:
        return [row[key] for row in self.rows] if isinstance(key, str) else self.rows[key]

    def cast_column(self, name: str, feature: Any) -> Part:
        assert feature.decode is False
        return Part(self.rows, self.features | {name: feature})


class HubImage:
    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class ClassLabel:
    names = ("stop", "go", "turn")


def picture(shape: tuple[int, ...] = (9, 12)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Part]:
    """The library with one data set, lab/signs, of grey pictures: in memory, and one in a file."""
    features = {"img": HubImage(), "fine": ClassLabel(), "label": ClassLabel(), "note": "text"}
    rows = [{"img": {"bytes": picture(), "path": None}, "fine": 0, "label": i % 3} for i in range(6)]
    (tmp_path / "picture.png").write_bytes(picture())
    rows[3]["img"] = {"bytes": None, "path": str(tmp_path / "picture.png")}
    parts = {"train": Part(rows, features), "test": Part(rows[:2], features)}
    library = ModuleType("datasets")
    library.__spec__ = type(sys.__spec__)("datasets", None)

    def load_dataset(name: str, config: str | None) -> dict[str, Part]:
        return parts

    def load_dataset_builder(name: str, config: str | None) -> SimpleNamespace:
        if name != "lab/signs":
            raise FileNotFoundError(f"no {name}\non the hub")
        splits = {part: SimpleNamespace(num_examples=len(rows)) for part, rows in parts.items()}
        return SimpleNamespace(info=SimpleNamespace(download_size=7_000_000, splits=splits))

    library.__dict__.update(
        Image=HubImage, ClassLabel=ClassLabel, load_dataset=load_dataset, load_dataset_builder=load_dataset_builder
    )
    monkeypatch.setitem(sys.modules, "datasets", library)
    return parts


def test_a_set_of_the_hub_is_prepared_and_then_needs_the_library_no_more(
    hub: dict[str, Part], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ProfileError, match="cafe data prepare hf:lab/signs --size 9"):
        profile_of(name="hf:lab/signs", size=9)
    assert _prepare("hf:lab/signs", None, 9) == 0
    monkeypatch.delitem(sys.modules, "datasets")
    section = profile_of(name="hf:lab/signs", size=9, validation=0.5).data
    assert (section.classes, section.channels, section.train_images, section.test_images) == (3, 1, 6, 2)
    splits = data.load(section, seed=0, compute=CPU)
    assert splits.train.images.shape == (3, 1, 9, 9)
    assert splits.test.labels.tolist() == [0, 1]
    assert _prepare("hf:lab/signs", None, 9) == 0
    said = capsys.readouterr().out
    assert said.index("7 MB to fetch, at most 0 MB for the cache") < said.index("is ready")
    assert "checksums are right" in said
    assert [row.name for row, _ in datasets.prepared()] == ["hf:lab/signs"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("hf:lab/signs", None, None), "--size: missing"),
        (("hf:lab/signs", "pets", 9), "--path: found"),
        (("cifar10", "pets", 16), "--path: found"),
        (("digits", None, 16), "--size: found 16; digits needs none"),
        (("folder", None, 16), "--path: missing"),
    ],
)
def test_options_that_do_not_go_with_the_name_are_refused_first(
    arguments: tuple[str, str | None, int | None],
    said: str,
    hub: dict[str, Part],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert _prepare(*arguments) == 2
    answer = capsys.readouterr()
    assert said in answer.err
    assert not answer.out
    assert not (tmp_path / "cache").exists()


def test_a_folder_is_not_taken_for_a_set_of_the_hub(
    hub: dict[str, Part], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "lab" / "signs").mkdir(parents=True)
    assert _prepare("hf:lab/signs", None, 9) == 2
    assert "there is a lab/signs in this folder" in capsys.readouterr().err


def test_a_set_of_the_hub_that_cannot_be_used_is_one_message(
    hub: dict[str, Part], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert _prepare("hf:lab/none", None, 9) == 2
    assert "cannot be fetched: no lab/none\n" in capsys.readouterr().err
    hub["train"].rows[2]["label"] = -1
    assert _prepare("hf:lab/signs", None, 9) == 2
    assert "labels from -1 to 2" in capsys.readouterr().err
    hub["train"].features["back"] = HubImage()
    assert _prepare("hf:lab/signs", None, 9) == 2
    assert "2 columns of pictures" in capsys.readouterr().err
    del hub["test"]
    assert _prepare("hf:lab/signs", None, 9) == 2
    assert "has the parts train; needed" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".locks"]


def test_what_a_run_lacks_is_said_before_the_run_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.contract.datasets.find_spec", lambda name: None)
    for name, hint in (
        ("mnist5k", r"cafe-tui\[mnist5k\]"),
        ("cifar10", "cafe data prepare cifar10"),
        ("imagenet", "cafe data prepare imagenet --path FOLDER --size 224"),
    ):
        path = tmp_path / f"{name}.toml"
        path.write_text(f'name = "x"\n[data]\nname = "{name}"\n[[stage]]\nkind = "train"\n', encoding="utf-8")
        with pytest.raises(UsageError) as caught:
            local.start(tmp_path / "runs", profiles.load(str(path)))
        assert caught.match(hint)
        assert caught.value.exit_code == 2
    assert not (tmp_path / "runs").exists()
    assert not datasets.is_here(Data(name="mnist5k"))


def test_what_a_killed_conversion_left_is_removed_and_that_of_a_living_one_is_not(pets: Path) -> None:
    section = profile_of(name="folder", path="pets", size=16).data
    folder = datasets.cache_folder(section)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(PATIENCE)
    dead, living, other = (
        folder.with_name(f".{folder.name}.{host}.{pid}")
        for host, pid in ((socket.gethostname(), process.pid), (socket.gethostname(), os.getppid()), ("x", process.pid))
    )
    for left in (dead, living, other):
        left.mkdir(parents=True)
    data.load(section, seed=0, compute=CPU)
    left_over = {path.name for path in folder.parent.iterdir()}
    assert left_over == {folder.name, living.name, other.name, ".locks"}


def test_the_command_lists_data_sets_and_refuses_what_is_none(pets: Path) -> None:
    def cafe(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "cafe_tui", "data", *arguments], capture_output=True, text=True)

    assert _prepare("folder", str(pets), 16) == 0
    rows = {row["name"]: row for row in json.loads(cafe("ls", "--json").stdout)["data"]}
    assert (rows["folder"].pop("path"), rows.pop("folder")["size"]) == (str(pets), 16)
    assert f"yes, of {pets}\n" in cafe("ls").stdout
    assert rows.keys() == DATA_FACTS.keys()
    assert (rows["digits"]["here"], rows["cifar10"]["here"]) == (True, False)
    assert rows["tiny-imagenet"]["classes"] == 200
    answer = cafe("prepare", "tiny-imagnet", "--size", "4")
    assert answer.returncode == 2
    assert 'did you mean "tiny-imagenet"' in answer.stderr
    assert "size: found 4; allowed: a whole number >= 8" in answer.stderr


def test_a_damaged_cache_is_one_message(pets: Path, tmp_path: Path) -> None:
    section = profile_of(name="folder", path="pets", size=16).data
    data.load(section, seed=0, compute=CPU)
    facts = datasets.cache_folder(section) / "facts.json"
    known = json.loads(facts.read_text())
    facts.write_text(json.dumps(known | {"mean": None}))
    with pytest.raises(UsageError, match="the cache cannot be read"):
        data.load(section, seed=0, compute=CPU)
