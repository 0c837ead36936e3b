"""What a comparison says: names, differing settings, means over seeds, paired outcomes, and their texts."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from cafe_tui.results import exporting, grids
from cafe_tui.results import outcomes as outcomes_module
from cafe_tui.results.exporting import Entry, Grid
from cafe_tui.results.grids import table_grid
from cafe_tui.results.groups import Compared, seed_groups
from cafe_tui.results.names import short_names
from cafe_tui.results.outcomes import Evaluated, OutcomeFiles, Unreadable, read_outcomes
from cafe_tui.results.settings import Settings, read_settings
from engine.contract.profile import files as profiles
from engine.contract.run.records import Scalars, encode
from engine.contract.run.results import make_cell, table
from engine.contract.run.rundir import RunDir
from tests.recorded import record_run
from tests.ui.test_cli import cafe, refused

LABELS = np.arange(450) % 10
EXPERIMENT = {"name": "quickstart", "description": "", "data.name": "digits", "threat.eps": 0.15, "stage.train.lr": 0.1}


def run_id(end: str, name: str = "quickstart") -> str:
    return f"20260921-144000-{name}-{end}"


def write_outcomes(
    run: RunDir, model: str, attack: str, right: Any, labels: Any = None, stage: str = "evaluate"
) -> Path:
    """A file as the engine writes it."""
    path = run.outcomes / f"{stage}-{model}-{attack}.npz"
    labels = LABELS[: len(right)] if labels is None else labels
    notes = np.array([], dtype=np.str_)
    np.savez_compressed(path, right=right, labels=labels, seconds=1.0, gradient_steps=10, warnings=notes)
    return path


def outcomes(seed: int, share: float = 0.7, n: int = 450) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Made-up outcomes, always the same."""
    return np.random.default_rng(seed).random(n) < share


def change_profile(run: RunDir, **changes: Any) -> None:
    """Rewrite the profile with other values; a double underscore parts the keys of a path."""
    sets = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in changes.items()]
    run.profile_file.write_text(profiles.dumps(profiles.load("quickstart", sets).profile), encoding="utf-8")


def run_with_outcomes(folder: Path, end: str, seed: int, share: float = 0.7) -> RunDir:
    """A finished run with outcomes of both networks under all three attacks."""
    run = record_run(folder, run_id=run_id(end))
    for number, model in enumerate(("train", "inoculate")):
        for more, attack in enumerate(("clean", "fgsm", "pgd")):
            write_outcomes(run, model, attack, outcomes(100 * seed + 10 * number + more, share))
    return run


def compared(end: str, seed: int, accuracies: dict[tuple[str, str], int], **changes: Any) -> Compared:
    """A run with a table of so many right of 450."""
    cells = [make_cell(model, attack, right, 450) for (model, attack), right in accuracies.items()]
    return Compared(run_id(end), end, Settings({**EXPERIMENT, "seed": seed, **changes}), table(cells))


def texts(grid: Grid) -> list[list[str]]:
    return [[entry.text.strip() for entry in row] for rows in grid.sections for row in rows]


# --- names and settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        ([run_id("aaaa"), run_id("bbbb", "wide")], ["quickstart", "wide"]),
        ([run_id("aaaa"), run_id("bbbb")], ["aaaa", "bbbb"]),
        ([run_id("aaaa"), run_id("bbbb"), run_id("cccc", "wide")], ["quickstart-aaaa", "quickstart-bbbb", "wide-cccc"]),
        ([run_id("aaaa"), "20270101-000000-quickstart-aaaa"], [run_id("aaaa"), "20270101-000000-quickstart-aaaa"]),
        (["foreign", run_id("aaaa")], ["foreign", "quickstart"]),
        ([run_id("aaaa", "a-b")], ["a-b"]),
        ([], []),
    ],
)
def test_names_are_as_short_as_tells_the_runs_apart(ids: list[str], names: list[str]) -> None:
    assert short_names(ids) == dict(zip(ids, names, strict=True))


@given(st.lists(st.text(min_size=1), unique=True, max_size=8))
def test_names_never_collide(ids: list[str]) -> None:
    assert len(set(short_names(ids).values())) == len(ids)


def test_profiles_show_only_what_differs(tmp_path: Path) -> None:
    one, two = record_run(tmp_path, run_id=run_id("aaaa")), record_run(tmp_path, run_id=run_id("bbbb"))
    change_profile(two, seed=3, name="other", description="other words", stage__game__epochs=7, threat__eps=0.3)
    runs = [Compared(run.id, run.id[-4:], read_settings(run), table([])) for run in (one, two)]
    grid = grids.profile_grid(runs)
    assert grid.head == ("key", "aaaa", "bbbb")
    found = {row[0]: row[1:] for row in texts(grid)}
    assert found["seed"] == ["0", "3"]
    assert found["threat.eps"] == ["0.15", "0.3"]
    assert found["stage.game.epochs"] == ["10", "7"]
    assert not {"name", "description", "stages"} & found.keys()
    same = grids.profile_grid([runs[0], runs[0]])
    assert not same.sections
    assert "All settings are the same" in same.notes[0]


def test_stages_are_told_apart_by_their_ids_not_their_places(tmp_path: Path) -> None:
    one, two = record_run(tmp_path, run_id=run_id("aaaa")), record_run(tmp_path, run_id=run_id("bbbb"))
    tables = profiles.read_toml(two.profile_file)
    tables["stage"] = [tables["stage"][0], *tables["stage"][3:]]
    tables["stage"][1]["models"] = ["train"]
    two.profile_file.write_text(profiles.dumps(profiles.from_tables(tables)), encoding="utf-8")
    runs = [Compared(run.id, run.id[-4:], read_settings(run), table([])) for run in (one, two)]
    found = {row[0]: row[1:] for row in texts(grids.profile_grid(runs))}
    assert found["stages"] == ["train, game, inoculate, evaluate", "train, evaluate"]
    assert found["stage.game.epochs"] == ["10", "-"]
    assert not any(key.startswith("stage.train.") for key in found)


@pytest.mark.parametrize("text", ["", "seed = ", "name = 'x'\n[[stage]]\nkind = 'nonsense'", None])
def test_a_profile_that_cannot_be_read_is_said_in_one_line(tmp_path: Path, text: str | None) -> None:
    one, two = record_run(tmp_path, run_id=run_id("aaaa")), record_run(tmp_path, run_id=run_id("bbbb"))
    two.profile_file.unlink()
    if text is not None:
        two.profile_file.write_text(text)
    runs = [Compared(run.id, run.id[-4:], read_settings(run), table([])) for run in (one, two)]
    grid = grids.profile_grid(runs)
    assert not grid.sections
    [problem] = grid.remarks
    assert problem.startswith("bbbb: ")
    assert "profile.toml" in problem
    assert "\n" not in problem


# --- tables and means ------------------------------------------------------------------------------------------------


def test_the_best_of_a_column_is_marked_and_missing_cells_are_left_open() -> None:
    one = compared("aaaa", 0, {("train", "clean"): 440, ("train", "pgd"): 300})
    two = compared("bbbb", 0, {("train", "clean"): 440, ("train", "fgsm"): 310}, **{"stage.train.lr": 0.2})
    grid = table_grid([one, two])
    assert grid.head == ("run", "model", "clean", "pgd", "fgsm")
    assert texts(grid) == [["aaaa", "train", "97.8", "66.7", "·"], ["bbbb", "train", "97.8", "·", "68.9"]]
    assert [entry.best for entry in grid.sections[0][0]] == [False, False, True, False, False]
    assert grid.sections[0][0][2].small == "[96.0, 98.8]"


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


def test_a_column_measured_on_different_numbers_of_examples_is_remarked() -> None:
    one, two = (compared(end, 0, {}) for end in ("aaaa", "bbbb"))
    runs = [
        Compared(run.id, run.name, run.settings, table([make_cell("train", "pgd", 50, n)]))
        for run, n in ((one, 450), (two, 100))
    ]
    assert "pgd: measured on 100 and 450 examples" in table_grid(runs).remarks


# --- outcomes --------------------------------------------------------------------------------------------------------


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


# --- as text ---------------------------------------------------------------------------------------------------------

ODD = Grid(
    ("run", "pgd_20"),
    (((Entry("a|b & 50%"), Entry("-1.5", "[-2.0, 3.0]", best=True)),), ((Entry("mean"), Entry("1.0 ± 0.2")),)),
)


def test_markdown_escapes_bars_and_makes_the_best_bold() -> None:
    assert exporting.markdown(ODD) == [
        "| run | pgd_20 |",
        "|:---|---:|",
        "| a\\|b & 50% | **-1.5** [-2.0, 3.0] |",
        "| mean | 1.0 ± 0.2 |",
    ]


def test_latex_escapes_and_typesets() -> None:
    assert exporting.latex(ODD) == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"run & pgd\_20 \\",
        r"\midrule",
        r"a\textbar{}b \& 50\% & \textbf{$-$1.5} {\scriptsize [$-$2.0, 3.0]} \\",
        r"\midrule",
        r"mean & 1.0 $\pm$ 0.2 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_csv_has_numbers_in_full_and_quotes_what_must_be() -> None:
    lines = exporting.csv_lines(("run", "value"), [('a,"b"', 1 / 3), ("c", None)])
    assert list(csv.reader(lines)) == [["run", "value"], ['a,"b"', repr(1 / 3)], ["c", ""]]


def test_points_are_all_values_but_those_a_resume_overwrote(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    steps = [*range(10_000), *range(9_000, 9_500)]
    with run.records_file.open("wb") as file:
        for i, step in enumerate(steps):
            values: dict[str, float | str | None] = {"psi": float(i), "other": "nan"}
            file.write(encode(Scalars(stage="game", step=step, epoch=0.0, values=values)))
        file.write(encode(Scalars(stage="train", step=1, epoch=0.0, values={"psi": 5.0})))
        file.write(b"torn")
    found = list(exporting.points(run, "game", "psi"))
    assert [step for step, _ in found] == list(range(9_500))
    assert found[8_999] == (8_999, 8_999.0)
    assert found[9_000] == (9_000, 10_000.0)
    assert all(math.isnan(value) for _, value in exporting.points(run, "game", "other"))
    assert list(exporting.points(RunDir(tmp_path / "gone"), "game", "psi")) == []


# --- cafe compare ----------------------------------------------------------------------------------------------------

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
