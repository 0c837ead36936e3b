"""Losses against the figures of the method and against fp64 closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax

from engine.attacks.losses import cross_entropy, dlr, kl_divergence, margin
from engine.contract.profile.catalogue import DEFENCES
from engine.defences import LOSSES
from engine.defences.losses import adv, helper_term, mart, trades

Z_NAT, Z_ADV, Y = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.5, 1.0, -1.0]]), torch.tensor([0])


def test_check_values_of_the_method() -> None:
    assert cross_entropy(Z_NAT, Y).item() == pytest.approx(0.169846, abs=1e-6)
    assert adv(None, Z_ADV, Y, 0.0).item() == pytest.approx(1.054957, abs=1e-6)
    assert kl_divergence(Z_NAT, Z_ADV).item() == pytest.approx(0.536608, abs=1e-6)
    assert kl_divergence(Z_ADV, Z_NAT).item() == pytest.approx(0.666675, abs=1e-6)
    assert trades(Z_NAT, Z_ADV, Y, 6.0).item() == pytest.approx(3.389493, abs=2e-6)
    assert trades(Z_NAT, Z_ADV, Y, 2.0).item() == pytest.approx(1.243061, abs=2e-6)


def test_registry_rows_compute_the_named_losses() -> None:
    assert torch.equal(LOSSES["adv"](None, Z_ADV, Y, 2.0), adv(None, Z_ADV, Y, 0.0))
    assert torch.equal(LOSSES["trades"](Z_NAT, Z_ADV, Y, 2.0), trades(Z_NAT, Z_ADV, Y, 2.0))
    assert torch.equal(LOSSES["standard"](Z_NAT, Z_ADV, Y, 2.0), cross_entropy(Z_NAT, Y))
    assert not DEFENCES["standard"].attacks


def test_kl_agrees_with_scipy_and_is_per_example() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.normal(0, 5, (20, 7)), rng.normal(0, 5, (20, 7))
    expected = rel_entr(softmax(p, 1), softmax(q, 1)).sum(1)
    ours = kl_divergence(torch.tensor(p), torch.tensor(q))
    assert ours.shape == (20,)
    assert np.allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert np.allclose(
        cross_entropy(torch.tensor(p), torch.zeros(20, dtype=torch.long)), -log_softmax(p, 1)[:, 0], atol=1e-5
    )


@pytest.mark.parametrize("gap", [20.0, 120.0, 1e4])
def test_kl_survives_logits_whose_softmax_underflows(gap: float) -> None:
    z_p, z_q = torch.tensor([[gap, 0.0]], requires_grad=True), torch.tensor([[0.0, gap]], requires_grad=True)
    value = kl_divergence(z_p, z_q)
    assert value.item() == pytest.approx(gap, rel=1e-5)
    value.sum().backward()
    assert z_p.grad is not None
    assert z_q.grad is not None
    assert z_p.grad.isfinite().all()
    assert z_q.grad.isfinite().all()


def test_low_precision_logits_are_taken_to_fp32_first() -> None:
    half = kl_divergence(Z_NAT.half(), Z_ADV.half())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(0.536608, abs=1e-5)


def test_dlr_figures_of_the_method_and_its_invariance() -> None:
    z = torch.tensor([[3.0, 1.0, 0.0, -2.0]]).expand(4, 4)
    y = torch.arange(4)
    expected = torch.tensor([-2 / 3, 2 / 3, 1.0, 5 / 3])
    assert torch.allclose(dlr(z, y), expected, atol=1e-4)
    assert torch.allclose(dlr(7 * z - 3, y), expected, atol=1e-4)
    assert dlr(torch.zeros(1, 4), torch.tensor([1])).item() == 0


def test_dlr_of_two_classes_is_the_margin() -> None:
    z, y = torch.tensor([[1.0, -2.0], [0.5, 0.75]]), torch.tensor([0, 0])
    assert torch.equal(dlr(z, y), margin(z, y))


def test_the_margin_is_right_when_all_other_logits_are_negative() -> None:
    z = torch.tensor([[-1.0, -5.0, -3.0], [2.0, -5.0, -3.0]])
    assert margin(z, torch.tensor([0, 0])).tolist() == [-2.0, -5.0]
    assert margin(z, torch.tensor([1, 2])).tolist() == [4.0, 5.0]


def test_mart_has_the_check_values_of_the_method() -> None:
    for beta, value in ((6.0, 2.411192), (5.0, 2.327371), (3.0, 2.159729)):
        assert mart(Z_NAT, Z_ADV, Y, beta).item() == pytest.approx(value, abs=3e-6)
        assert LOSSES["mart"](Z_NAT, Z_ADV, Y, beta).item() == pytest.approx(value, abs=3e-6)


def test_the_helper_term_is_a_quarter_of_the_cross_entropy_to_the_standard_answer() -> None:
    z_standard = torch.tensor([[0.0, 3.0, 1.0]])
    assert helper_term(Z_ADV, z_standard).item() == pytest.approx(0.25 * cross_entropy(Z_ADV, Y + 1).item())


def test_which_defences_attack_perturb_and_help() -> None:
    assert [name for name, row in DEFENCES.items() if row.awp] == ["awp", "help"]
    assert [name for name, row in DEFENCES.items() if row.helper] == ["help"]
    assert [name for name, row in DEFENCES.items() if not row.attacks] == ["standard"]
    for name in ("awp", "help"):
        assert torch.equal(LOSSES[name](Z_NAT, Z_ADV, Y, 4.0), trades(Z_NAT, Z_ADV, Y, 4.0))
    assert torch.equal(LOSSES["fast"](None, Z_ADV, Y, 0.0), adv(None, Z_ADV, Y, 0.0))
