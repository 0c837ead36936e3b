"""What an ensemble broke part by part, accuracy over the radius, and how attacks searched, in text and on screen."""

from __future__ import annotations

from cafe_tui import format as fmt
from cafe_tui.charts.radii import radius_curves
from cafe_tui.console import views
from cafe_tui.reading.run import StageView
from cafe_tui.ui.widgets.robust_table import RobustData, RobustTable
from cafe_tui.ui.widgets.stage_bar import StageBar
from engine.contract.run.records import Cell, Part, Progress
from engine.contract.run.results import Table, make_cell, table

PARTS = [Part(attack="apgd-ce", correct=60), Part(attack="apgd-t", correct=55)]


def ensemble() -> Table:
    rest = [Part(attack="fab-t", correct=55), Part(attack="square", correct=54)]
    how = "bf16, BatchNorm folded"
    return table(
        [
            make_cell("train", "clean", 90, 100),
            make_cell("train", "aa", 54, 100, parts=[*PARTS, *rest], how=how, eps=0.03, norm="linf"),
        ]
    )


def lines_of(data: RobustData, cells: int = 100) -> str:
    widget = RobustTable()
    widget._data = data
    return "\n".join("".join(text for text, _ in line) for line in widget.compose_lines(cells))


def test_a_finished_ensemble_tells_what_each_part_still_broke() -> None:
    said = "train, aa: clean 90.0, apgd-ce 60.0 (30), apgd-t 55.0 (5), fab-t 55.0 (0), square 54.0 (1)"
    assert fmt.waterfalls(ensemble(), None) == [said]
    assert said in lines_of(RobustData(ensemble()))
    means = "searched in bf16, BatchNorm folded; every break confirmed in fp32"
    assert fmt.means_of(ensemble()) == means
    assert means in lines_of(RobustData(ensemble()))


def test_attacks_that_searched_in_several_ways_are_told_apart() -> None:
    hows = {"fgsm": "fp32", "pgd": "bf16", "cw": "bf16"}
    cells = [make_cell(model, attack, 50, 100, how=how) for model in ("a", "b") for attack, how in hows.items()]
    assert fmt.means_of(table(cells)) == "searched in fp32 (fgsm); bf16 (pgd, cw); every break confirmed in fp32"


def test_an_ensemble_at_work_tells_its_part_and_how_far_that_is() -> None:
    cells = table([make_cell("train", "clean", 90, 100)], ["train"], ["clean", "aa"])
    progress = Progress(
        model="train", attack="aa", done=70, total=100, robust_so_far=40, part="fab-t", parts=PARTS, share=0.55
    )
    (line,) = fmt.waterfalls(cells, progress)
    assert line == "train, aa: clean 90.0, apgd-ce 60.0 (30), apgd-t 55.0 (5), fab-t 70% done"
    shown = lines_of(RobustData(cells, progress))
    assert line in shown
    assert "55%" in shown


def test_a_single_attack_and_records_of_older_engines_have_no_waterfall() -> None:
    cells = table([make_cell("train", "pgd", 50, 100)])
    alone = Progress(model="train", attack="cw", done=5, total=100, part="cw", share=0.05)
    old = Progress(model="train", attack="cw", done=5, total=100)
    assert fmt.waterfalls(cells, alone) == fmt.waterfalls(cells, old) == []
    assert fmt.share_done(old) == fmt.share_done(alone) == 0.05


def by_radius() -> list[Cell]:
    radii = {"0.01": 80, "0.03": 55, "0.1": 3}
    return [
        make_cell("train", "clean", 90, 100),
        *(make_cell("train", f"pgd@{eps}", n, 100, eps=float(eps), norm="linf") for eps, n in radii.items()),
        make_cell("train", "square@0.03", 70, 100, eps=0.03, norm="linf"),
    ]


def test_accuracy_over_the_radius_is_a_curve_from_the_clean_accuracy_on() -> None:
    (curve,) = radius_curves(by_radius(), ["train"])
    assert curve.name == "pgd"
    assert curve.series.means() == [(0, 90.0), (1000, 80.0), (3000, 55.0), (10000, 3.0)]
    text = "\n".join(line.plain for line in views.radius_lines(table(by_radius()), 80, views.Signs()))
    assert "accuracy % against eps (linf)" in text
    assert "0.1" in text.splitlines()[-1]
    assert "accuracy % against eps" in lines_of(RobustData(table(by_radius())), 80)
    assert views.radius_lines(ensemble(), 80, views.Signs()) == []


def test_a_table_of_any_width_can_be_drawn() -> None:
    for cells in (0, 1, 5, 11, 20, 40, 200):
        lines_of(RobustData(table(by_radius())), cells)
        lines_of(RobustData(ensemble()), cells)


def test_many_networks_go_down_by_their_full_names_where_they_do_not_fit_across() -> None:
    models = ["adv", *(f"{how}-{defence}" for defence in ("trades", "mart", "awp") for how in ("plain", "cafe"))]
    cells = table([make_cell(model, "pgd", 40 + i, 100) for i, model in enumerate(models)], models, ["pgd", "aa"])
    progress = Progress(model="adv", attack="aa", done=20, total=100, robust_so_far=0, share=0.5)
    shown = lines_of(RobustData(cells, progress), 80)
    for i, model in enumerate(models):
        assert f"{model:<12}   {40 + i}.0" in shown
    assert "▶ 50%" in shown
    assert "adv under aa: 20 of 100 decided, at most 80.0% withstand it" in shown
    across = lines_of(RobustData(table([make_cell(m, "pgd", 40, 100) for m in ("adv", "one", "two")])), 80)
    assert "pgd" in across.splitlines()[1], "few networks stay across, with their differences"


def test_the_stage_bar_keeps_the_stage_at_work_in_sight() -> None:
    stages = [StageView(f"stage-{i}", "train", "finished" if i < 9 else "waiting") for i in range(12)]
    stages[9] = StageView("evaluate", "evaluate", "running", step=30, total_steps=100)
    bar = StageBar()
    bar._stages, bar._shown = stages, "stage-2"
    for cells in (60, 80, 300):
        (line,) = bar.compose_lines(cells)
        text = "".join(text for text, _ in line)
        assert "▶ evaluate" in text
        assert "30%" in text
        assert len(text) <= cells
        assert (" before › " in text) == (" more" in text) == (cells < 300)
    assert text.startswith("✓ stage-0")
