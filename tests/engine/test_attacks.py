"""Attacks against closed forms on a linear model, and what must hold for any model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine import draws
from engine.attacks import ATTACKS, Setting
from engine.attacks.apgd import apgd, checkpoints
from engine.attacks.balls import Ball
from engine.attacks.inversion import causal_logits, invert
from engine.attacks.loop import attacked, input_gradient
from engine.attacks.losses import cross_entropy, dlr, kl_divergence, margin
from engine.attacks.pgd import LabelLoss, against_labels, fgsm, pgd, training_adversary
from engine.contract.schema import Adversary, Evaluate
from engine.data import Batch
from engine.device import Compute
from tests.linear import example

CPU = Compute(torch.device("cpu"))


def batch_of(x: torch.Tensor, y: torch.Tensor) -> Batch:
    return Batch(x, y, torch.arange(len(y)))


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
        ).eval()


@pytest.mark.parametrize("eps", [0.01, 8 / 255, 0.1, 0.5])
@pytest.mark.parametrize("attack", ["fgsm", "pgd", "cw", "apgd-ce", "apgd-dlr"])
def test_linf_attacks_reach_the_worst_case_of_a_linear_model(attack: str, eps: float) -> None:
    model, x, y = example()
    batch, ball = batch_of(x, y), Ball("linf", eps)
    setting = Setting(ball, Evaluate(pgd_steps=20), seed=0, compute=CPU)
    right = model(x).argmax(1) == y
    x_adv = ATTACKS[attack].run(model, batch, setting, 0)
    worst = model.worst_linf(x, y, eps)
    still_right = right & (model(x_adv).argmax(1) == y)
    assert torch.equal(still_right, right & (worst > 0))
    reached = model.margin(x_adv, y)
    assert torch.allclose(reached[still_right], worst[still_right], atol=1e-5)


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.15])
@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_l2_attacks_reach_the_worst_case_of_a_linear_model(attack: str, eps: float) -> None:
    model, x, y = example()
    batch, ball = batch_of(x, y), Ball("l2", eps)
    if attack == "fgsm":
        x_adv = fgsm(model, batch, ball, CPU)
    else:  # from a random start a walk of 2.3 eps along the sphere ends 11 degrees off; this one goes all the way
        x_adv = pgd(model, batch, ball, CPU, steps=60, step_size=eps / 3, seed=0)
    right, still_right = model(x).argmax(1) == y, model(x_adv).argmax(1) == y
    worst = model.worst_l2(x, y, eps)
    assert torch.equal(right & still_right, right & (worst > 0))
    assert torch.allclose(model.margin(x_adv, y)[still_right], worst[still_right], atol=1e-4)


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.15])
@pytest.mark.parametrize("attack", ["apgd-ce-l2", "apgd-dlr-l2"])
def test_apgd_in_l2_reaches_the_worst_case_of_a_linear_model(attack: str, eps: float) -> None:
    model, x, y = example()
    setting = Setting(Ball("l2", eps), Evaluate(apgd_steps=100), seed=0, compute=CPU)
    x_adv = ATTACKS[attack].run(model, batch_of(x, y), setting, 0)
    right, still_right = model(x).argmax(1) == y, model(x_adv).argmax(1) == y
    worst = model.worst_l2(x, y, eps)
    assert torch.equal(right & still_right, right & (worst > 0))
    assert torch.allclose(model.margin(x_adv, y)[still_right], worst[still_right], atol=1e-4)


def test_apgd_reconsiders_its_step_size_when_the_authors_code_does() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(20)[:5] == [4, 7, 9, 10, 11]
    assert checkpoints(30)[:6] == [6, 11, 15, 18, 20, 21]
    assert checkpoints(1) == [1]


@pytest.mark.parametrize("attack", ["cw", "apgd-ce", "apgd-dlr", "apgd-ce-l2", "apgd-dlr-l2"])
def test_stronger_attacks_stay_inside_and_do_not_depend_on_the_neighbours(attack: str) -> None:
    model = network()
    x, y = torch.rand(12, 3, 4, 4), torch.arange(12) % 5
    setting = Setting(Ball("l2" if attack.endswith("l2") else "linf", 0.2), Evaluate(cw_steps=9, apgd_steps=9), 0, CPU)
    whole = ATTACKS[attack].run(model, batch_of(x, y), setting, 0)
    assert setting.ball.contains(whole, x).all()
    rows = torch.tensor([8, 2, 5])
    part = ATTACKS[attack].run(model, Batch(x[rows], y[rows], rows), setting, 0)
    assert torch.allclose(whole[rows], part, atol=1e-5)
    assert not torch.equal(ATTACKS["apgd-ce"].run(model, batch_of(x, y), setting, 1), whole)


@pytest.mark.parametrize("loss", [cross_entropy, dlr, margin])
def test_apgd_finds_a_loss_at_least_as_high_as_pgd_with_as_many_steps(loss: LabelLoss) -> None:
    """On points that neither breaks; summed, as single examples may go either way."""
    model, steps = network(3), 20
    x = torch.rand(200, 3, 4, 4)
    y = model(x).argmax(1)
    batch, ball = batch_of(x, y), Ball("linf", 0.02)
    by_apgd = apgd(model, batch, ball, CPU, loss, steps=steps, seed=0)
    by_pgd = pgd(model, batch, ball, CPU, steps=steps, step_size=2.3 * ball.eps / steps, seed=0)
    unbroken = (model(by_apgd).argmax(1) == y) & (model(by_pgd).argmax(1) == y)
    assert unbroken.sum() > 20
    if loss is cross_entropy:
        assert loss(model(by_apgd), y)[unbroken].sum() >= loss(model(by_pgd), y)[unbroken].sum() - 1e-3
    robust = [(model(point).argmax(1) == y).sum().item() for point in (by_apgd, by_pgd)]
    assert robust[0] <= robust[1] + 2


@settings(max_examples=60, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.floats(1e-4, 3.0),
    push=st.floats(0, 10),
    seed=st.integers(0, 10**6),
)
def test_projection_and_random_starts_stay_in_ball_and_box(norm: str, eps: float, push: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(16, 3, 5, 5, generator=generator)
    x[0], x[1] = 0, 1
    wild = x + push * torch.randn(x.shape, generator=generator)
    ball = Ball(norm, eps)  # type: ignore[arg-type]
    for point in (ball.project(wild, x), ball.random_point(x, draws.keys(seed, torch.arange(16), "start"))):
        d = point - x
        size = d.abs().flatten(1).amax(1) if norm == "linf" else d.double().flatten(1).norm(dim=1)
        assert (size <= torch.tensor(eps)).all()
        assert point.min() >= 0
        assert point.max() <= 1
        assert ball.contains(point, x).all()


def test_projection_leaves_allowed_points_alone_and_contains_refuses_others() -> None:
    x = torch.full((4, 1, 2, 2), 0.5)
    for ball in (Ball("linf", 0.1), Ball("l2", 0.1)):
        near = x + 0.04
        assert torch.allclose(ball.project(near, x), near, atol=1e-6)
        outside = [x + 0.11, x + torch.tensor([float("nan")]), x - 0.6]
        for point in outside:
            assert not ball.contains(point, x).any()


def test_random_starts_fill_the_ball() -> None:
    x = torch.full((4000, 1, 2, 2), 0.5)
    key = draws.keys(0, torch.arange(4000), "start")
    linf = (Ball("linf", 0.2).random_point(x, key) - x).flatten(1)
    assert linf.abs().amax(1).mean() == pytest.approx(0.2 * 4 / 5, rel=0.02)  # E max of 4 uniforms is 4/5
    l2 = (Ball("l2", 0.2).random_point(x, key) - x).flatten(1).norm(dim=1)
    assert l2.mean() == pytest.approx(0.2 * 4 / 5, rel=0.02)  # E of the radius in 4 dimensions is 4/5


def test_gradients_do_not_depend_on_the_batch() -> None:
    model = network()
    x, y = torch.rand(9, 3, 4, 4), torch.arange(9) % 5
    with attacked(model):
        together = input_gradient(against_labels(model, y, CPU), x).gradient
        alone = torch.cat(
            [input_gradient(against_labels(model, y[i : i + 1], CPU), x[i : i + 1]).gradient for i in range(9)]
        )
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-6)


def test_input_gradient_is_that_of_finite_differences() -> None:
    model = network().double()
    x, y = torch.rand(1, 3, 4, 4, dtype=torch.float64), torch.tensor([2])
    with attacked(model):
        slope = input_gradient(lambda x: (nn.functional.cross_entropy(model(x), y, reduction="none"), model(x)), x)
        h = 1e-6
        for place in [(0, 0, 0, 0), (0, 1, 2, 3), (0, 2, 3, 1)]:
            step = torch.zeros_like(x)
            step[place] = h
            up, down = (nn.functional.cross_entropy(model(x + s), y) for s in (step, -step))
            assert slope.gradient[place].item() / 1024 == pytest.approx(((up - down) / (2 * h)).item(), rel=1e-5)


def test_outcomes_do_not_depend_on_the_neighbours() -> None:
    model = network()
    x, y = torch.rand(12, 3, 4, 4), torch.arange(12) % 5
    arguments = {"steps": 7, "step_size": 0.02, "seed": 3}
    whole = pgd(model, batch_of(x, y), Ball("linf", 0.1), CPU, **arguments)
    rows = torch.tensor([8, 2, 5])
    part = pgd(model, Batch(x[rows], y[rows], rows), Ball("linf", 0.1), CPU, **arguments)
    assert torch.allclose(whole[rows], part, atol=1e-6)


def test_attacks_leave_the_model_as_it_was() -> None:
    model = network().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    batch = batch_of(torch.rand(4, 3, 4, 4), torch.arange(4))
    fgsm(model, batch, Ball("linf", 0.1), CPU)
    training_adversary(
        model, batch, Ball("l2", 0.5), CPU, Adversary(steps=3, step_size=0.5, loss="kl"), seed=0, epoch=0
    )
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_attacks_compute_no_gradient_for_weights() -> None:
    model = network()
    with attacked(model):
        assert not any(parameter.requires_grad for parameter in model.parameters())
    frozen = network().requires_grad_(False)
    with attacked(frozen):
        pass
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_a_zero_gradient_moves_nothing_and_breaks_nothing() -> None:
    for ball in (Ball("linf", 0.1), Ball("l2", 0.1)):
        assert torch.equal(ball.steepest(torch.zeros(2, 3, 4, 4)), torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize("target_margin", [-100.0, 100.0])
def test_inversion_reaches_the_end_of_its_ball_when_the_target_is_far(target_margin: float) -> None:
    model, x, y = example()
    gamma = 0.05
    target = torch.tensor([[target_margin / 2, -target_margin / 2]]).expand(len(x), 2)
    x_c = invert(model, batch_of(x, y), target, gamma, CPU, steps=10, seed=0, epoch=0)
    towards = torch.zeros_like(y) if target_margin < 0 else torch.ones_like(y)
    reached = model.margin(x_c, torch.zeros_like(y))
    expected = model.worst_linf(x, towards, gamma)
    expected = expected if target_margin < 0 else -expected
    assert torch.allclose(reached, expected, atol=1e-5)
    assert Ball("linf", gamma).contains(x_c, x).all()


def test_inversion_finds_a_target_inside_its_ball() -> None:
    model, x, y = example()
    gamma, steps = 0.05, 40
    step = 2.3 * gamma / steps
    room = gamma * model.weight.abs().sum().item()
    wanted = model.margin(x, torch.zeros_like(y)).float() + 0.5 * room
    target = torch.stack([wanted / 2, -wanted / 2], 1)
    x_c = invert(model, batch_of(x, y), target.detach(), gamma, CPU, steps=steps, seed=0, epoch=0)
    reached = model.margin(x_c, torch.zeros_like(y)).float()
    overshoot = 2 * step * model.weight.abs().sum().item()  # signed steps swing around an inner optimum
    assert ((reached - wanted).abs() <= overshoot).all()
    assert (kl_divergence(model(x_c), target) < kl_divergence(model(x), target) + 1e-6).all()


def test_causal_logits_are_those_of_the_formula() -> None:
    model, x, _ = example()
    x_adv = (x + 0.05).clamp(0, 1)
    halve = nn.Module()
    halve.forward = lambda z: z / 2  # type: ignore[method-assign]
    ours = causal_logits(model, halve, x, x_adv, CPU)  # type: ignore[arg-type]
    assert torch.allclose(ours, model((x + x_adv) / 2), atol=1e-5)
    assert not ours.requires_grad
