"""What is taken of a set of the hub: configuration, columns, classes, parts, and files that are in two of them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from engine import data
from engine.__main__ import _prepare
from engine.contract import datasets
from engine.contract.errors import UsageError
from engine.contract.profile.schema import Data
from engine.data.hub_columns import Chosen, choose
from engine.data.hub_files import disentangled
from tests.engine.test_folders import HubImage, Part, picture


class ClassLabel:
    dtype = "int64"

    def __init__(self, *names: str) -> None:
        self.names = names


class Value:
    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


FEATURES = {
    "img": HubImage(),
    "fine": ClassLabel("ant", "bee", "cat"),
    "coarse": ClassLabel("insect", "mammal"),
    "number": Value("int64"),
    "word": Value("string"),
    "score": Value("float32"),
}
LIBRARY = SimpleNamespace(Image=HubImage, ClassLabel=ClassLabel)


def part(count: int, features: dict[str, Any] | None = None, **columns: Any) -> Part:
    rows = [
        {
            "img": {"bytes": b"", "path": None},
            "fine": i % 3,
            "coarse": i % 2,
            "number": 10 + i % 3,
            "word": ("hot", "cold")[i % 2],
            "score": 0.5,
            **{key: values[i] for key, values in columns.items()},
        }
        for i in range(count)
    ]
    return Part(rows, features or FEATURES)


def taken(parts: dict[str, Part], **keys: str) -> Chosen:
    return choose(Data(name="hf:lab/bugs", size=8, **keys), parts, LIBRARY, lambda text: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "names", "held"),
    [
        ("fine", ("ant", "bee", "cat"), [0, 1, 2, 0]),
        ("coarse", ("insect", "mammal"), [0, 1, 0, 1]),
        ("number", ("10", "11", "12"), [0, 1, 2, 0]),
        ("word", ("cold", "hot"), [1, 0, 1, 0]),
    ],
)
def test_classes_are_labels_numbers_or_words(label: str, names: tuple[str, ...], held: list[int]) -> None:
    chosen = taken({"train": part(12), "test": part(4)}, label=label)
    assert (chosen.image, chosen.class_names, chosen.labels[1].tolist()) == ("img", names, held)


def test_the_columns_of_webdataset_are_found() -> None:
    features = {"jpg": HubImage(), "cls": Value("int64"), "__key__": Value("string"), "__url__": Value("string")}
    rows = [{"jpg": None, "cls": i % 2, "__key__": str(i), "__url__": "x"} for i in range(6)]
    chosen = taken({"train": Part(rows, features), "validation": Part(rows[:2], features)})
    assert (chosen.image, chosen.class_names, chosen.labels[1].tolist()) == ("jpg", ("0", "1"), [0, 1])


@pytest.mark.parametrize(
    ("keys", "said", "hint"),
    [
        ({}, "2 columns of classes", "It may be: fine, coarse, number, word."),
        ({"label": "score"}, "score is no column of classes", "--label COLUMN"),
        ({"label": "fine", "image": "fine"}, "fine is no column of pictures", "It may be: img."),
        ({"label": "fine", "test": "dev"}, "has the parts train, test; needed are train and dev", "--test PART"),
        ({"label": "fine", "test": "train"}, "needed are train and train", "--test PART"),
    ],
)
def test_what_there_is_is_listed(keys: dict[str, str], said: str, hint: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        taken({"train": part(12), "test": part(4)}, **keys)
    assert hint in caught.value.hint


def test_a_part_without_labels_is_not_tested_on() -> None:
    parts = {"train": part(12), "test": part(4, fine=[-1] * 4), "validation": part(3)}
    chosen = taken(parts, label="fine")
    assert chosen.parts[1] is parts["validation"]
    with pytest.raises(UsageError, match="no label in test"):
        taken(parts, label="fine", test="test")


def test_classes_of_the_parts_are_matched_by_name() -> None:
    turned = FEATURES | {"fine": ClassLabel("cat", "ant", "bee")}
    assert taken({"train": part(12), "test": part(4, turned)}, label="fine").labels[1].tolist() == [2, 0, 1, 2]
    other = FEATURES | {"fine": ClassLabel("ant", "bee", "dog")}
    with pytest.raises(UsageError, match="only one of both has cat, dog"):
        taken({"train": part(12), "test": part(4, other)}, label="fine")
    with pytest.raises(UsageError, match="has 99, and train has not"):
        taken({"train": part(12), "test": part(4, number=[10, 11, 12, 99])}, label="number")
    with pytest.raises(UsageError, match="does not tell classes: 12 values"):
        taken({"train": part(12, number=list(range(12))), "test": part(4, number=[0, 1, 2, 3])}, label="number")


def files(root: str, **parts: str) -> SimpleNamespace:
    found = {name: [f"{root}/{file}" for file in some.split()] for name, some in parts.items()}
    return SimpleNamespace(config=SimpleNamespace(data_files=found))


@pytest.mark.parametrize("root", ["/home/x/tubes", "hf://datasets/lab/tubes@0a1b"])
def test_files_in_two_parts_go_by_their_folder(root: str) -> None:
    train = "data/train/test_tube/0.png data/train/training_shoe/0.png data/train/training_shoe/0.png"
    test = "data/test/test_tube/0.png data/test/training_shoe/0.png data/train/test_tube/0.png"
    found = disentangled("hf:lab/tubes", files(root, train=train + " data/test/training_shoe/0.png", test=test))
    assert found == {"train": [f"{root}/data/train/**"], "test": [f"{root}/data/test/**"]}
    with pytest.raises(UsageError, match=r"test_tube/0\.png lies in no folder that names its part"):
        disentangled("hf:lab/tubes", files(root, train="train/a/0.png test_tube/0.png", test="test_tube/0.png"))


def test_files_that_the_library_tells_apart_are_left_to_it() -> None:
    assert disentangled("hf:lab/bugs", files("/x", train="train/a/0.png", test="test/a/0.png")) == {}
    assert disentangled("hf:lab/bugs", SimpleNamespace(config=SimpleNamespace(data_files=None))) == {}


def test_a_configuration_is_listed_chosen_and_a_set_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAFE_DATA", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    library = ModuleType("datasets")
    library.__spec__ = type(sys.__spec__)("datasets", None)
    pictures = [{"bytes": picture((8, 8, 3)), "path": None} for _ in range(15)]
    parts = {"train": part(12, img=pictures[:12]), "test": part(4, img=[*pictures[12:], pictures[5]])}

    def builder(name: str, config: str | None) -> SimpleNamespace:
        if config not in ("big", "small"):
            raise ValueError("Config name is missing.")
        return SimpleNamespace(info=SimpleNamespace(download_size=None, splits=None))

    library.__dict__.update(vars(LIBRARY))
    library.__dict__.update(
        load_dataset_builder=builder,
        load_dataset=lambda name, config: parts,
        get_dataset_config_names=lambda name: ["big", "small"],
    )
    monkeypatch.setitem(sys.modules, "datasets", library)
    assert _prepare("hf:lab/bugs", None, 8) == 2
    assert "has the configurations big, small; none was chosen" in capsys.readouterr().err
    assert _prepare("hf:lab/bugs", None, 8, config="huge") == 2
    assert "none is huge" in capsys.readouterr().err
    for config in ("big", "small"):
        assert _prepare("hf:lab/bugs", None, 8, config=config, label="fine") == 0
    assert "1 of the 4 test images are in train too" in capsys.readouterr().out
    section = Data(name="hf:lab/bugs", size=8, config="big", label="fine")
    assert datasets.complete(section) == []
    source = data.read(section)
    assert (section.classes, source.class_names, source.shared) == (3, ("ant", "bee", "cat"), 1)
    assert {row.config for row, _ in datasets.prepared()} == {"big", "small"}
    [problem] = datasets.complete(Data(name="hf:lab/bugs", size=8, config="big"))
    assert "cafe data prepare hf:lab/bugs --config big --size 8" in problem
    assert _prepare("digits", None, None, config="big") == 2
    assert "--config: found 'big'; digits needs none" in capsys.readouterr().err
