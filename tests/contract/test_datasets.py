"""What is known of a data set without reading an image: facts that a profile carries, and image folders."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from engine.contract.errors import UsageError
from engine.contract.folders import listing
from engine.contract.plan import plan, train_size
from engine.contract.profile import files as profiles
from engine.contract.profile import schema
from engine.contract.profile.schema import Data
from tests.contract.written import METHOD, load

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_a_resolved_profile_carries_the_facts_of_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = load(METHOD).profile
    expected = plan(load(METHOD).profile)
    monkeypatch.setattr(schema, "DATA_FACTS", {})
    assert plan(profile) == expected, "nothing is looked up again"
    assert train_size(profile) == 1347 - 135


def test_facts_are_no_key_of_a_profile() -> None:
    asked, other = load(METHOD).profile, load(METHOD).profile
    assert asked.data.facts.classes == 10
    assert asked == other
    assert profiles.dumps(asked) == profiles.dumps(other)
    assert "facts" not in msgspec.json.encode(asked).decode()
    assert "facts" not in schema.json_schema()["$defs"]["Data"]["properties"]


def test_facts_are_those_of_the_section_that_is_asked() -> None:
    section = Data(name="imagenet")
    assert (section.facts.size, section.facts.flip) == (224, True)
    smaller = msgspec.structs.replace(section, size=64, flip=False)
    assert (smaller.facts.size, smaller.facts.flip) == (64, False)
    mine = Data(name="folder", size=16, classes=2, channels=1, train_images=9, test_images=4)
    assert mine.facts == schema.DataFacts(classes=2, channels=1, size=16, pool=9, test=4, flip=False)


def pictures(*paths: str) -> None:
    for path in paths:
        file = Path("pics", path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"not decoded")
        os.utime(file, (1e9, 1e9))


def test_a_folder_is_listed_by_class_and_stamped() -> None:
    pictures("train/a/2.png", "train/a/1.png", "train/b/deep/3.JPEG", "val/a/1.png", "val/b/1.png")
    pictures("train/a/._1.png", "train/a/notes.txt", "train/.cache/1.png")
    found = listing(Path("pics"))
    assert found.classes == ("a", "b")
    assert found.train == (("train/a/1.png", "train/a/2.png"), ("train/b/deep/3.JPEG",))
    assert found.test == (("val/a/1.png",), ("val/b/1.png",))
    assert found.stamp == "c3b7e3a510e4e05061f76d21f4aa8b9bce2ce759daeb3177255da8a443b60e0f", (
        "a cache that was made under another stamp is made anew"
    )
    pictures("test/a/1.png", "test/b/1.png")
    assert listing(Path("pics")).test == (("test/a/1.png",), ("test/b/1.png",)), "test comes before val"


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        ((), "pics: cannot be read: No such file or directory"),
        (("train/a/1.png",), "pics holds no folders train and test (or val)"),
        (("test/a/1.png",), "pics holds no folders train and test (or val)"),
        (("train/a/1.png", "test/a/1.png"), "pics: the classes of train and test must agree: there are too few"),
        (
            ("train/a/1.png", "train/b/1.png", "val/a/1.png"),
            "pics: the classes of train and val must agree: only one of both has b",
        ),
        (
            (*(f"train/{name}/1.png" for name in "abcde"), "val/a/1.png"),
            "pics: the classes of train and val must agree: only one of both has b, c, d ...",
        ),
        (
            ("train/a/1.png", "train/b/1.txt", "val/a/1.png", "val/b/1.png"),
            "pics: train/b holds no picture",
        ),
        (
            ("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.txt"),
            "pics: val/b holds no picture",
        ),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused_with_the_reason(paths: tuple[str, ...], reason: str) -> None:
    pictures(*paths)
    with pytest.raises(UsageError) as caught:
        listing(Path("pics"))
    assert caught.value.message == reason
    assert caught.value.hint
