"""`cafe compare`: what it prints, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scipy.stats import binomtest

from engine.contract.run.rundir import RunDir
from tests.recorded import record_run
from tests.ui.compared import change_profile, outcomes, run_id, run_with_outcomes, write_outcomes
from tests.ui.test_cli import cafe, refused

A, B = run_id("aaaa"), run_id("bbbb")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with two runs that can be compared."""
    run_with_outcomes(tmp_path / "runs", "aaaa", 1)
    run_with_outcomes(tmp_path / "runs", "bbbb", 2, share=0.8)
    return tmp_path


def test_compare_prints_the_last_networks_on_the_same_examples(folder: Path) -> None:
    answer = cafe("compare", A, B, cwd=folder)
    assert answer.returncode == 0
    assert answer.stderr == ""
    lines = answer.stdout.splitlines()
    assert lines[:2] == [f"A  {A}/inoculate", f"B  {B}/inoculate"]
    assert [line.split()[0] for line in lines[3:]] == ["clean", "fgsm", "pgd"]
    assert len({line.rindex(" ") for line in lines[3:]}) == 1
    assert "\x1b" not in answer.stdout


def test_compare_as_json_has_the_rows_of_the_contract(folder: Path) -> None:
    answer = cafe("compare", A, B, "--json", "--attack", "pgd", "--attack", "clean", "--model", "train", cwd=folder)
    rows = json.loads(answer.stdout)["rows"]
    assert [row["attack"] for row in rows] == ["clean", "pgd"]
    assert set(rows[0]) == {"attack", "a", "b", "difference", "low", "high", "p", "n"}
    assert (rows[1]["a"], rows[1]["b"], rows[1]["n"]) == (f"{A}/train", f"{B}/train", 450)
    right_a, right_b = outcomes(102), outcomes(202, 0.8)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    assert rows[1]["p"] == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)
    assert rows[1]["difference"] == pytest.approx(100 * (only_b - only_a) / 450)


def test_compare_says_what_cannot_be_compared(folder: Path) -> None:
    record_run(folder / "runs", run_id=run_id("none"))
    refused("compare", A, run_id("none"), cwd=folder, says=["no per-example outcomes", "evaluate"])
    refused("compare", A, A, cwd=folder, says=["with itself"])
    refused("compare", A, B, "--model", "game", cwd=folder, says=["'game'", "There are: train, inoculate."])
    refused("compare", A, B, "--attack", "aa", cwd=folder, says=["'aa'", "Both have: clean, fgsm, pgd"])
    refused("compare", A, "nobody", cwd=folder, says=["no run 'nobody'"])


def test_compare_leaves_out_different_examples_aloud(folder: Path) -> None:
    two = RunDir(folder / "runs" / B)
    write_outcomes(two, "inoculate", "pgd", outcomes(1, n=100))
    answer = cafe("compare", A, B, cwd=folder)
    assert answer.returncode == 0
    assert "pgd: not compared, different examples: 450 and 100" in answer.stderr
    assert [line.split()[0] for line in answer.stdout.splitlines()[3:]] == ["clean", "fgsm"]
    refused("compare", A, B, "--attack", "pgd", cwd=folder, says=["different examples", "`limit`"])
    for attack in ("clean", "fgsm"):
        (two.outcomes / f"evaluate-inoculate-{attack}.npz").write_bytes(b"torn")
    refused("compare", A, B, cwd=folder, says=["not compared", "evaluate-inoculate-clean.npz", "BadZipFile"])


def test_compare_does_not_take_another_network_while_the_table_is_unfinished(folder: Path) -> None:
    for attack in ("clean", "fgsm", "pgd"):
        (folder / "runs" / B / "outcomes" / f"evaluate-inoculate-{attack}.npz").unlink()
    refused("compare", A, B, cwd=folder, says=["'inoculate' yet", "There are: train.", "--model"])
    assert f"B  {B}/train" in cafe("compare", A, B, "--model", "train", cwd=folder).stdout


def test_comparing_loads_no_screen_and_numpy_only_for_outcomes() -> None:
    script = (
        "import sys, cafe_tui.results.grids, cafe_tui.results.outcomes\n"
        "import cafe_tui.results.exporting, cafe_tui.cli.compare\n"
        "print([name for name in ('torch', 'textual', 'numpy', 'rich') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_compare_warns_of_another_threat(folder: Path) -> None:
    change_profile(RunDir(folder / "runs" / B), threat__eps=0.3)
    answer = cafe("compare", A, B, cwd=folder)
    assert answer.returncode == 0
    assert "threat.eps" in answer.stderr
