"""What inoculation changes over the seeds: which networks are compared, and with what result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.cells import cell_len
from scipy.stats import binomtest, ttest_rel

from cafe_tui import format as fmt
from cafe_tui.results import exporting, seeds
from cafe_tui.results.seeds import Pair
from cafe_tui.results.settings import read_settings
from engine.contract.profile import files as profiles
from engine.contract.run import rundir
from engine.contract.run.results import Results, make_cell
from engine.contract.run.rundir import RunDir, State, write_atomically
from tests.ui.compared import outcomes, write_outcomes
from tests.ui.test_cli import cafe, refused

PROFILE = """
name = "two"
[[stage]]
kind = "train"
id = "adv"
[[stage]]
kind = "game"
[[stage]]
kind = "train"
id = "longer"
start = "adv"
defence = "trades"
epochs = 5
batch_size = 64
lr = 1e-3
warmup_epochs = 2
[[stage]]
kind = "train"
id = "plain"
start = "adv"
defence = "trades"
epochs = 4
batch_size = 64
lr = 1e-3
warmup_epochs = 2
[[stage]]
kind = "inoculate"
id = "cafe"
defence = "trades"
[[stage]]
kind = "inoculate"
id = "other"
defence = "mart"
[[stage]]
kind = "evaluate"
attacks = ["clean", "pgd"]
"""
NETWORKS = ("adv", "longer", "plain", "cafe", "other")


def finished(folder: Path, seed: int, attacks: Sequence[str] = ("clean", "pgd")) -> RunDir:
    """A run of that seed with made-up outcomes."""
    (folder / "two.toml").write_text(PROFILE, encoding="utf-8")
    profile = profiles.load(str(folder / "two.toml"), [f"seed={seed}", f"name=two-seed{seed}"]).profile
    run = rundir.create(folder / "runs", profile.name, profiles.dumps(profile), tags=["both"])
    cells = []
    for i, model in enumerate(NETWORKS):
        for j, attack in enumerate(attacks):
            right = outcomes(100 * seed + 10 * i + j, 0.9 - 0.3 * j)
            write_outcomes(run, model, attack, right)
            cells.append(make_cell(model, attack, int(right.sum()), len(right)))
    run.records_file.write_bytes(b"".join(msgspec.json.encode(cell) + b"\n" for cell in cells))
    write_atomically(run.results_file, msgspec.json.encode(Results(cells=cells)))
    run.write_state(State(state="finished"))
    return run


def test_an_inoculated_network_is_held_against_the_one_trained_alike_or_else_against_its_start(tmp_path: Path) -> None:
    settings = read_settings(finished(tmp_path, 0))
    assert seeds.pairs(settings, NETWORKS) == [Pair("plain", "cafe", True), Pair("adv", "other", False)]
    assert seeds.pairs(settings, ("longer", "cafe")) == [], "five epochs are not four"


def test_effects_are_those_of_scipy_on_the_outcomes(tmp_path: Path) -> None:
    runs = [finished(tmp_path, seed) for seed in (2, 0, 1)]
    (found,) = seeds.repeated(runs)
    assert (found.group.name, found.seeds, found.problems) == ("two", (0, 1, 2), ())
    effect = next(e for e in found.effects if (e.pair.inoculated, e.attack) == ("cafe", "pgd"))
    plain, inoculated = ([outcomes(100 * seed + 10 * number + 1, 0.6) for seed in (0, 1, 2)] for number in (2, 3))
    accuracies = [[100 * float(right.mean()) for right in side] for side in (inoculated, plain)]
    assert (effect.inoculated, effect.plain) == pytest.approx([np.mean(side) for side in accuracies])
    judged = ttest_rel(*accuracies)
    assert effect.over_seeds.p == pytest.approx(judged.pvalue)
    assert (effect.over_seeds.low, effect.over_seeds.high) == pytest.approx(tuple(judged.confidence_interval()))
    for seed in (0, 1, 2):
        only_plain, only_inoculated = (
            int((a & ~b).sum()) for a, b in ((plain[seed], inoculated[seed]), (inoculated[seed], plain[seed]))
        )
        expected = binomtest(only_plain, only_plain + only_inoculated).pvalue
        assert effect.by_seed[seed].p == pytest.approx(expected)


def test_a_seed_without_a_cell_is_left_out_of_its_row(tmp_path: Path) -> None:
    (found,) = seeds.repeated([finished(tmp_path, 0), finished(tmp_path, 1, ("clean",))])
    assert [(e.attack, sorted(e.by_seed)) for e in found.effects[:2]] == [("clean", [0, 1]), ("pgd", [0])]
    row = exporting.text(seeds.effect_grid(found), cell_len)[2].split()
    assert row[:3] == ["cafe", "plain", "pgd"]
    assert (row[-1], row[6]) == ("·", "-"), "one seed has no p over seeds"


def test_torn_outcomes_are_told(tmp_path: Path) -> None:
    runs = [finished(tmp_path, seed) for seed in (0, 1)]
    (runs[1].outcomes / "evaluate-cafe-pgd.npz").write_bytes(b"torn")
    (found,) = seeds.repeated(runs)
    assert "evaluate-cafe-pgd.npz: not readable" in found.problems[0]


def test_the_table_of_a_tag_over_its_seeds(tmp_path: Path) -> None:
    runs = [finished(tmp_path, seed) for seed in (0, 1)]
    text = cafe("table", "both", "--seeds", cwd=tmp_path).stdout
    assert text.startswith("two\n\nnetwork ")
    assert "mean ± sample standard deviation over seeds 0, 1" in text
    assert "| cafe | plain | clean |" in cafe("table", "both", "--seeds", "--format", "markdown", cwd=tmp_path).stdout
    (group,) = json.loads(cafe("table", "both", "--seeds", "--json", cwd=tmp_path).stdout)["groups"]
    assert group["runs"] == {"0": runs[0].id, "1": runs[1].id}
    assert [e["same_training"] for e in group["effects"]] == [True, True, False, False]
    refused("table", runs[0].id, "--seeds", cwd=tmp_path, says=["no two of these runs differ in the seed alone"])


def test_what_names_have_in_common_are_whole_words() -> None:
    assert fmt.shared_beginning(["a-b-seed0", "a-b-seed12"]) == "a-b-"
    assert fmt.shared_beginning(["a-b", "ab-b"]) == ""
    assert fmt.shared_beginning(["x-1", "x-1"]) == "x-"
    assert fmt.shared_beginning(["x-1"]) == ""
