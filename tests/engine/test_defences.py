"""What defences do beyond a loss: weights perturbed and restored, the helper's network, alarms; and all of them run."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from engine import checkpoints, process
from engine.contract.errors import ProfileError
from engine.contract.profile import from_tables
from engine.contract.records import RecordReader, WarningNote
from engine.contract.rundir import RunDir
from engine.defences.alarms import Epoch, alarms
from engine.defences.train import Training
from engine.defences.weights import perturbed, worst_direction
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
    with pytest.raises(RuntimeError, match="in the middle"), perturbed(model, directions, 0.05):
        with torch.no_grad():
            model.get_parameter("0.weight").fill_(torch.nan)
        raise RuntimeError("in the middle")
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


DEFENCES = ["standard", "fast", "mart", "awp", "help"]


@pytest.mark.parametrize("defence", DEFENCES)
def test_a_defence_runs_alone_and_inoculated(defence: str, quick_run: Callable[..., RunDir]) -> None:
    adversary = {"steps": 2}
    quick = {"epochs": 1, "batch_size": 64}
    stages = [
        {"kind": "train", "id": "plain", "defence": "standard", **quick},
        {"kind": "train", "defence": defence, "adversary": adversary, **quick},
        {"kind": "game", "adversary": adversary, **quick},
        {"kind": "inoculate", "defence": defence, "adversary": adversary, "inversion_steps": 2, **quick},
    ]
    tables = {"name": "x", "data": {"validation": 0.8}, "compute": {"threads": 1}, "stage": stages}
    run = quick_run(tables=tables)
    assert process.run(run) == 0
    assert (run.checkpoints / "inoculate.safetensors").exists()


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


def test_alarms_say_what_they_see_and_nothing_of_a_sound_training() -> None:
    sound = [Epoch(50.0 + 5 * i, 20.0 + 4 * i) for i in range(8)]
    assert alarms(sound, 10) == {}
    assert alarms([Epoch(90.0, None)] * 5, 10) == {}
    assert list(alarms([*sound, Epoch(92.0, 40.0)], 10)) == ["overfitting"]
    assert "48.0% after epoch 8" in alarms([*sound, Epoch(92.0, 40.0)], 10)["overfitting"]
    assert list(alarms([*sound, Epoch(95.0, 1.0)], 10)) == ["catastrophic"]
    assert list(alarms([Epoch(10.0, 9.0)] * 3, 10)) == ["collapse"]
    assert alarms([Epoch(10.0, 9.0)] * 2, 10) == {}
    assert alarms([Epoch(50.0, 20.0)] * 3, 2) == {"collapse": alarms([Epoch(50.0, 20.0)] * 3, 2)["collapse"]}


def test_a_collapsed_training_is_told_once(quick_run: Callable[..., RunDir]) -> None:
    tables = {
        "name": "x",
        "data": {"validation": 0.8},
        "compute": {"threads": 1},
        "stage": [{"kind": "train", "defence": "standard", "epochs": 5, "batch_size": 64, "lr": 1e-12}],
    }
    run = quick_run(tables=tables)
    assert process.run(run) == 0
    notes = [record for record in RecordReader(run.records_file).read() if isinstance(record, WarningNote)]
    assert [("collapsed" in note.text, note.stage) for note in notes] == [(True, "train")]


def test_the_mean_of_the_weights_is_what_is_measured_and_kept(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    context = context_of(quick_run("stage.train.ema=0.9"))
    training = Training(context, context.profile.stage[0])  # type: ignore[arg-type]
    expected = {name: value.detach().clone() for name, value in training.model.named_parameters()}
    batch = context.data.train.take(torch.arange(64), context.compute)
    for step in range(3):
        training.step(batch, 0, logging=False)
        training.done += 1
        for name, value in training.model.named_parameters():
            share = 0.0 if step == 0 else 0.9  # the first step has nothing to be averaged with
            expected[name] = share * expected[name] + (1 - share) * value.detach()
    found = dict(training.result.named_parameters())
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())
    training.save()
    kept = context.classifier()
    checkpoints.load_weights(context.weights_file("train"), {"classifier": kept})
    assert all(torch.equal(value, found[name]) for name, value in kept.named_parameters())
    again = Training(context, context.profile.stage[0])  # type: ignore[arg-type]
    assert again.resume() == []
    assert all(torch.equal(value, found[name]) for name, value in again.result.named_parameters())


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
