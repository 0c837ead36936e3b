"""Tables and curves as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from cafe_tui.results import exporting
from cafe_tui.results.exporting import Entry, Grid
from engine.contract.run.records import Scalars, encode
from engine.contract.run.rundir import RunDir
from tests.recorded import record_run

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
