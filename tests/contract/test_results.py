"""The numbers every view shows, against scipy and against their definitions."""

from __future__ import annotations

import random
from fractions import Fraction
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]
from scipy.stats import binomtest, norm  # type: ignore[import-untyped]

from engine.contract.run.records import Cell
from engine.contract.run.results import (
    Z95,
    OverSeeds,
    Results,
    document,
    headline,
    make_cell,
    mcnemar_exact,
    over_seeds,
    paired,
    t_quantile,
    t_two_sided,
    table,
    wilson,
)

COUNTS = st.integers(1, 50_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


# --- one proportion --------------------------------------------------------------------------------------------------


@given(COUNTS)
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    expected = binomtest(*counts).proportion_ci(method="wilson")
    assert wilson(*counts) == pytest.approx((100 * expected.low, 100 * expected.high), rel=1e-9, abs=1e-9)


@given(COUNTS)
def test_wilson_holds_the_accuracy_and_stays_within_0_and_100(counts: tuple[int, int]) -> None:
    low, high = wilson(*counts)
    assert 0 <= low <= 100 * counts[0] / counts[1] <= high <= 100


def test_wilson_of_nothing_and_of_all() -> None:
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 100.0


@pytest.mark.parametrize("counts", [(1, 0), (0, 0), (-1, 10), (11, 10), (0, -1)])
def test_wilson_refuses_what_is_no_proportion(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="need 0 <= correct <= total"):
        wilson(*counts)


def test_the_normal_point() -> None:
    assert pytest.approx(norm.ppf(0.975), abs=1e-15) == Z95


# --- two models on the same examples ---------------------------------------------------------------------------------


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_scipys(only_a: int, only_b: int) -> None:
    expected = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar_exact(only_a, only_b) == pytest.approx(expected, rel=1e-9, abs=1e-200)  # far below, scipy may say 0


@given(st.integers(0, 600), st.integers(0, 600))
def test_mcnemar_is_its_definition_also_where_it_is_tiny(only_a: int, only_b: int) -> None:
    flips = only_a + only_b
    tail = Fraction(sum(comb(flips, k) for k in range(min(only_a, only_b) + 1)), 2**flips)
    assert mcnemar_exact(only_a, only_b) == pytest.approx(float(min(1, 2 * tail)), rel=1e-12, abs=0)


def test_mcnemar_of_as_many_examples_as_imagenet_has() -> None:
    assert mcnemar_exact(25_000, 25_000) == 1.0
    assert mcnemar_exact(0, 50_000) == 0.0
    assert mcnemar_exact(12_000, 12_500) == pytest.approx(binomtest(12_000, 24_500).pvalue, rel=1e-9)


def agresti_min(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """The interval from the four smoothed cells as multinomial proportions: variance of a difference of two of them."""
    concordant = n - only_a - only_b
    smoothed = [only_a + 0.5, only_b + 0.5, concordant / 2 + 0.5, concordant / 2 + 0.5]
    size = sum(smoothed)
    pa, pb = smoothed[0] / size, smoothed[1] / size
    variance = (pa * (1 - pa) + pb * (1 - pb) + 2 * pa * pb) / size
    centre, half = pb - pa, float(norm.ppf(0.975)) * sqrt(variance)
    return 100 * max(centre - half, -1), 100 * min(centre + half, 1)


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 10_000))
def test_the_paired_interval_is_that_of_agresti_and_min(only_a: int, only_b: int, both: int) -> None:
    n = only_a + only_b + both
    assume(n > 0)
    result = paired("pgd", "a", "b", only_a=only_a, only_b=only_b, n=n)
    assert (result.low, result.high) == pytest.approx(agresti_min(only_a, only_b, n), abs=1e-9)
    assert result.difference == pytest.approx(100 * (only_b - only_a) / n)
    assert -100 <= result.low <= result.high <= 100


@pytest.mark.parametrize(("pa", "pb", "n"), [(0.02, 0.06, 450), (0.1, 0.1, 100), (0.01, 0.01, 1000), (0.3, 0.2, 60)])
def test_the_paired_interval_covers_the_truth_in_19_of_20_cases(pa: float, pb: float, n: int) -> None:
    draw = random.Random(20)
    trials, covered = 1000, 0
    for _ in range(trials):
        outcomes = draw.choices("ab-", (pa, pb, 1 - pa - pb), k=n)
        result = paired("pgd", "a", "b", only_a=outcomes.count("a"), only_b=outcomes.count("b"), n=n)
        covered += result.low <= 100 * (pb - pa) <= result.high
    # 0.93 lies three standard errors (0.7 points) below; an interval far too wide would not be one of 95% either.
    assert 0.93 <= covered / trials <= 0.99


def test_exchanging_the_models_mirrors_the_comparison() -> None:
    one = paired("pgd", "a", "b", only_a=3, only_b=20, n=100)
    other = paired("pgd", "b", "a", only_a=20, only_b=3, n=100)
    assert (one.difference, one.low, one.high) == (-other.difference, -other.high, -other.low)
    assert one.p == other.p < 0.001


def test_models_that_agree_everywhere_do_not_differ() -> None:
    same = paired("pgd", "a", "b", only_a=0, only_b=0, n=100)
    assert (same.difference, same.p) == (0.0, 1.0)
    assert same.low < 0 < same.high


@pytest.mark.parametrize(("only_a", "only_b", "n"), [(-1, 0, 10), (0, -1, 10), (6, 5, 10), (0, 0, 0)])
def test_counts_that_do_not_fit_are_refused(only_a: int, only_b: int, n: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        paired("pgd", "a", "b", only_a=only_a, only_b=only_b, n=n)


# --- tables ----------------------------------------------------------------------------------------------------------


def cell(model: str, attack: str, correct: int, total: int = 100) -> Cell:
    return make_cell(model, attack, correct, total)


CELLS = [
    cell("train", "clean", 95),
    cell("train", "fgsm", 60),
    cell("train", "pgd", 50),
    cell("inoculate", "clean", 93),
    cell("inoculate", "fgsm", 66),
    cell("inoculate", "pgd", 58),
]


def test_a_cell_carries_accuracy_and_interval_in_percent() -> None:
    made = make_cell("m", "pgd", 45, 50, seconds=1.5, gradient_steps=30, warnings=["weak"])
    assert (made.accuracy, made.seconds, made.gradient_steps, made.warnings) == (90.0, 1.5, 30, ["weak"])
    assert (made.low, made.high) == wilson(45, 50)


def test_rows_and_columns_stand_in_the_order_of_their_first_cell() -> None:
    shown = table(CELLS)
    assert shown.models == ("train", "inoculate")
    assert shown.attacks == ("clean", "fgsm", "pgd")
    assert shown.cell("inoculate", "pgd") == CELLS[-1]


def test_cells_still_to_come_have_their_place() -> None:
    shown = table(CELLS[:1], models=["train", "inoculate"], attacks=["clean", "pgd"])
    assert (shown.models, shown.attacks) == (("train", "inoculate"), ("clean", "pgd"))
    assert shown.cell("inoculate", "pgd") is None
    assert shown.difference("inoculate", "clean") is None


def test_a_cell_measured_again_replaces_the_earlier_one() -> None:
    shown = table([*CELLS, cell("train", "pgd", 40)])
    again = shown.cell("train", "pgd")
    assert again is not None
    assert again.correct == 40
    assert shown.attacks == ("clean", "fgsm", "pgd")


def test_differences_are_to_the_first_row() -> None:
    shown = table(CELLS)
    assert shown.difference("inoculate", "pgd") == pytest.approx(8.0)
    assert shown.difference("train", "pgd") is None
    assert shown.difference("inoculate", "cw") is None
    assert shown.difference("nobody", "pgd") is None


def test_an_empty_table_has_no_rows_and_no_differences() -> None:
    shown = table([])
    assert (shown.models, shown.attacks) == ((), ())
    assert shown.difference("train", "pgd") is None


# --- over seeds ------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-40, 40), min_size=2, max_size=12))
def test_differences_over_seeds_are_tested_as_scipy_does(differences: list[int]) -> None:
    found = over_seeds([value / 5 for value in differences])
    assert found.n == len(differences)
    assert found.mean == pytest.approx(np.mean(differences) / 5)
    if len(set(differences)) == 1:
        assert (found.low, found.high, found.p) == (None, None, None), "no spread was seen; that proves nothing"
        return
    assert found.deviation == pytest.approx(np.std(differences, ddof=1) / 5)
    judged = stats.ttest_1samp([value / 5 for value in differences], 0.0)
    assert found.p == pytest.approx(judged.pvalue, abs=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(judged.confidence_interval()))


def test_one_seed_has_no_spread() -> None:
    assert over_seeds([1.5]) == OverSeeds(1.5, None, None, None, None, 1)
    with pytest.raises(ValueError, match="no differences"):
        over_seeds([])


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30, 99])
def test_students_t_is_that_of_scipy(freedom: int) -> None:
    for t in (0.0, 0.3, -1.0, 2.7, 40.0):
        assert t_two_sided(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), abs=1e-12)
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom))


# --- headline --------------------------------------------------------------------------------------------------------


def test_the_headline_is_the_last_model_under_its_strongest_attack() -> None:
    head = headline(CELLS, {"accuracy_ac": 90.0, "accuracy_cf": 10.0, "psi": 1.0})
    low, high = wilson(58, 100)
    assert head == {
        "model": "inoculate",
        "clean": 93.0,
        "attack": "pgd",
        "robust": 58.0,
        "robust_low": low,
        "robust_high": high,
        "base": "train",
        "base_robust": 50.0,
        "difference": 8.0,
        "accuracy_ac": 90.0,
        "accuracy_cf": 10.0,
    }


def test_a_single_model_has_no_base() -> None:
    head = headline(CELLS[:3])
    assert head["robust"] == 50.0
    assert "base" not in head


def test_a_table_of_clean_accuracy_has_no_robust_one() -> None:
    assert headline(CELLS[:1]) == {"model": "train", "clean": 95.0}


def test_a_base_not_yet_attacked_gives_no_difference() -> None:
    head = headline([CELLS[0], CELLS[3], CELLS[5]])
    assert head["robust"] == 58.0
    assert "difference" not in head


def test_nothing_measured_nothing_shown() -> None:
    assert headline([]) == {}
    assert headline([], {"accuracy_ac": 90.0}) == {"accuracy_ac": 90.0}
    assert Results().cells == []


def test_the_document_holds_the_cells_as_recorded() -> None:
    (only,) = document(CELLS[:1])["cells"]
    assert only["kind"] == "cell"
    assert (only["model"], only["attack"], only["correct"], only["total"]) == ("train", "clean", 95, 100)
