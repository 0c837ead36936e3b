"""The table: counting, independent judgement, outcomes, resume, paired differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from engine import process
from engine.attacks import ATTACKS, Attack
from engine.attacks.pgd import SignedSteps
from engine.attacks.search import State
from engine.contract.catalogue import ENSEMBLES, AttackName
from engine.contract.plan import parts
from engine.contract.records import Cell
from engine.contract.results import Results
from engine.contract.rundir import RunDir
from engine.defences.train import Training
from engine.evaluation.outcomes import outcomes_file
from engine.evaluation.table import Evaluation
from engine.stage import Context, Step


@pytest.fixture
def context(quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]) -> Context:
    stages = [
        {"kind": "train", "epochs": 1, "batch_size": 64, "adversary": {"steps": 1}},
        {"kind": "train", "id": "other", "epochs": 1, "batch_size": 64, "defence": "standard"},
        {
            "kind": "evaluate",
            "attacks": ["clean", "fgsm", "pgd", "pgd-l2"],
            "pgd_steps": 3,
            "pgd_restarts": 2,
            "batch_size": 50,
            "limit": 120,
        },
    ]
    tables = {"name": "x", "threat": {"eps": 0.1, "eps_l2": 0.5}, "compute": {"threads": 1}, "stage": stages}
    made = context_of(quick_run(tables=tables))
    for stage in made.profile.stage[:2]:
        for _ in Training(made, stage).run():  # type: ignore[arg-type]
            pass
    return made


def evaluation(context: Context) -> Evaluation:
    return Evaluation(context, context.profile.stage[2])  # type: ignore[arg-type]


def results_of(context: Context) -> Results:
    return next(event for event in evaluation(context).run() if isinstance(event, Results))


def cells_of(context: Context) -> dict[tuple[str, str], Cell]:
    return {(event.model, event.attack): event for event in evaluation(context).run() if isinstance(event, Cell)}


def test_the_attack_registry_and_the_catalogue_agree() -> None:
    names = set(AttackName.__args__)  # type: ignore[attr-defined]
    assert {"clean", *ATTACKS} == {name for name in names if name.removesuffix("-l2") not in ENSEMBLES}
    assert {part for name in names for part in parts(name)} <= set(ATTACKS)


def test_cells_count_what_the_outcomes_say(context: Context) -> None:
    cells = cells_of(context)
    assert len(cells) == 8
    for (model, attack), cell in cells.items():
        with np.load(outcomes_file(context.run, "evaluate", model, attack), allow_pickle=False) as saved:
            right = saved["right"]
            assert saved["labels"].tolist() == context.data.test.labels[:120].tolist()
        assert (cell.correct, cell.total) == (right.sum(), 120)
        assert cell.accuracy == pytest.approx(100 * right.mean())
        assert cell.low <= cell.accuracy <= cell.high
        assert cell.warnings == []
    model = context.trained("train").eval()
    batch = next(context.data.test.first(120).batches(120, context.compute))
    with torch.no_grad():
        clean = (model(batch.x).argmax(1) == batch.y).numpy()
    assert cells["train", "clean"].correct == clean.sum()
    with np.load(outcomes_file(context.run, "evaluate", "train", "pgd")) as saved:
        assert not (saved["right"] & ~clean).any(), "an example wrong when clean cannot be robust"
    for model_name in ("train", "other"):
        assert cells[model_name, "pgd"].correct <= cells[model_name, "clean"].correct


def test_gradient_steps_are_those_spent(context: Context) -> None:
    cells = cells_of(context)
    assert cells["train", "clean"].gradient_steps == 0
    assert cells["train", "fgsm"].gradient_steps == cells["train", "clean"].correct
    steps = cells["train", "pgd"].gradient_steps
    clean, robust = cells["train", "clean"].correct, cells["train", "pgd"].correct
    assert clean * 3 + robust * 3 <= steps <= clean * 3 * 2


def test_outcomes_do_not_depend_on_the_batch_size(context: Context) -> None:
    first = cells_of(context)
    for path in context.run.outcomes.iterdir():
        path.unlink()
    context.profile.stage[2].batch_size = 17  # type: ignore[union-attr]
    again = cells_of(context)
    assert {key: cell.correct for key, cell in first.items()} == {key: cell.correct for key, cell in again.items()}


def test_an_evaluation_stopped_anywhere_goes_on_to_the_same_table(context: Context) -> None:
    expected = {key: (cell.correct, cell.gradient_steps) for key, cell in cells_of(context).items()}
    results = results_of(context)
    for path in context.run.outcomes.iterdir():
        path.unlink()
    for stop_after in (1, 3, 7, 20):
        work = evaluation(context)
        for event in work.run():
            if isinstance(event, Step) and event.done >= stop_after:
                work.save()
                break
    found = {key: (cell.correct, cell.gradient_steps) for key, cell in cells_of(context).items()}
    assert found == expected
    again = results_of(context)
    assert again.differences == results.differences
    assert [row.attack for row in again.differences] == ["clean", "fgsm", "pgd", "pgd-l2"]


def test_points_outside_the_ball_and_answers_that_are_no_numbers_are_told(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cheat(SignedSteps):
        def advance(self, state: State, oracle: object) -> State:
            return super().advance(state, oracle) | {"best": state["x"] + 1.0}  # type: ignore[arg-type]

    cheat = Attack(lambda s: Cheat(s.ball, s.seed, 1, step_size=s.ball.eps))
    monkeypatch.setitem(ATTACKS, "fgsm", cheat)
    cell = cells_of(context)["train", "fgsm"]
    clean = cells_of(context)["train", "clean"]
    assert cell.correct == clean.correct, "a point outside the ball breaks nothing"
    assert "left the ball" in cell.warnings[0]


def test_a_network_of_nan_is_wrong_everywhere_and_says_so(context: Context) -> None:
    from engine import checkpoints

    model = context.trained("train")
    with torch.no_grad():
        next(iter(model.head.parameters())).fill_(float("nan"))
    for label in ("last", "best"):
        checkpoints.save_weights(context.weights_file("train", label), {"classifier": model}, context.facts())
    cells = cells_of(context)
    assert cells["train", "clean"].correct == 0
    assert "not finite" in cells["train", "clean"].warnings[0]


def test_samples_are_pictures_of_the_first_test_images(context: Context) -> None:
    import json

    from PIL import Image

    cells_of(context)
    sheet = json.loads((context.run.samples / "samples.json").read_text())
    assert sheet["model"] == "train"
    assert sheet["attack"] == "pgd-l2"
    assert len(sheet["samples"]) == 8
    for i, row in enumerate(sheet["samples"]):
        assert row["label"] == int(context.data.test.labels[i])
        with Image.open(context.run.samples / row["files"]["clean"]) as picture:
            assert np.array_equal(np.asarray(picture), context.data.test.images[i, 0].numpy())


def test_a_second_evaluation_adds_to_the_results_of_the_first(quick_run: Callable[..., RunDir]) -> None:
    stages = [
        {"kind": "train", "epochs": 1, "batch_size": 64, "defence": "standard"},
        {"kind": "evaluate", "attacks": ["clean", "fgsm"], "limit": 30},
        {"kind": "evaluate", "attacks": ["fgsm", "pgd"], "pgd_steps": 2, "limit": 40},
    ]
    run = quick_run(tables={"name": "x", "compute": {"threads": 1}, "stage": stages})
    assert process.run(run) == 0
    results = run.results()
    assert results is not None
    assert [(cell.attack, cell.total) for cell in results.cells] == [("clean", 30), ("fgsm", 40), ("pgd", 40)]
