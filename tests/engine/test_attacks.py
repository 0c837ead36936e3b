"""Attacks against closed forms on a linear model, and what must hold for any model."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from scipy.optimize import linprog
from torch import Tensor, nn

from engine import keyed_random
from engine.attacks import ATTACKS
from engine.attacks.apgd import Apgd, checkpoints
from engine.attacks.balls import Ball
from engine.attacks.fab import least_move
from engine.attacks.inversion import Inversion, causal_logits
from engine.attacks.loop import FP16_SCALE, attacked, input_gradient
from engine.attacks.losses import cross_entropy, kl_divergence
from engine.attacks.pgd import SignedSteps, TrainingAttack, against_labels
from engine.attacks.queries import Oracle, exact_oracle
from engine.attacks.scheduler import LiveExamples
from engine.attacks.search import Search
from engine.attacks.setting import Setting
from engine.attacks.signed import LOSSES
from engine.attacks.square import share_of
from engine.attacks.strike import strike
from engine.contract.plan import evaluation_cost
from engine.contract.profile.files import from_tables
from engine.contract.profile.schema import Adversary, Evaluate
from engine.data import Batch, Images
from engine.device import Compute
from engine.models import build
from engine.models.base import Inputs
from tests.linear import example, many_classes

CPU = Compute(torch.device("cpu"))


def batch_of(x: torch.Tensor, y: torch.Tensor) -> Batch:
    return Batch(x, y, torch.arange(len(y)))


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
        ).eval()


def images_of(x: Tensor, y: Tensor, index: Tensor | None = None) -> Images:
    return Images(x, y, torch.arange(len(y)) if index is None else index)


def attack(
    name: str, model: nn.Module, images: Images, eps: float, stage: Evaluate | None = None, slots: int = 32
) -> LiveExamples:
    """One attack on all images, in the norm that its name tells."""
    classes = len(model(images.images[:1])[0])
    setting = Setting(Ball("l2" if name.endswith("-l2") else "linf", eps), stage or Evaluate(), 0, classes)
    with attacked(model):
        return strike(ATTACKS[name].search(setting), model, images, CPU, slots)


def test_keys_of_one_attack_leave_the_others_as_they_are() -> None:
    def search(name: str, **keys: object) -> Search:
        stage = structs.replace(Evaluate(apgd_restarts=3), **keys)
        return ATTACKS[name].search(Setting(Ball("linf", 0.1), stage, 0, 10))

    assert [search(name).attempts for name in ("apgd-ce", "apgd-dlr")] == [3, 3]
    assert [search(name, apgd_dlr_restarts=2).attempts for name in ("apgd-ce", "apgd-dlr")] == [3, 2]
    assert not search("cw").random_start  # type: ignore[attr-defined]
    assert search("cw", cw_random_start=True).random_start  # type: ignore[attr-defined]
    profile = from_tables({"name": "x", "stage": [{"kind": "train"}, {"kind": "evaluate", "attacks": ["apgd-dlr"]}]})
    stage = profile.stage[1]
    assert isinstance(stage, Evaluate)
    once = evaluation_cost(profile, stage, "apgd-dlr")
    assert evaluation_cost(profile, structs.replace(stage, apgd_dlr_restarts=2), "apgd-dlr") == 2 * once - 1


GRADIENT = ["fgsm", "pgd", "cw", "apgd-ce", "apgd-dlr", "apgd-t", "fab-t"]


@pytest.mark.parametrize("eps", [0.01, 8 / 255, 0.1, 0.5])
@pytest.mark.parametrize("name", GRADIENT)
def test_linf_attacks_reach_the_worst_case_of_a_linear_model(name: str, eps: float) -> None:
    model, x, y = example()
    live = attack(name, model, images_of(x, y), eps, Evaluate(pgd_steps=20))
    right, worst = model(x).argmax(1) == y, model.worst_linf(x, y, eps)
    assert live.tally.robust.tolist() == (right & (worst > 0)).tolist()
    assert live.points is not None
    still_right = torch.from_numpy(live.tally.robust)
    reached = model.margin(live.points, y)
    if name != "fab-t":  # which looks for the nearest point, not for the worst one
        assert torch.allclose(reached[still_right], worst[still_right], atol=1e-5)
    assert Ball("linf", eps).contains(live.points, x).all()


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.15])
@pytest.mark.parametrize("name", ["fgsm-l2", "pgd-l2", "apgd-ce-l2", "apgd-dlr-l2", "apgd-t-l2", "fab-t-l2"])
def test_l2_attacks_reach_the_worst_case_of_a_linear_model(name: str, eps: float) -> None:
    model, x, y = example()
    live = attack(name, model, images_of(x, y), eps, Evaluate(pgd_steps=60))
    right, worst = model(x).argmax(1) == y, model.worst_l2(x, y, eps)
    # From a random start, pgd's walk of 2.3 eps along the sphere may end some degrees off.
    slack = 0.05 * eps * float(model.weight.detach().norm()) if name == "pgd-l2" else 0.0
    sure = right & ((worst > 0) | (worst < -slack))
    robust = torch.from_numpy(live.tally.robust)
    assert torch.equal(robust[sure], (worst > 0)[sure])
    assert not robust[~right].any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [3, 4, 10, 37])
@pytest.mark.parametrize("name", ["apgd-t", "fab-t"])
def test_targeted_attacks_find_the_class_that_is_within_reach(name: str, classes: int, norm: str) -> None:
    """All classes are aimed at, so a linear model's robust accuracy is reached exactly."""
    model, x, y = many_classes(classes=classes)
    eps = 0.03 if norm == "linf" else 0.08
    column = name if norm == "linf" else f"{name}-l2"
    live = attack(column, model, images_of(x, y), eps, Evaluate(targets=classes))
    right, robust = model(x).argmax(1) == y, model.robust(x, y, norm, eps)
    assert live.tally.robust.tolist() == (right & robust).tolist()
    assert 0 < robust.sum() < right.sum(), "an example that tells something"


@pytest.mark.parametrize("name", ["square", "square-l2"])
def test_square_comes_near_the_worst_case_of_a_linear_model_from_answers_alone(name: str) -> None:
    model, x, y = example(shape=(3, 8, 8))
    eps, norm = (0.02, "linf") if name == "square" else (0.2, "l2")
    worst = model.worst_linf(x, y, eps) if norm == "linf" else model.worst_l2(x, y, eps)
    live = attack(name, model, images_of(x, y), eps, Evaluate(square_queries=1500), slots=64)
    right, robust = model(x).argmax(1) == y, torch.from_numpy(live.tally.robust)
    assert not (robust & ~right).any()
    assert robust[right & (worst > 0)].all(), "nothing allowed breaks these"
    breakable = right & (worst < 0)
    assert breakable.sum() > 20
    broken = (breakable & ~robust).sum() / breakable.sum()
    assert broken > (0.9 if norm == "linf" else 0.5), "bumps fit noise badly, stripes and squares well"
    assert live.tally.effort.gradient_steps == 0


@pytest.mark.parametrize("name", [*GRADIENT, "square"])
def test_two_classes_are_attacked_by_margins_and_it_is_said(name: str) -> None:
    model, x, y = example()
    setting = Setting(Ball("linf", 0.1), Evaluate(), 0, classes=2)
    assert ATTACKS[name].search(setting).attempts == 1
    assert bool(ATTACKS[name].note(setting)) == (name in ("apgd-dlr", "apgd-t"))
    live = attack(name, model, images_of(x, y), 0.1, Evaluate(square_queries=50))
    assert live.tally.robust.sum() < (model(x).argmax(1) == y).sum()


def test_apgd_reconsiders_its_step_size_when_the_authors_code_does() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(20)[:5] == [4, 7, 9, 10, 11]
    assert checkpoints(30)[:6] == [6, 11, 15, 18, 20, 21]
    assert checkpoints(1) == [1]


def test_square_halves_its_share_when_the_authors_code_does() -> None:
    shares = {proposal: share_of(proposal) for proposal in (0, 10, 11, 51, 201, 501, 1001, 2001, 4001)}
    assert shares == {0: 0.8, 10: 0.8, 11: 0.4, 51: 0.2, 201: 0.1, 501: 0.05, 1001: 0.025, 2001: 0.0125, 4001: 0.00625}


@settings(max_examples=60, deadline=None)
@given(norm=st.sampled_from(["linf", "l2"]), seed=st.integers(0, 10**6), reach=st.floats(0.01, 3.0))
def test_the_least_move_is_the_shortest_one_to_the_hyperplane(norm: str, seed: int, reach: float) -> None:
    """Against scipy's general solvers: a linear programme for linf, a bounded quadratic one for l2."""
    generator = torch.Generator().manual_seed(seed)
    at, w = torch.rand(2, 1, 2, 3, generator=generator), torch.randn(2, 1, 2, 3, generator=generator)
    w[0, 0, 0, 0] = 0
    gap = reach * torch.randn(2, generator=generator)
    moves = least_move(w, gap, at, norm)  # type: ignore[arg-type]
    assert ((at + moves) >= -1e-6).all()
    assert ((at + moves) <= 1 + 1e-6).all()
    for d, w_i, at_i, gap_i in zip(*(v.flatten(1).double().numpy() for v in (moves, w, at)), gap.double(), strict=True):
        most = np.where(w_i * float(gap_i) > 0, (1 - at_i), -at_i) @ w_i
        if abs(most) < abs(float(gap_i)):
            assert d @ w_i == pytest.approx(most, abs=1e-4), "as far as the box lets it"
            continue
        assert d @ w_i == pytest.approx(float(gap_i), abs=1e-4)
        if norm == "linf":
            n = len(d)
            upper = np.hstack([np.vstack([np.eye(n), -np.eye(n)]), -np.ones((2 * n, 1))])
            best = linprog(
                [0.0] * n + [1.0],
                A_ub=upper,
                b_ub=np.zeros(2 * n),
                A_eq=[[*w_i, 0.0]],
                b_eq=[float(gap_i)],
                bounds=[*zip(-at_i, 1 - at_i, strict=True), (0, None)],
            )
            assert np.abs(d).max() == pytest.approx(best.fun, abs=1e-4)
        else:  # the shortest vector is a multiple of w where no wall is in its way
            free = (at_i + d > 1e-6) & (at_i + d < 1 - 1e-6) & (w_i != 0)
            ratio = d[free] / w_i[free]
            assert np.allclose(ratio, ratio[:1], atol=1e-4)
            if free.any():
                assert (np.abs(d[~free]) <= np.abs(ratio[0] * w_i[~free]) + 1e-4).all()


def test_the_point_of_a_broken_example_is_one_that_breaks_it_whatever_other_restarts_found() -> None:
    model = network()
    x = torch.rand(60, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = model(x).argmax(1)
    stage = Evaluate(pgd_steps=1, pgd_restarts=6)
    for slots in (16, 60, 240):
        live = attack("pgd", model, images_of(x, y), 0.12, stage, slots=slots)
        assert live.points is not None
        broken = live.tally.broken.sum(1)
        assert ((broken > 0) & (broken < live.tally.attempted.sum(1))).any(), "some restarts break what others do not"
        with torch.no_grad():
            wrong = model(live.points).argmax(1) != y
        assert torch.equal(wrong, torch.from_numpy(~live.tally.robust))


INDEPENDENT = [*GRADIENT, "square", "pgd-l2", "apgd-ce-l2", "apgd-t-l2", "fab-t-l2", "square-l2"]


@pytest.mark.parametrize("name", INDEPENDENT)
def test_what_is_found_does_not_depend_on_order_number_and_neighbours(name: str) -> None:
    """Bit by bit, at one compute shape."""
    model = network()
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(40, 3, 4, 4, generator=generator), torch.arange(40) % 5
    stage = Evaluate(cw_steps=9, apgd_steps=9, pgd_steps=9, pgd_restarts=2, fab_steps=9, square_queries=40, targets=3)
    eps = 0.2 if name.endswith("l2") else 0.05
    whole = attack(name, model, images_of(x, y), eps, stage, slots=16)
    assert whole.points is not None
    assert Ball("l2" if name.endswith("l2") else "linf", eps).contains(whole.points, x).all()
    for rows in (torch.tensor([8, 2, 5]), torch.randperm(40, generator=generator)):
        part = attack(name, model, images_of(x[rows], y[rows], rows), eps, stage, slots=16)
        assert np.array_equal(part.tally.robust, whole.tally.robust[rows])
        assert part.points is not None
        robust = torch.from_numpy(part.tally.robust)
        assert torch.equal(part.points[~robust].isfinite(), torch.ones_like(part.points[~robust], dtype=torch.bool))
        if whole.search.attempts == 1:
            assert torch.equal(part.points, whole.points[rows])


@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "apgd-t", "fab-t", "square"])
def test_across_compute_shapes_outcomes_agree(name: str) -> None:
    model = network(3)
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(200, 3, 4, 4, generator=generator)
    with torch.no_grad():
        y = model(x).argmax(1)
    stage = Evaluate(apgd_steps=12, pgd_steps=12, fab_steps=12, square_queries=60, targets=3)
    robust = [attack(name, model, images_of(x, y), 0.02, stage, slots=slots).tally.robust for slots in (7, 64)]
    assert 0 < robust[1].sum() < 200
    assert (robust[0] == robust[1]).mean() >= 0.995
    few = attack(name, model, images_of(x[:25], y[:25]), 0.02, stage, slots=1).tally.robust
    assert (few == robust[1][:25]).all()


@pytest.mark.parametrize("name", ["pgd", "apgd-t"])
def test_every_attempt_counts(name: str) -> None:
    model, x, y = many_classes(400)
    one, many = (Evaluate(pgd_steps=2, apgd_steps=5, pgd_restarts=n, targets=n) for n in (1, 6))
    alone, together = (attack(name, model, images_of(x, y), 0.015, stage).tally for stage in (one, many))
    assert not (together.robust & ~alone.robust).any(), "more attempts break at least as much"
    assert together.robust.sum() < alone.robust.sum()
    assert together.attempts > alone.attempts


@pytest.mark.parametrize("loss", ["ce", "margin", "dlr", "kl"])
def test_pgd_climbs_each_of_its_losses(loss: str) -> None:
    model, x, y = many_classes()
    live = attack("pgd", model, images_of(x, y), 0.03, Evaluate(pgd_loss=loss, pgd_steps=20))
    right, robust = model(x).argmax(1) == y, model.robust(x, y, "linf", 0.03)
    weaker = torch.from_numpy(live.tally.robust)
    assert not (right & robust & ~weaker).any()
    assert (weaker & ~robust).sum() <= (0.5 if loss == "kl" else 0.2) * (right & ~robust).sum()


@pytest.mark.parametrize("loss", ["ce", "dlr", "margin"])
def test_apgd_finds_a_loss_at_least_as_high_as_pgd_with_as_many_steps(loss: str) -> None:
    """On points that neither breaks; summed, as single examples may go either way."""
    model, steps = network(3), 20
    x = torch.rand(200, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    y = model(x).argmax(1).detach()
    ball, value = Ball("linf", 0.02), LOSSES[loss]
    assert value is not None
    searches = (
        Apgd(ball, 0, steps, loss=value),
        SignedSteps(ball, 0, steps, step_size=2.3 * ball.eps / steps),
    )
    with attacked(model):
        by_apgd, by_pgd = (strike(search, model, images_of(x, y), CPU, 50) for search in searches)
    assert by_apgd.points is not None
    assert by_pgd.points is not None
    unbroken = torch.from_numpy(by_apgd.tally.robust & by_pgd.tally.robust)
    assert unbroken.sum() > 20
    if loss == "ce":
        ours, theirs = (value(model(live.points), y)[unbroken].sum() for live in (by_apgd, by_pgd))
        assert ours >= theirs - 1e-3
    assert by_apgd.tally.robust.sum() <= by_pgd.tally.robust.sum() + 2


def test_points_that_only_the_searching_network_calls_broken_do_not_count() -> None:
    """The searching network is wrong about everything; the exact one is robust."""
    model, x, y = example()
    right = model(x).argmax(1) == y
    liar = Oracle(lambda images: -model(images), CPU)
    search = SignedSteps(Ball("linf", 1e-4), 0, 5, step_size=1e-4)
    with attacked(model):
        live = strike(search, model, images_of(x, y), CPU, 16, liar)
    robust = right & (model.worst_linf(x, y, 1e-4) > 0)
    assert live.tally.robust.tolist() == robust.tolist()
    assert live.tally.count("unconfirmed") >= robust.sum()


def test_batches_stay_full_and_their_shape_never_changes() -> None:
    model = network(3)
    x = torch.rand(200, 3, 4, 4, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        y = model(x).argmax(1)
    shapes = []
    exact = exact_oracle(model, CPU)
    watched = Oracle(lambda images: (shapes.append(len(images)), model(images))[1], CPU)
    search = Apgd(Ball("linf", 0.02), 0, 30, loss=cross_entropy)
    with attacked(model):
        live = strike(search, model, images_of(x, y), CPU, 16, watched)
    assert set(shapes) == {16}
    assert exact.effort.gradient_steps == 0
    needed = live.tally.effort.gradient_steps / 16
    assert 0 < live.tally.robust.sum() < 200
    assert len(shapes) <= needed + 31, "only the last examples leave slots empty"


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
    for point in (ball.project(wild, x), ball.random_point(x, keyed_random.keys(seed, torch.arange(16), "start"))):
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
    key = keyed_random.keys(0, torch.arange(4000), "start")
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
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-6 * FP16_SCALE)


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


def test_attacks_leave_the_model_as_it_was() -> None:
    model = network().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    batch = batch_of(torch.rand(4, 3, 4, 4), torch.arange(4))
    attack = TrainingAttack(Adversary(steps=3, step_size=0.5, loss="kl"), Ball("l2", 0.5), CPU, seed=0)
    attack(model, batch, epoch=0)
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
    x_c = Inversion(gamma, 10, CPU, seed=0)(model, batch_of(x, y), target, epoch=0)
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
    x_c = Inversion(gamma, steps, CPU, seed=0)(model, batch_of(x, y), target.detach(), epoch=0)
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


def test_causal_logits_in_train_mode_use_the_statistics_of_the_batch() -> None:
    model = build("small", Inputs(3, 1, 8, (0.5,), (0.5,)), seed=0).eval()
    x, x_adv, still = torch.rand(8, 1, 8, 8), torch.rand(8, 1, 8, 8), torch.nn.Identity()
    frozen = causal_logits(model, still, x, x_adv, CPU)
    assert torch.allclose(frozen, model(x_adv), atol=1e-5), "h the identity: AC is Adv"
    assert not model.training
    moved = causal_logits(model, still, x, x_adv, CPU, "train")
    assert torch.allclose(moved, model.train()(x_adv), atol=1e-5)
    assert not torch.allclose(moved, frozen, atol=1e-2)
    assert not moved.requires_grad


def test_answers_that_the_next_one_overwrites_are_kept() -> None:
    """As those of a CUDA graph are."""
    answer, gradient, numbers = torch.zeros(4, 3), torch.zeros(4, 1, 2, 2), count(1.0)

    class Graph(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return answer.fill_(next(numbers)).detach()

        @staticmethod
        def backward(ctx: object, *slopes: Tensor) -> Tensor:
            return gradient.fill_(float(answer[0, 0])).detach()

    oracle = Oracle(Graph.apply, Compute(torch.device("cpu")), repeats=2)
    assert oracle.logits(torch.zeros(4, 1, 2, 2)).unique().tolist() == [1.5]
    slope = oracle.slope(torch.zeros(4, 1, 2, 2), lambda z: z.sum(1))
    assert [part.unique().tolist() for part in slope] == [[3.5], [10.5], [3.5]]
