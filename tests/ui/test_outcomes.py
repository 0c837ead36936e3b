"""Outcomes of two runs on the same examples: which can be compared, with what result, and which files are refused."""

from __future__ import annotations

import os
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from cafe_tui.results import grids
from cafe_tui.results import outcomes as outcomes_module
from cafe_tui.results.outcomes import Evaluated, OutcomeFiles, Unreadable, read_outcomes
from cafe_tui.results.settings import Settings, read_settings
from tests.ui.compared import LABELS, change_profile, outcomes, run_id, run_with_outcomes, write_outcomes


def test_paired_numbers_are_those_of_the_definition(tmp_path: Path) -> None:
    one, two = run_with_outcomes(tmp_path, "aaaa", 1), run_with_outcomes(tmp_path, "bbbb", 2, share=0.8)
    tested = [outcomes_module.evaluated(run, read_settings(run)) for run in (one, two)]
    found = outcomes_module.verdicts(tested, OutcomeFiles())
    assert [(v.a, v.b, v.attack) for v in found] == [
        (model, model, attack) for model in ("train", "inoculate") for attack in ("clean", "fgsm", "pgd")
    ]
    for verdict in found:
        right_a = np.load(tested[0].files[verdict.a, verdict.attack])["right"]
        right_b = np.load(tested[1].files[verdict.b, verdict.attack])["right"]
        only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
        result = verdict.result
        assert result is not None
        assert result.p == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)
        assert result.difference == pytest.approx(100 * (right_b.mean() - right_a.mean()))
        assert result.low < result.difference < result.high
        assert result.n == 450
        assert (result.a, result.b) == (f"{one.id}/{verdict.a}", f"{two.id}/{verdict.b}")


def test_networks_without_a_namesake_are_compared_last_with_last(tmp_path: Path) -> None:
    def tested(end: str, *models: str) -> Evaluated:
        return Evaluated(run_id(end), Settings(), {(model, "pgd"): tmp_path for model in models})

    assert outcomes_module.shared_models(tested("aaaa", "train", "cafe"), tested("bbbb", "adv")) == [("cafe", "adv")]
    assert outcomes_module.shared_models(tested("aaaa", "train", "cafe"), tested("bbbb", "train")) == [
        ("train", "train")
    ]
    assert outcomes_module.shared_models(tested("aaaa"), tested("bbbb", "train")) == []


@pytest.mark.parametrize(
    ("right", "labels", "says"),
    [
        (outcomes(1, n=200), LABELS[:200], "450 and 200"),
        (outcomes(1), LABELS[::-1], "labels differ"),
    ],
)
def test_different_examples_are_never_compared(tmp_path: Path, right: Any, labels: Any, says: str) -> None:
    one, two = run_with_outcomes(tmp_path, "aaaa", 1), run_with_outcomes(tmp_path, "bbbb", 2)
    write_outcomes(two, "train", "pgd", right, labels)
    tested = [outcomes_module.evaluated(run, read_settings(run)) for run in (one, two)]
    found = outcomes_module.verdicts(tested, OutcomeFiles())
    [refused_one] = [verdict for verdict in found if verdict.result is None]
    assert (refused_one.a, refused_one.attack) == ("train", "pgd")
    assert says in refused_one.problem
    grid = grids.paired_grid(tested, found, {one.id: "aaaa", two.id: "bbbb"})
    assert len(grid.sections[0]) == 5
    assert any("bbbb: not compared under pgd: different examples" in remark for remark in grid.remarks)


def test_the_same_labels_of_other_data_are_not_the_same_examples(tmp_path: Path) -> None:
    one, two = run_with_outcomes(tmp_path, "aaaa", 1), run_with_outcomes(tmp_path, "bbbb", 2)
    settings = read_settings(two)
    other = Settings({**settings.values, "data.name": "svhn"}, settings.tables)
    tested = [outcomes_module.evaluated(one, read_settings(one)), outcomes_module.evaluated(two, other)]
    assert {v.problem for v in outcomes_module.verdicts(tested, OutcomeFiles())} == {"different data: digits and svhn"}


def test_another_strength_of_the_attack_is_remarked(tmp_path: Path) -> None:
    one, two = run_with_outcomes(tmp_path, "aaaa", 1), run_with_outcomes(tmp_path, "bbbb", 2)
    change_profile(two, threat__eps=0.3, stage__evaluate__pgd_steps=5, stage__train__epochs=3)
    settings = (read_settings(one), read_settings(two))
    for attacks, keys in (
        (["clean"], []),
        (["clean", "fgsm"], ["threat.eps"]),
        (["pgd-l2"], ["threat.eps", "stage.evaluate.pgd_steps"]),
        (["apgd-ce", "cw"], ["threat.eps"]),
    ):
        assert outcomes_module.different_tests(*settings, attacks) == keys


def npy(array: Any, **options: Any) -> bytes:
    buffer = BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), **options)
    return buffer.getvalue()


def zipped(**parts: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


RIGHT = np.array([True, False])
INTACT = zipped(right=npy(outcomes(1)), labels=npy(LABELS))
FOREIGN = {
    "empty": b"",
    "text": b"hello",
    "a single array": npy(RIGHT),
    "a pickle": zipped(right=npy(np.array([print, print]), allow_pickle=True), labels=npy([1, 2])),
    "no labels": zipped(right=npy(RIGHT)),
    "other shapes": zipped(right=npy(RIGHT), labels=npy([1, 2, 3])),
    "numbers": zipped(right=npy([1.0, 0.0]), labels=npy([1, 2])),
    "words": zipped(right=npy(RIGHT), labels=npy(["a", "b"])),
    "no examples": zipped(right=npy(RIGHT[:0]), labels=npy(np.zeros(0, int))),
    "a matrix": zipped(right=npy([RIGHT, RIGHT]), labels=npy([[1, 2], [1, 2]])),
    "a lie about its size": zipped(
        right=npy(RIGHT).replace(b"(2,)", b"(9" + b"9" * 11 + b",)").replace(b" " * 13 + b"\n", b"\n"),
        labels=npy([1, 2]),
    ),
    "torn": zipped(right=npy(RIGHT), labels=npy([1, 2]))[:-40],
    "scrambled": INTACT[:100] + bytes(40) + INTACT[140:],
}


def test_intact_outcomes_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(INTACT)
    read = read_outcomes(tmp_path / "a.npz")
    assert (read.right == outcomes(1)).all()
    assert (read.labels == LABELS).all()


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_and_torn_outcomes_give_one_clear_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "evaluate-train-pgd.npz"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(Unreadable) as caught:
        read_outcomes(path)
    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_huge_missing_and_endless_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tmp_path / "bomb.npz"
    bomb.write_bytes(zipped(right=npy(np.zeros(1 << 20, bool)), labels=npy(np.zeros(1 << 20, int))))
    assert bomb.stat().st_size < 1 << 16
    assert len(read_outcomes(bomb).right) == 1 << 20
    monkeypatch.setattr(outcomes_module, "MOST_BYTES", 1 << 20)
    with pytest.raises(Unreadable, match="more than"):
        read_outcomes(bomb)
    with pytest.raises(Unreadable, match="not there"):
        read_outcomes(tmp_path / "none.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(Unreadable, match="not a file"):
        read_outcomes(tmp_path / "pipe.npz")


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    run = run_with_outcomes(tmp_path, "aaaa", 1)
    path, files = run.outcomes / "evaluate-train-pgd.npz", OutcomeFiles()
    first = files.read(path)
    assert files.read(path) is first
    write_outcomes(run, "train", "pgd", outcomes(5, n=100))
    assert len(files.read(path).right) == 100
    path.write_bytes(b"torn")
    for _ in range(2):
        with pytest.raises(Unreadable):
            files.read(path)
