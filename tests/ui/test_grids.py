"""Tables of several runs: the best of a column, missing cells, remarks."""

from __future__ import annotations

from cafe_tui.results.grids import table_grid
from cafe_tui.results.groups import Compared
from engine.contract.run.results import make_cell, table
from tests.ui.compared import compared, texts


def test_the_best_of_a_column_is_marked_and_missing_cells_are_left_open() -> None:
    one = compared("aaaa", 0, {("train", "clean"): 440, ("train", "pgd"): 300})
    two = compared("bbbb", 0, {("train", "clean"): 440, ("train", "fgsm"): 310}, **{"stage.train.lr": 0.2})
    grid = table_grid([one, two])
    assert grid.head == ("run", "model", "clean", "pgd", "fgsm")
    assert texts(grid) == [["aaaa", "train", "97.8", "66.7", "·"], ["bbbb", "train", "97.8", "·", "68.9"]]
    assert [entry.best for entry in grid.sections[0][0]] == [False, False, True, False, False]
    assert grid.sections[0][0][2].small == "[96.0, 98.8]"


def test_a_column_measured_on_different_numbers_of_examples_is_remarked() -> None:
    one, two = (compared(end, 0, {}) for end in ("aaaa", "bbbb"))
    runs = [
        Compared(run.id, run.name, run.settings, table([make_cell("train", "pgd", 50, n)]))
        for run, n in ((one, 450), (two, 100))
    ]
    assert "pgd: measured on 100 and 450 examples" in table_grid(runs).remarks
