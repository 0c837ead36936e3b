"""What defences do beyond a loss: weights perturbed and restored, the helper's network, alarms; and all of them run."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from engine import process
from engine.checkpoints import own as checkpoints
from engine.contract.errors import ProfileError
from engine.contract.profile.files import from_tables
from engine.contract.profile.schema import Adversary, Inoculate
from engine.contract.run.records import RecordReader, Scalars, WarningNote
from engine.contract.run.rundir import RunDir
from engine.defences.alarms import Epoch, alarms, another_attack
from engine.defences.awp import perturbed, worst_direction
from engine.defences.train import Training
from engine.device import Compute
from engine.pipeline import make
from engine.stage import Context
from tests.engine.conftest import QUICK

CPU = Compute(torch.device("cpu"))


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


def test_the_worst_direction_is_the_gradient_scaled_to_each_layer() -> None:
    model = network().train()
    x, y = torch.rand(16, 1, 8, 8), torch.arange(16) % 5
    before = copy.deepcopy(model.state_dict())
    found = worst_direction(model, x, y, CPU)
    assert set(found) == {"0.weight", "4.weight"}, "no bias, no BatchNorm"
    twin = copy.deepcopy(model)
    nn.functional.cross_entropy(twin(x), y).backward()
    for name, direction in found.items():
        weight, gradient = dict(twin.named_parameters())[name], dict(twin.named_parameters())[name].grad
        assert gradient is not None
        assert torch.allclose(direction, weight.detach().norm() * gradient / gradient.norm(), rtol=1e-4, atol=1e-7)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_perturbed_weights_raise_the_loss_and_come_back_whatever_happens() -> None:
    model = network().eval()
    x, y = torch.rand(16, 1, 8, 8), torch.arange(16) % 5
    before = copy.deepcopy(model.state_dict())

    def loss() -> float:
        with torch.no_grad():
            return float(nn.functional.cross_entropy(model(x), y))

    plain, directions = loss(), worst_direction(model, x, y, CPU)
    with perturbed(model, directions, 0.05):
        assert loss() > plain + 0.01
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), "to the bit"
    with pytest.raises(TypeError), perturbed(model, directions, 0.05):  # which finds a weight no longer what it was
        model.get_parameter("0.weight").data.fill_(torch.nan).add_(None)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with perturbed(model, directions, 0.05), torch.no_grad():
        model.get_parameter("0.weight").mul_(2.0)
    expected = before["0.weight"] + (before["0.weight"] + 0.05 * directions["0.weight"])
    assert torch.allclose(model.get_parameter("0.weight"), expected, atol=1e-6)


def test_a_gradient_that_is_not_finite_perturbs_nothing() -> None:
    """Or w + NaN - NaN would be NaN for good, in a step that loss scaling leaves out."""
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    directions = worst_direction(model, torch.full((4, 1, 8, 8), torch.inf), torch.arange(4), CPU)
    assert all(not direction.any() for direction in directions.values())
    with perturbed(model, directions, 0.05):
        pass
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_step_of_awp_is_the_steps_of_the_method(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    context = context_of(quick_run("stage.train.defence=awp", "stage.train.weight_decay=0"))
    stage = context.profile.stage[0]
    training = Training(context, stage)  # type: ignore[arg-type]
    twin = copy.deepcopy(training.model)
    batch = context.data.train.take(torch.arange(64), context.compute)
    x_adv = training._attack(training.model, batch, training.stage.adversary, 0)
    training.step(batch, 0, logging=False)
    twin.train()
    directions = worst_direction(twin, x_adv, batch.y, context.compute)
    weights = dict(twin.named_parameters())
    with torch.no_grad():
        for name, d in directions.items():
            weights[name] += 0.01 * d
    z_nat, z_adv = twin(batch.x).log_softmax(1), twin(x_adv).log_softmax(1)
    kl = (z_nat.exp() * (z_nat - z_adv)).sum(1).mean()
    (nn.functional.nll_loss(z_nat, batch.y) + 4 * kl).backward()
    for name, ours in training.model.named_parameters():
        gradient = weights[name].grad
        assert gradient is not None
        expected = weights[name].detach() - training._rate(0) * gradient
        expected = expected - (0.01 * directions[name] if name in directions else 0)
        assert torch.allclose(ours, expected, atol=2e-5)


def test_a_step_of_inoculated_standard_training_is_that_of_the_method(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    """CE of the clean images + KL( f(x_adv) || f(x_c) ), with the gradient through both arguments."""
    overrides = ("stage.train.epochs=1", "stage.game.epochs=1", "stage.inoculate.defence=standard")
    context = context_of(quick_run(*overrides, "stage.inoculate.weight_decay=0"))
    for stage in context.profile.stage[:2]:
        for _ in make(context, stage).run():
            pass
    training = make(context, context.profile.stage[2])
    assert isinstance(training, Training)
    assert training.inoculation is not None
    twin = copy.deepcopy(training.model)
    batch = context.data.train.take(torch.arange(64), context.compute)
    x_adv = training._attack(training.model, batch, training.stage.adversary, 0)
    inverted = training.inoculation.invert(training.model, batch, x_adv, 0)
    training.step(batch, 0, logging=False)
    twin.train()
    z_nat, z_adv, z_c = (twin(x).log_softmax(1) for x in (batch.x, x_adv, inverted.x_c))
    (nn.functional.nll_loss(z_nat, batch.y) + (z_adv.exp() * (z_adv - z_c)).sum(1).mean()).backward()
    for ours, parameter in zip(training.model.parameters(), twin.parameters(), strict=True):
        assert parameter.grad is not None
        assert torch.allclose(ours, parameter - training._rate(0) * parameter.grad, atol=1e-6)


@pytest.mark.parametrize("perturbed_too", [False, True])
def test_kl_inversion_is_logged_at_the_weights_at_which_the_inversion_was_made(
    perturbed_too: bool,
    quick_run: Callable[..., RunDir],
    context_of: Callable[[RunDir], Context],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under awp the loss is taken at other weights than those of the inversion, unless the profile says otherwise."""
    overrides = ("stage.train.epochs=1", "stage.game.epochs=1", "stage.inoculate.defence=awp")
    context = context_of(quick_run(*overrides, f"stage.inoculate.invert_perturbed={str(perturbed_too).lower()}"))
    for stage in context.profile.stage[:2]:
        for _ in make(context, stage).run():
            pass
    training = make(context, context.profile.stage[2])
    assert isinstance(training, Training)
    assert isinstance(training.stage, Inoculate)
    assert training.inoculation is not None
    seen: dict[str, torch.Tensor] = {}
    for name in ("invert", "distance", "term"):
        ask = getattr(training.inoculation, name)

        def watched(model: nn.Module, *given: object, name: str = name, ask: Callable[..., object] = ask) -> object:
            seen[name] = torch.cat([weight.detach().flatten() for weight in model.parameters()])
            return ask(model, *given)

        monkeypatch.setattr(training.inoculation, name, watched)
    batch = context.data.train.take(torch.arange(64), context.compute)
    before = torch.cat([weight.detach().flatten() for weight in training.model.parameters()])
    shown = training.step(batch, 0, logging=True)
    assert shown["kl_inversion"].shape == (64,)
    assert torch.equal(seen["distance"], seen["invert"])
    assert torch.equal(seen["invert"], seen["term"]) is perturbed_too
    assert torch.equal(seen["invert"], before) is not perturbed_too


def test_defaults_follow_the_defence() -> None:
    def stage(defence: str, **keys: object) -> object:
        first = {"kind": "train", "id": "plain", "defence": "standard"}
        return from_tables({"name": "x", "stage": [first, {"kind": "train", "defence": defence, **keys}]}).stage[1]

    assert [stage(name).beta for name in ("trades", "mart", "awp", "help")] == [2.0, 3.0, 4.0, 4.0]  # type: ignore[attr-defined]
    assert stage("mart", beta=5).beta == 5  # type: ignore[attr-defined]
    assert stage("fast").adversary.attack == "fgsm"  # type: ignore[attr-defined]
    assert stage("fast").adversary.step_size == 1.25  # type: ignore[attr-defined]
    assert stage("help").helper == "plain"  # type: ignore[attr-defined]
    with pytest.raises(ProfileError, match=r"stage\.0\.helper: help needs"):
        from_tables({"name": "x", "stage": [{"kind": "train", "defence": "help"}]})


def told(history: list[Epoch], images: int = 5000, majority: float = 10.0, *, over: bool = False) -> list[str]:
    return list(alarms(history, images, majority, over=over))


SOUND = [Epoch(50.0 + 5 * i, 20.0 + 4 * i) for i in range(8)]


def test_alarms_say_what_they_see_and_nothing_of_a_sound_training() -> None:
    assert told(SOUND, over=True) == []
    assert told([Epoch(90.0, None)] * 5) == []
    assert told([*SOUND, Epoch(95.0, 1.0)]) == ["catastrophic"]
    assert told([*SOUND, Epoch(95.0, 1.0, float("nan"))]) == ["diverged"]


@pytest.mark.parametrize(
    ("adversary", "defence", "words"),
    [
        (Adversary(attack="fgsm"), "adv", "try pgd instead of fgsm"),
        (Adversary(attack="mixed"), "trades", "try pgd instead of mixed, or a larger pgd_share"),
        (Adversary(attack="pgd", steps=7), "adv", "pgd of 7 steps was used"),
        (Adversary(attack="fgsm"), "fast", "fast trains with fgsm alone; try the defence adv"),
    ],
)
def test_an_alarm_names_the_attack_of_the_training(adversary: Adversary, defence: str, words: str) -> None:
    remedy = another_attack(adversary, defence)
    text = alarms([*SOUND, Epoch(95.0, 1.0)], 5000, 10.0, remedy=remedy)["catastrophic"]
    assert words in text
    assert ("fgsm" in text) is (adversary.attack == "fgsm")


def test_robust_overfitting_takes_two_epochs_and_more_than_the_noise_of_the_images() -> None:
    fallen = [*SOUND, Epoch(92.0, 40.0), Epoch(92.0, 41.0)]
    assert told(fallen) == ["overfitting"]
    assert "48.0% after epoch 8" in alarms(fallen, 5000, 10.0)["overfitting"]
    assert told(fallen[:-1]) == []
    assert told(fallen, images=135) == [], "3 standard errors are 18 points"
    assert told([*SOUND, *[Epoch(92.0, 25.0)] * 2], images=135) == ["overfitting"]


def test_a_training_collapses_to_the_most_frequent_class() -> None:
    assert told([Epoch(10.0, 9.0)] * 3) == ["collapse"]
    assert told([Epoch(18.9, 18.9)] * 3, majority=18.9) == ["collapse"], "as on SVHN"
    assert told([Epoch(50.0, 20.0)] * 3, majority=50.0) == ["collapse"]
    assert told([Epoch(25.0, 18.9)] * 3, majority=18.9) == []
    assert told([Epoch(10.0, 9.0)] * 2) == []
    assert told([Epoch(10.0, 9.0)] * 2, over=True) == ["collapse"]
    assert told([Epoch(10.0, 9.0)] * 2 + [Epoch(60.0, 30.0)], over=True) == []


def _warnings(run: RunDir) -> list[WarningNote]:
    return [record for record in RecordReader(run.records_file).read() if isinstance(record, WarningNote)]


@pytest.mark.parametrize("epochs", [2, 5])
def test_a_collapsed_training_is_told_once(epochs: int, quick_run: Callable[..., RunDir]) -> None:
    tables = {
        "name": "x",
        "data": {"validation": 0.8},
        "compute": {"threads": 1},
        "stage": [{"kind": "train", "defence": "standard", "epochs": epochs, "batch_size": 64, "lr": 1e-12}],
    }
    run = quick_run(tables=tables)
    assert process.run(run) == 0
    assert [("collapsed" in note.text, note.stage) for note in _warnings(run)] == [(True, "train")]


def test_a_training_that_diverged_is_told_and_nothing_goes_on_from_it(quick_run: Callable[..., RunDir]) -> None:
    run = quick_run("stage.train.lr=1e30", "data.validation=0.9")
    assert process.run(run) == 1
    assert [note.text.split(":")[0] for note in _warnings(run)] == ["the training has diverged"]
    assert "the network of stage train has weights that are not finite numbers" in run.state().error


def test_a_network_that_withstands_single_steps_alone_is_told(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    """`fast`, by a step so short that its own attack finds less and less while PGD finds everything."""
    quick = {"batch_size": 64, "epochs": 8}
    fast = {"defence": "fast", "start": "adv", "warmup_epochs": 8, "lr": 0.2, "adversary": {"step_size": 0.01}}
    tables = {
        "name": "x",
        "data": {"validation": 0.7, "augment": False},
        "threat": {"eps": 0.2},
        "compute": {"threads": 1},
        "stage": [
            {"kind": "train", "id": "adv", "adversary": {"steps": 3}, **quick},
            {"kind": "train", **quick, **fast},
        ],
    }
    context = context_of(quick_run(tables=tables))
    trainings = []
    for stage in context.profile.stage:
        trainings.append(make(context, stage))
        events = list(trainings[-1].run())
    notes = [event.text for event in events if isinstance(event, WarningNote)]
    (note,) = (note for note in notes if "catastrophic overfitting" in note)
    assert note.endswith("fast trains with fgsm alone; try the defence adv with pgd, or a smaller step_size")
    curves = [event.numbers() for event in events if isinstance(event, Scalars)]
    robust = [values["val_robust_accuracy"] for values in curves if "val_robust_accuracy" in values]
    assert [values["accuracy"] for values in curves if "accuracy" in values][-1] > 80
    assert robust[-1] < 10
    assert isinstance(trainings[-1], Training)
    assert trainings[-1].best[0] == max(robust), "what is kept withstands PGD best"


def test_the_mean_of_the_weights_is_what_is_measured_and_kept(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    context = context_of(quick_run("stage.train.ema=0.25"))
    training = Training(context, context.profile.stage[0])  # type: ignore[arg-type]
    expected = copy.deepcopy(training.model.state_dict())
    batch = context.data.train.take(torch.arange(64), context.compute)
    for step in range(4):
        training.step(batch, 0, logging=False)
        training.done += 1
        for name, value in training.model.state_dict().items():
            share = [1 / 10, 2 / 11, 3 / 12, 0.25][step]  # the first steps are forgotten faster
            mean = share * expected[name] + (1 - share) * value
            expected[name] = mean if value.is_floating_point() else value.clone()
    found = training.result.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())
    training.save()
    kept = context.classifier()
    checkpoints.load_weights(context.weights_file("train"), {"classifier": kept})
    assert all(torch.equal(value, found[name]) for name, value in kept.state_dict().items())
    again = Training(context, context.profile.stage[0])  # type: ignore[arg-type]
    assert again.resume() == []
    assert all(torch.equal(value, found[name]) for name, value in again.result.state_dict().items())
    for either in (training, again):
        either.step(batch, 0, logging=False)
    one, other = (either.result.state_dict().values() for either in (training, again))
    assert all(map(torch.equal, one, other)), "it goes on exactly"


def test_the_mean_of_the_weights_is_near_the_network_after_few_epochs(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    """With the statistics of the network, or without the shorter memory at first, it would be at chance for epochs."""
    stage = {"kind": "train", "defence": "standard", "epochs": 5, "batch_size": 64, "ema": 0.99}
    context = context_of(quick_run(tables={"name": "x", "compute": {"threads": 1}, "stage": [stage]}))
    training = Training(context, context.profile.stage[0])  # type: ignore[arg-type]
    events = list(training.run())
    mean = training._validate()["val_accuracy"]
    training.mean = None
    assert mean > training._validate()["val_accuracy"] - 5 > 85
    assert not [event for event in events if isinstance(event, WarningNote)]


def test_a_hypothesis_model_of_another_run_inoculates_as_in_its_own(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    first = quick_run("stage.train.epochs=1", "stage.game.epochs=1")
    context = context_of(first)
    for stage in context.profile.stage[:3]:
        work = make(context, stage)
        for _ in work.run():
            pass
    files = {"checkpoint": "train.best.safetensors", "hypothesis": "game.safetensors"}
    model = {key: str(first.checkpoints / name) for key, name in files.items()}
    tables = QUICK | {"model": model, "stage": [stage for stage in QUICK["stage"] if stage["kind"] == "inoculate"]}
    second = context_of(quick_run(tables=tables))
    again = make(second, second.profile.stage[0])
    assert isinstance(again, Training)
    assert (again.stage.game, again.stage.start) == ("checkpoint", "checkpoint")
    for _ in again.run():
        pass
    kept, made = (c.weights_file("inoculate") for c in (context, second))
    one, two = (load_file(path) for path in (kept, made))
    assert all(torch.equal(one[key], two[key]) for key in one)
    with pytest.raises(ProfileError, match=r"stage\.0\.start: no earlier stage trains a network"):
        from_tables({"name": "x", "model": {"hypothesis": "h.safetensors"}, "stage": [{"kind": "inoculate"}]})
