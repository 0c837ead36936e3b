"""The game: closed forms of the moment, directions of both players, a classifier that stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engine.contract.run.rundir import RunDir
from engine.defences.train import Training
from engine.game.game import GameRun
from engine.game.moments import moment, omega, read_features, regulariser
from engine.stage import Context


class PoolAndLinear(nn.Module):
    """A head as ResNets have: Omega depends on channel means alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features.mean((2, 3)))


def test_omega_of_a_pooling_head_depends_on_channel_means_alone() -> None:
    head, F_nat, w = PoolAndLinear(), torch.randn(5, 3, 2, 2), torch.randn(5, 3, 2, 2)
    flat = w.mean((2, 3), keepdim=True).expand_as(w)
    assert torch.allclose(omega(head, F_nat, w), omega(head, F_nat, flat), atol=1e-6)
    means = (F_nat + w).mean((2, 3))
    logits = means.double() @ head.linear.weight.double().T + head.linear.bias.double()
    expected = logits - logits.exp().sum(1, keepdim=True).log()
    assert torch.allclose(omega(head, F_nat, w).double(), expected, atol=1e-5)


def test_moment_is_the_product_of_two_log_likelihoods_of_the_true_class() -> None:
    z_h, z_g, y = torch.randn(6, 4), torch.randn(6, 4), torch.arange(6) % 4
    psi = moment(z_h.log_softmax(1), z_g.log_softmax(1), y)
    ce = nn.CrossEntropyLoss(reduction="none")
    assert torch.allclose(psi, ce(z_h, y) * ce(z_g, y), atol=1e-5)
    assert (psi >= 0).all()
    certain = torch.tensor([[100.0, 0, 0, 0]]).log_softmax(1)
    assert moment(certain, z_g[:1].log_softmax(1), torch.tensor([0])).item() == pytest.approx(0, abs=1e-6)


def test_regulariser_is_the_mean_square_per_example() -> None:
    t, Z = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    assert torch.allclose(regulariser(t, Z), ((t - Z) ** 2).mean((1, 2, 3)))
    assert regulariser(t, Z).mean().item() == pytest.approx(nn.functional.mse_loss(t, Z).item(), rel=1e-6)


def test_the_four_readings_are_those_of_the_notation() -> None:
    head = PoolAndLinear()
    F_nat, F_adv = torch.randn(5, 3, 2, 2), torch.randn(5, 3, 2, 2)
    Z, y = F_adv - F_nat, torch.arange(5) % 4
    h = nn.Conv2d(3, 3, 1)
    treatment = 2 * Z
    read = read_features(head, h, F_nat, F_adv, Z, treatment)
    assert torch.equal(read.adv, head(F_adv))
    assert torch.allclose(read.cf, head(F_nat + 2 * Z))
    assert torch.allclose(read.cc, head(F_nat + h(2 * Z)))
    assert torch.allclose(read.ac, head(F_nat + h(Z)))
    shown = read.shown(y)
    assert set(shown) == {f"{kind}_{n}" for kind in ("accuracy", "ce") for n in ("adv", "cf", "cc", "ac")}
    assert torch.allclose(shown["ce_adv"], nn.functional.cross_entropy(head(F_adv), y, reduction="none"))
    assert shown["accuracy_adv"].tolist() == [100.0 * bool(v) for v in (head(F_adv).argmax(1) == y)]


@pytest.fixture
def game(quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]) -> GameRun:
    context = context_of(quick_run("stage.train.epochs=1", "stage.game.lr=1e-3", "stage.game.adversary.steps=5"))
    train, game = context.profile.stage[:2]
    for _ in Training(context, train).run():  # type: ignore[arg-type]
        pass
    return GameRun(context, game)  # type: ignore[arg-type]


def test_each_player_moves_its_own_objective_its_own_way(game: GameRun) -> None:
    """With the other player held, steps of g raise psi - lambda*regulariser, and steps of h lower psi."""
    batch = game.context.data.train.take(torch.arange(128), game.context.compute)
    F_nat, F_adv = game.features(batch, 0)
    Z = F_adv - F_nat
    first = game._step_test_function(F_nat, Z, batch.y)["test_function_loss"].mean()
    for _ in range(20):
        last = game._step_test_function(F_nat, Z, batch.y)["test_function_loss"].mean()
    assert last < first
    first = game._step_hypothesis(F_nat, Z, batch.y)["hypothesis_loss"].mean()
    for _ in range(20):
        last = game._step_hypothesis(F_nat, Z, batch.y)["hypothesis_loss"].mean()
    assert last < first


def test_a_step_of_one_player_leaves_the_weights_of_the_other_and_of_the_classifier(game: GameRun) -> None:
    batch = game.context.data.train.take(torch.arange(64), game.context.compute)
    F_nat, F_adv = game.features(batch, 0)
    classifier = {key: value.clone() for key, value in game.model.state_dict().items()}
    h, g = ([p.clone() for p in network.parameters()] for network in (game.h, game.g))
    shown = game._step_test_function(F_nat, F_adv - F_nat, batch.y)
    assert all(torch.equal(a, b) for a, b in zip(h, game.h.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(g, game.g.parameters(), strict=True))
    g = [p.clone() for p in game.g.parameters()]
    game._step_hypothesis(F_nat, F_adv - F_nat, batch.y)
    assert all(torch.equal(a, b) for a, b in zip(g, game.g.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(h, game.h.parameters(), strict=True))
    assert all(torch.equal(value, classifier[key]) for key, value in game.model.state_dict().items())
    zero_sum = game.stage.lambda_ * shown["regulariser"] - shown["psi"]
    assert torch.allclose(shown["test_function_loss"], zero_sum)


def test_the_statistics_of_h_are_of_the_treatment_or_of_the_instrument_too(game: GameRun) -> None:
    """Z in its turn, after g(Z), in each of the two steps; the weights are those of a game without it."""
    batch = game.context.data.train.take(torch.arange(64), game.context.compute)
    F_nat, F_adv = game.features(batch, 0)
    Z = F_adv - F_nat
    asked: list[torch.Tensor] = []
    game.h.register_forward_pre_hook(lambda _, given: asked.append(given[0].detach().clone()))
    twin = copy.deepcopy({"h": game.h.state_dict(), "g": game.g.state_dict()})
    weights = []
    for statistics in ("treatment", "both"):
        game.h.load_state_dict(twin["h"])
        game.g.load_state_dict(twin["g"])
        game.optimizer_h, game.optimizer_g = (game._optimizer(network) for network in (game.h, game.g))
        game.stage.statistics = statistics  # type: ignore[assignment]
        asked.clear()
        game.step(batch, 0, logging=False)
        assert [torch.allclose(x, Z) for x in asked] == {"treatment": [False] * 2, "both": [False, True] * 2}[
            statistics
        ]
        weights.append([parameter.detach().clone() for parameter in game.h.parameters()])
    assert all(map(torch.equal, *weights))


def test_a_whole_game_leaves_the_classifier_untouched_and_tells_everything(game: GameRun) -> None:
    before = {key: value.clone() for key, value in game.model.state_dict().items()}
    records = [event for event in game.run() if hasattr(event, "values")]
    assert all(torch.equal(value, before[key]) for key, value in game.model.state_dict().items())
    names = {name for record in records for name in record.values}
    wanted = {
        "psi",
        "hypothesis_loss",
        "test_function_loss",
        "regulariser",
        "variation_norm",
    }
    wanted |= {f"{kind}_{name}" for kind in ("accuracy", "ce") for name in ("adv", "ac", "cf", "cc")}
    assert wanted | {"val_accuracy_ac", "final_accuracy_ac"} <= names


def test_a_batch_of_nothing_is_a_step(game: GameRun) -> None:
    """What a rank has of a small batch may be no image at all."""
    batch = game.context.data.train.take(torch.arange(0), game.context.compute)
    shown = game.step(batch, 0, logging=True)
    assert {len(values) for values in shown.values()} == {0}
