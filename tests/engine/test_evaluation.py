"""The table: counting, independent judgement, outcomes, resume, paired differences."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import pytest
import torch
from msgspec import structs
from torch import Tensor, nn

from engine import process
from engine.attacks import ATTACKS, Attack
from engine.attacks.pgd import SignedSteps
from engine.attacks.queries import Oracle
from engine.attacks.search import State
from engine.attacks.tally import Tally
from engine.checkpoints import own as checkpoints
from engine.contract.errors import RunFailed, UsageError
from engine.contract.profile import files as profiles
from engine.contract.profile.schema import Evaluate
from engine.contract.profile.tables import to_tables
from engine.contract.run.records import Cell, Message
from engine.contract.run.results import Results, make_cell
from engine.contract.run.rundir import RunDir
from engine.data import Images
from engine.defences.train import Training
from engine.device import Compute
from engine.evaluation.checks import of_table, of_transfer, refuse
from engine.evaluation.outcomes import Outcomes, load, outcomes_file, save
from engine.evaluation.table import Evaluation
from engine.stage import Context, Event, Step


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


def test_cells_count_what_the_outcomes_say(context: Context) -> None:
    cells = cells_of(context)
    assert len(cells) == 8
    for (model, attack), cell in cells.items():
        with np.load(outcomes_file(context.run, "evaluate", model, attack), allow_pickle=False) as saved:
            right = saved["right"]
            assert saved["labels"].tolist() == context.data.test.subset(120).labels.tolist()
        assert (cell.correct, cell.total) == (right.sum(), 120)
        assert cell.accuracy == pytest.approx(100 * right.mean())
        assert cell.low <= cell.accuracy <= cell.high
        assert cell.warnings == []
    model = context.trained("train").eval()
    batch = next(context.data.test.subset(120).batches(120, context.compute))
    with torch.no_grad():
        clean = (model(batch.x).argmax(1) == batch.y).numpy()
    assert cells["train", "clean"].correct == clean.sum()
    with np.load(outcomes_file(context.run, "evaluate", "train", "pgd")) as saved:
        assert not (saved["right"] & ~clean).any(), "an example wrong when clean cannot be robust"
    for model_name in ("train", "other"):
        assert cells[model_name, "pgd"].correct <= cells[model_name, "clean"].correct


def test_gradient_steps_are_those_spent(context: Context) -> None:
    context.profile.stage[2].precision = "fp32"  # type: ignore[union-attr]
    cells = cells_of(context)
    assert cells["train", "clean"].gradient_steps == 0
    assert cells["train", "fgsm"].gradient_steps == cells["train", "clean"].correct
    steps = cells["train", "pgd"].gradient_steps
    clean, robust = cells["train", "clean"].correct, cells["train", "pgd"].correct
    assert robust * 3 * 2 + (clean - robust) <= steps < clean * 3 * 2, "a broken example ends where it is broken"


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


@pytest.mark.parametrize(("batch_size", "precision"), [(16, "fp32"), (50, "bf16")])
def test_cells_are_the_same_after_stops_and_kills_within_attacks(
    batch_size: int, precision: Literal["fp32", "bf16"], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in flight is made again and counts once, also where attempts at an example go side by side."""
    stage = context.profile.stage[2]
    assert isinstance(stage, Evaluate)
    stage.models, stage.attacks = ["train"], ["clean", "pgd", "apgd-t", "fab-t"]
    stage.limit, stage.batch_size = 40, batch_size
    stage.pgd_restarts, stage.apgd_steps, stage.fab_steps, stage.targets = 3, 6, 4, 5
    stage.precision = precision

    def told(events: Iterable[Event]) -> dict[str, Cell]:
        found = {event.attack: event for event in events if isinstance(event, Cell)}
        for cell in found.values():
            cell.t = cell.seconds = 0.0
            cell.parts = [structs.replace(part, seconds=0.0) for part in cell.parts]
        return found

    expected = told(evaluation(context).run())
    assert 0 < expected["apgd-t"].correct < expected["clean"].correct
    for path in context.run.outcomes.iterdir():
        path.unlink()
    monkeypatch.setattr(
        "engine.evaluation.cell_run.SAVED_EVERY", 0.0
    )  # saved after every step: more often than any clock would
    random, lives = Random(0), 0
    while True:
        work, left = evaluation(context), random.randint(2, 25)
        for event in work.run():
            left -= isinstance(event, Step)
            if not left:
                break
        else:
            break
        lives += 1
        if random.random() < 0.5:  # stopped, not killed
            work.save()
    assert lives > 5
    assert told(evaluation(context).run()) == expected


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stop_waits_for_few_questions_wherever_it_comes(
    precision: Literal["fp32", "bf16"], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the pass over the clean images on, checks and what a search in bf16 leaves to fp32 included."""
    asked, ask = [], Oracle._ask
    monkeypatch.setattr(Oracle, "_ask", lambda self, x: (asked.append(len(x)), ask(self, x))[1])
    stage = context.profile.stage[2]
    assert isinstance(stage, Evaluate)
    stage.batch_size, stage.precision, stage.continuation = 10, precision, 1.0
    chances = [len(asked) for event in evaluation(context).run() if isinstance(event, Step)]
    assert max(later - earlier for earlier, later in zip([0, *chances], chances, strict=False)) <= 4
    assert len(asked) > 100


def test_points_outside_the_ball_and_answers_that_are_no_numbers_are_told(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cheat(SignedSteps):
        def advance(self, state: State, oracle: object) -> State:
            return super().advance(state, oracle) | {"best": state["x"] + 1.0}  # type: ignore[arg-type]

    cheat = Attack("fgsm", lambda s: Cheat(s.ball, s.seed, 1, step_size=s.ball.eps))
    monkeypatch.setitem(ATTACKS, "fgsm", cheat)
    cell = cells_of(context)["train", "fgsm"]
    clean = cells_of(context)["train", "clean"]
    assert cell.correct == clean.correct, "a point outside the ball breaks nothing"
    assert "left the ball" in cell.warnings[0]


def spoil(context: Context, change: Callable[[torch.nn.Module], object]) -> None:
    """Change the network of the stage `train`, in both of its checkpoints."""
    model = context.trained("train")
    with torch.no_grad():
        change(model)
    for label in ("last", "best"):
        checkpoints.save_weights(context.weights_file("train", label), {"classifier": model}, context.facts())


def test_a_network_of_nan_is_refused(context: Context) -> None:
    spoil(context, lambda model: next(iter(model.head.parameters())).fill_(float("nan")))  # type: ignore[union-attr,operator]
    with pytest.raises(RunFailed, match="not finite numbers, such as head"):
        cells_of(context)


def test_samples_are_pictures_of_test_images_of_all_classes(context: Context) -> None:
    import json

    from PIL import Image

    cells_of(context)
    sheet = json.loads((context.run.samples / "samples.json").read_text())
    assert sheet["model"] == "train"
    assert sheet["attack"] == "pgd-l2"
    assert len(sheet["samples"]) == 8
    shown = context.data.test.subset(8)
    assert len(shown.labels.unique()) == 8
    for i, row in enumerate(sheet["samples"]):
        assert (row["label"], row["index"]) == (int(shown.labels[i]), int(shown.index[i]))
        with Image.open(context.run.samples / row["files"]["clean"]) as picture:
            assert np.array_equal(np.asarray(picture), shown.images[i, 0].numpy())


def test_a_stop_within_the_samples_is_obeyed_and_made_good(context: Context) -> None:
    tables = to_tables(context.profile)
    tables["stage"][2] |= {"batch_size": 4, "samples": 10, "pgd_steps": 20, "checks": False, "limit": 20}
    context = replace(context, profile=profiles.from_tables(tables))
    whole = cells_of(context)
    sheet = context.run.samples / "samples.json"
    expected = sheet.read_bytes(), {path.name: path.read_bytes() for path in context.run.samples.glob("*.png")}
    for path in context.run.samples.iterdir():
        path.unlink()
    work = evaluation(context)
    steps = 0
    for event in work.run():  # the cells are all there: each of these steps but the first is one of the samples
        steps += isinstance(event, Step) and event.share == 1.0
        if list(context.run.samples.glob("*.png")):
            work.save()
            break
    assert steps > 20, "between any two steps of the attack"
    assert not sheet.exists()
    again = cells_of(context)
    assert {name: cell.correct for name, cell in again.items()} == {name: cell.correct for name, cell in whole.items()}
    found = sheet.read_bytes(), {path.name: path.read_bytes() for path in context.run.samples.glob("*.png")}
    assert found == expected


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


# --- ensembles, radii, transfer --------------------------------------------------------------------------------------


def evaluated(context: Context, **changes: object) -> dict[tuple[str, str], Cell]:
    """The cells of the evaluate stage with other keys, from nothing."""
    tables = to_tables(context.profile)
    tables["stage"][2] |= changes
    profile = profiles.from_tables(tables)
    for path in context.run.outcomes.iterdir() if context.run.outcomes.exists() else ():
        path.unlink()
    return cells_of(replace(context, profile=profile))


CUT = {"apgd_steps": 5, "fab_steps": 4, "square_queries": 12, "targets": 2, "limit": 60, "models": ["train"]}


def test_an_ensemble_is_its_parts_in_turn_on_what_is_left(context: Context) -> None:
    attacks = ["clean", "apgd-ce", "apgd-t", "fab-t", "square", "aa"]
    cells = evaluated(context, attacks=attacks, **CUT)
    aa = cells["train", "aa"]
    assert [part.attack for part in aa.parts] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    left = [cells["train", "clean"].correct, *(part.correct for part in aa.parts)]
    assert left == sorted(left, reverse=True)
    assert aa.correct == left[-1] <= min(cells["train", name].correct for name in attacks)
    saved = [right_of(context, name) for name in ("apgd-ce", "apgd-t", "fab-t", "square")]
    assert np.array_equal(right_of(context, "aa"), np.logical_and.reduce(saved)), "the same draws as the columns"
    assert aa.gradient_steps == 0, "what the columns found is not looked for again"
    assert "not the standard AutoAttack: apgd_steps = 5" in aa.warnings[0]
    alone = evaluated(context, attacks=["aa"], **CUT)["train", "aa"]
    assert alone.correct == aa.correct
    assert alone.gradient_steps == sum(part.gradient_steps for part in alone.parts) > 0
    assert alone.forwards > 12 * alone.correct, "square asks every survivor"


def right_of(context: Context, column: str) -> np.ndarray:
    with np.load(outcomes_file(context.run, "evaluate", "train", column), allow_pickle=False) as saved:
        right: np.ndarray = saved["right"]
    return right


def test_an_ensemble_stopped_anywhere_goes_on_to_the_same_outcomes(context: Context) -> None:
    keys = {"attacks": ["aa"], "checks": False, "batch_size": 16} | CUT
    expected = evaluated(context, **keys)["train", "aa"]
    whole = right_of(context, "aa")
    tables = to_tables(context.profile)
    tables["stage"][2] |= keys
    stopped = replace(context, profile=profiles.from_tables(tables))
    for path in context.run.outcomes.iterdir():
        path.unlink()
    stops = 0
    for after in (1, 3, 2, 5, 4, 7, 10):
        work = evaluation(stopped)
        for count, _ in enumerate(event for event in work.run() if isinstance(event, Step)):
            if count == after:
                work.save()
                stops += 1
                break
    again = cells_of(stopped)["train", "aa"]
    assert stops >= 5
    assert np.array_equal(right_of(stopped, "aa"), whole)
    assert (again.correct, [part.correct for part in again.parts]) == (
        expected.correct,
        [part.correct for part in expected.parts],
    )


def test_several_radii_are_several_columns_and_larger_ones_break_more(context: Context) -> None:
    cells = evaluated(context, attacks=["clean", "pgd", "pgd-l2"], eps=[0.02, 0.1, 0.3], models=["train"])
    assert [attack for _, attack in cells] == ["clean", "pgd@0.02", "pgd@0.1", "pgd@0.3", "pgd-l2"]
    row = [cells["train", f"pgd@{eps}"] for eps in (0.02, 0.1, 0.3)]
    assert [cell.eps for cell in row] == [0.02, 0.1, 0.3]
    assert row[0].correct >= row[1].correct >= row[2].correct
    assert cells["train", "pgd-l2"].eps == 0.5
    assert cells["train", "pgd-l2"].norm == "l2"


def test_a_transfer_is_crafted_on_one_network_and_counted_on_another(context: Context) -> None:
    attacks = {"attacks": ["clean", "pgd"], "pgd_steps": 10, "models": ["train"]}
    direct = evaluated(context, **attacks)["train", "pgd"]
    crafted = evaluated(context, source="other", **attacks)["train", "pgd"]
    itself = evaluated(context, source="train", **attacks)["train", "pgd"]
    assert crafted.source == "other"
    assert crafted.correct >= direct.correct
    assert abs(itself.correct - direct.correct) <= 3
    assert crafted.gradient_steps > 10 * crafted.correct, "every step is taken, whatever the source says"


def test_a_transfer_that_beats_the_attacks_on_the_network_itself_is_told() -> None:
    direct, crafted = np.ones(100, dtype=bool), np.ones(100, dtype=bool)
    crafted[:7] = False
    assert "breaks 7.0 points" in of_transfer(crafted, [direct], "other")[0]
    assert of_transfer(direct, [crafted], "other") == []
    assert of_transfer(crafted, [], "other") == []


def no_samples(*_: object) -> Generator[None, None, Message]:
    yield
    return Message(text="")


def test_random_answers_are_told_and_rand_averages_them(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = Context.trained

    class Shaky(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            z: Tensor = self.model(x)
            return z + 0.1 * torch.randn_like(z)

    monkeypatch.setattr(Context, "trained", lambda self, name: Shaky(trained(self, name)))
    monkeypatch.setattr("engine.evaluation.table.write_samples", no_samples)
    cells = evaluated(context, attacks=["clean", "pgd", "rand"], eot=4, **CUT)
    assert "answers are random" in cells["train", "pgd"].warnings[0]
    (note,) = cells["train", "rand"].warnings
    assert note.endswith("so is this number, which another batch size, stop or count of processes changes")
    assert [part.attack for part in cells["train", "rand"].parts] == ["apgd-ce", "apgd-dlr"]
    assert cells["train", "rand"].gradient_steps % 4 == 0
    near = {"attacks": ["clean", "rand"], "eps": [0.01], "eot": 2} | CUT
    first = evaluated(context, **near)
    found = {attack: right_of(context, attack) for _, attack in first}
    torch.manual_seed(7)  # whatever was drawn before
    evaluated(context, **near)
    for attack, right in found.items():
        assert 0 < right.sum() < len(right)
        assert np.array_equal(right_of(context, attack), right), "a repeat draws the same"


def test_masked_gradients_probabilities_and_weak_attacks_are_told(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Context.trained

    class Masked(nn.Module):
        """Right and wrong as before, but with a gradient of zero, and an answer of probabilities."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return (1000 * self.model(x.mul(4).round().div(4))).softmax(1)

    monkeypatch.setattr(Context, "trained", lambda self, name: Masked(trained(self, name)))
    monkeypatch.setattr("engine.evaluation.table.write_samples", no_samples)
    cells = evaluated(context, attacks=["clean", "fgsm", "pgd", "square"], **(CUT | {"square_queries": 300}))
    text = {attack: " ".join(cell.warnings) for (_, attack), cell in cells.items()}
    assert "probabilities" in text["clean"]
    assert "gradient was zero or not finite" in text["fgsm"]
    assert "withstand 20 steps" in text["fgsm"], "the first attack's column tells that no ball is large enough"
    assert "no gradient attack did" in text["square"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_sound_network_and_sound_attacks_bring_no_warning(precision: str, context: Context) -> None:
    keys = {"attacks": ["clean", "fgsm", "pgd", "apgd-ce"], "pgd_steps": 20, "models": ["train"]}
    cells = evaluated(context, precision=precision, **keys)
    assert [cell.warnings for cell in cells.values()] == [[]] * len(cells)


@pytest.mark.parametrize(("more", "told"), [(-3, False), (2, False), (3, True)])
def test_pgd_is_called_weaker_than_fgsm_where_that_is_no_accident(more: int, told: bool) -> None:
    fgsm, pgd = (np.arange(120) < robust for robust in (15, 15 + more))
    assert bool(of_table({"fgsm": fgsm, "pgd": pgd}).get("pgd")) is told


def test_fewer_examples_than_asked_for_are_told(context: Context) -> None:
    cells = evaluated(context, attacks=["clean"], limit=9999)
    assert cells["train", "clean"].total == len(context.data.test)
    assert f"{len(context.data.test)} examples instead of 9999" in cells["train", "clean"].warnings[0]


def test_what_no_number_can_be_had_of_is_refused() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x, y = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    cpu = Compute(torch.device("cpu"))

    def refused(model: nn.Module, x: Tensor, y: Tensor, classes: int = 3) -> str:
        with pytest.raises(UsageError) as caught:
            refuse(model, Images(x, y, torch.arange(len(y))), classes, cpu)
        return caught.value.message

    refuse(linear, Images(x, y, torch.arange(5)), 3, cpu)
    assert "no examples" in refused(linear, x[:0], y[:0])
    assert "labels from 0 to 7 do not fit 3 classes" in refused(linear, x, y + torch.tensor([0, 0, 0, 7, 0]))
    assert "labels from -1" in refused(linear, x, y - 1)
    assert "outside of [0,1]" in refused(linear, x * 3 - 1, y)
    assert "shape (1, 3); needed: logits of shape (N, 4)" in refused(linear, x, y, 4)
    assert "does not take images of 1x2x2" in refused(nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), x, y)
    assert "not on cpu" in refused(nn.Linear(4, 3, device="meta"), x, y)


def test_the_number_format_of_a_search_changes_what_it_costs_not_what_counts(context: Context) -> None:
    keys = {"attacks": ["clean", "apgd-ce", "square"]} | CUT | {"apgd_steps": 12, "limit": 60, "square_queries": 40}
    exact = evaluated(context, precision="fp32", fold=False, **keys)
    folded = evaluated(context, precision="fp32", **keys)
    small = evaluated(context, precision="bf16", **keys)
    assert exact["train", "apgd-ce"].how == "fp32"
    assert folded["train", "apgd-ce"].how == "fp32, BatchNorm folded, channels last"
    assert small["train", "apgd-ce"].how == "bf16, BatchNorm folded"
    for name in ("apgd-ce", "square"):
        same = [cells["train", name].correct for cells in (exact, folded, small)]
        assert max(same) - min(same) <= 2
    assert small["train", "apgd-ce"].gradient_steps > folded["train", "apgd-ce"].gradient_steps, "the continuation"


def test_attacks_that_turn_on_the_last_bits_search_in_fp32_in_every_table(context: Context) -> None:
    keys = {"attacks": ["clean", "fgsm", "fab-t", "pgd"], "pgd_steps": 1} | CUT
    whole, small = (evaluated(context, precision=precision, **keys) for precision in ("fp32", "bf16"))
    assert {cell.how for cell in small.values()} == {"fp32", "fp32, BatchNorm folded, channels last"}
    told = [[(cell.correct, cell.gradient_steps) for cell in cells.values()] for cells in (whole, small)]
    assert told[0] == told[1]


def test_pgd_makes_the_steps_that_define_it_in_every_number_format(context: Context) -> None:
    keys = {"attacks": ["clean", "pgd"], "models": ["train"], "pgd_steps": 10, "pgd_restarts": 1}
    whole, small = (evaluated(context, precision=precision, **keys) for precision in ("fp32", "bf16"))
    pgd = [cells["train", "pgd"] for cells in (whole, small)]
    assert pgd[1].how == "bf16, BatchNorm folded"
    assert abs(pgd[0].correct - pgd[1].correct) <= 2
    clean = small["train", "clean"].correct
    assert pgd[1].correct * 10 <= pgd[1].gradient_steps <= clean * 10
    for steps in (2, 10):
        no_ball = {"pgd_steps": steps, "eps": [1e-6], "pgd_restarts": 2}
        cells = evaluated(context, precision="bf16", **keys | no_ball).values()
        (withstood,) = (cell for cell in cells if cell.attack.startswith("pgd"))
        assert withstood.gradient_steps == 2 * steps * withstood.correct > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, of torch's own modules
def test_a_compiled_search_finds_the_same(context: Context) -> None:
    keys = {"attacks": ["clean", "pgd"], "models": ["train"], "limit": 60}
    plain, compiled = evaluated(context, **keys), evaluated(context, compile=True, **keys)
    assert compiled["train", "pgd"].how.endswith("compiled")
    assert abs(plain["train", "pgd"].correct - compiled["train", "pgd"].correct) <= 1


FACTS = (
    '{"seconds":1.5,"gradient_steps":30,"forwards":7,"norm":"linf","eps":0.1,"source":"other","how":"bf16",'
    '"images":"1b2c","parts":[{"attack":"fgsm","correct":3,"gradient_steps":4,"forwards":5,"seconds":0.5}],"warnings":["weak"]}'
)


def test_the_names_of_an_unfinished_cell_on_disk_stay(tmp_path: Path) -> None:
    """A file as released engines write it gives the same file again."""
    path, right, labels = tmp_path / "old.npz", np.array([True, False, True, True]), np.arange(4)
    attempted, broken = np.array([[True, False]] * 4), np.array([[False, False], [True, False]] + [[False, False]] * 2)
    written = {
        "right": right,
        "labels": labels,
        "facts": np.array(FACTS),
        "settings": np.array('{"model": "small"}'),
        "column": np.array("train-aa"),
        "robust": right,
        "tried": attempted,
        "fell": broken,
        "counted": np.arange(48, dtype=np.int32).reshape(4, 2, 6),
        "seconds": np.array(2.5),
    }
    np.savez_compressed(path, **written)  # type: ignore[arg-type]  # the stub takes a name for allow_pickle
    outcomes = load(path, "train", "aa")
    assert outcomes is not None
    assert outcomes.tally is not None
    assert outcomes.tally.count("mute") == sum(written["counted"][:, 0, 4])
    assert load(path, "train", "pgd") is None, "of another cell"
    save(tmp_path / "new.npz", outcomes, labels, finished=False)
    with np.load(tmp_path / "new.npz") as again:
        assert again.files == list(written)
        for name, value in written.items():
            assert np.array_equal(again[name], value), name
            assert again[name].dtype == value.dtype
    record = outcomes.record(["more"])
    assert (record.correct, record.total, record.how, record.parts[0].attack) == (3, 4, "bf16", "fgsm")
    assert record.warnings == ["weak", "more"]
    assert outcomes.cell.warnings == ["weak"]


def test_outcomes_of_a_release_without_settings_are_read(tmp_path: Path) -> None:
    path, right = tmp_path / "old.npz", np.array([True, False])
    np.savez_compressed(path, right=right, labels=np.arange(2), facts=np.array('{"seconds":1.0}'))
    outcomes = load(path, "train", "pgd")
    assert outcomes is not None
    assert (outcomes.settings, outcomes.tally, outcomes.record().accuracy) == ({}, None, 50.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"right": np.ones((4, 1), dtype=bool)},
        {"right": np.array(True)},
        {"right": np.ones(4)},
        {"labels": np.arange(3)},
        {"robust": np.ones(3, dtype=bool)},
        {"tried": np.ones((4, 2), dtype=bool)},
        {"counted": np.ones((4, 1), dtype=np.int32)},
        {"settings": np.array("[]")},
        {"settings": np.array("[" * 100_000)},
        {"facts": np.array("[1]")},
    ],
)
def test_outcomes_of_a_wrong_shape_are_none(wrong: dict[str, np.ndarray], tmp_path: Path) -> None:
    right, tried = np.ones(4, dtype=bool), np.zeros((4, 1), dtype=bool)
    outcomes = Outcomes.begin("train", "pgd", right, {}, {})
    outcomes.tally = Tally(right, tried, tried, np.zeros((4, 1, 6), dtype=np.int32))
    save(tmp_path / "x.npz", outcomes, np.arange(4))
    assert load(tmp_path / "x.npz", "train", "pgd", 4) is not None
    assert load(tmp_path / "x.npz", "train", "pgd", 5) is None, "of other images"
    with np.load(tmp_path / "x.npz") as saved:
        values = {name: saved[name] for name in saved.files}
    np.savez(tmp_path / "x.npz", **{**values, **wrong})
    assert load(tmp_path / "x.npz", "train", "pgd") is None


def test_outcomes_that_are_damaged_are_none(tmp_path: Path) -> None:
    path, labels = tmp_path / "x.npz", np.arange(200)
    right = np.random.default_rng(0).random(200) < 0.5
    save(path, Outcomes(right, make_cell("train", "pgd", int(right.sum()), 200), {}), labels)
    whole = path.read_bytes()
    outcomes = load(path, "train", "pgd")
    assert outcomes is not None
    assert (outcomes.right == right).all()
    random, refused = np.random.default_rng(1), 0
    for place in random.integers(0, len(whole), 300):
        spoiled = bytearray(whole)
        spoiled[place] ^= 1 << int(random.integers(8))
        path.write_bytes(spoiled)
        again = load(path, "train", "pgd")
        refused += again is None
        assert again is None or (again.right == right).all()
    assert refused > 30
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert load(path, "train", "pgd") is None
