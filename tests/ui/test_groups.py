"""Runs that differ in the seed alone: which belong together, their means and spread."""

from __future__ import annotations

import numpy as np
import pytest

from cafe_tui.results.grids import table_grid
from cafe_tui.results.groups import Compared, seed_groups
from tests.ui.compared import compared, texts


def test_runs_that_differ_only_in_seed_have_mean_and_sample_deviation() -> None:
    rights = (280, 300, 323)
    runs = [compared(f"aaa{i}", i, {("train", "pgd"): right}) for i, right in enumerate(rights)]
    [group] = seed_groups([*runs, compared("bbbb", 7, {("train", "pgd"): 100}, **{"threat.eps": 0.3})])
    assert [run.name for run in group.runs] == ["aaa0", "aaa1", "aaa2"]
    found = group.mean("train", "pgd")
    assert found is not None
    accuracies = [100 * right / 450 for right in rights]
    assert found.mean == pytest.approx(np.mean(accuracies))
    assert found.deviation == pytest.approx(np.std(accuracies, ddof=1))
    assert found.n == 3
    assert group.mean("train", "aa") is None
    assert texts(table_grid(runs))[-1] == ["mean of 3", "train", "66.9 ± 4.8"]


def test_groups_are_named_by_what_sets_them_apart() -> None:
    runs = [
        compared(
            f"{i}{eps:04}"[-4:],
            i,
            {("train", "pgd"): 300},
            **{"threat.eps": eps / 100, "stage.inoculate.gamma": eps / 400, "name": f"run{i}"},
        )
        for eps in (15, 30)
        for i in range(2)
    ]
    assert [group.name for group in seed_groups(runs)] == ["run0 threat.eps=0.15", "run0 threat.eps=0.3"]
    assert "mean of 2: run0 threat.eps=0.3" in [row[0] for row in texts(table_grid(runs))]
    assert any("not the same task: different threat.eps" in remark for remark in table_grid(runs).remarks)
    assert not any(entry.best for rows in table_grid(runs).sections for row in rows for entry in row)


def test_a_seed_counts_once_and_one_seed_is_no_group() -> None:
    twice = [compared("aaaa", 0, {("train", "pgd"): 300}), compared("bbbb", 0, {("train", "pgd"): 300})]
    assert seed_groups(twice) == []
    [group] = seed_groups([*twice, compared("cccc", 1, {("train", "pgd"): 310})])
    assert [run.name for run in group.runs] == ["aaaa", "cccc"]
    assert "bbbb repeats seed 0 and is not in the mean" in table_grid([*twice, *group.runs[1:]]).remarks
    [group] = seed_groups([compared("none", 0, {}), *twice, compared("cccc", 1, {("train", "pgd"): 310})])
    assert [run.name for run in group.runs] == ["aaaa", "cccc"]


def test_a_mean_of_fewer_runs_than_its_group_says_of_how_many() -> None:
    runs = [compared(f"aaa{i}", i, {("train", "clean"): 440}) for i in range(3)]
    runs[0] = compared("aaa0", 0, {("train", "clean"): 440, ("train", "pgd"): 300})
    runs[1] = compared("aaa1", 1, {("train", "clean"): 440, ("train", "pgd"): 309})
    assert texts(table_grid(runs))[-1][2:] == ["97.8 ± 0.0", "67.7 ± 1.4 (n=2)"]
    single = [runs[0], compared("aaa1", 1, {("train", "clean"): 440})]
    assert texts(table_grid(single))[-1][3] == "66.7 (n=1)"


def test_runs_on_other_test_images_are_another_group() -> None:
    def on(images: str, end: str, seed: int) -> Compared:
        run = compared(end, seed, {("train", "pgd"): 300})
        run.table.cells["train", "pgd"].images = images
        return run

    runs = [on("a", "r1", 0), on("b", "r2", 0), on("a", "r3", 1), on("", "r4", 2), on("b", "r5", 1)]
    groups = seed_groups(runs)
    assert [[run.name for run in group.runs] for group in groups] == [["r1", "r3", "r4"], ["r2", "r5"]]
    assert [group.name for group in groups] == ["quickstart", "quickstart (other test images)"]
