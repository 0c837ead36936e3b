"""Keyed random numbers: an independent SplitMix64, distribution, and independence of the batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engine import keyed_random

MASK = (1 << 64) - 1


def splitmix_finaliser(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@pytest.mark.parametrize("key", [0, 1, -1, 2**63 - 1, -(2**63), 123456789])
def test_uniform_is_splitmix64_in_python_integers(key: int) -> None:
    ours = keyed_random.uniform(torch.tensor([key]), (5,))[0].tolist()
    state, expected = key & MASK, []
    for _ in range(5):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        expected.append((splitmix_finaliser(state) >> 40) * 2.0**-24)
    assert ours == expected


def test_uniform_and_normal_have_their_distributions() -> None:
    key = keyed_random.keys(0, torch.arange(200), "test")
    u = keyed_random.uniform(key, (3, 20)).flatten().numpy()
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    assert stats.kstest(keyed_random.normal(key, (3, 20)).flatten().numpy(), "norm").pvalue > 1e-3


def test_a_draw_belongs_to_its_example_alone() -> None:
    everyone = keyed_random.keys(7, torch.arange(100), "start", 2, 3)
    shuffled = keyed_random.keys(7, torch.tensor([42, 3]), "start", 2, 3)
    assert torch.equal(keyed_random.uniform(everyone, (4,))[[42, 3]], keyed_random.uniform(shuffled, (4,)))


def test_every_part_of_the_key_matters() -> None:
    index = torch.arange(50)
    variants = [
        keyed_random.keys(0, index, "a", 0, 0),
        keyed_random.keys(1, index, "a", 0, 0),
        keyed_random.keys(0, index, "b", 0, 0),
        keyed_random.keys(0, index, "a", 1, 0),
        keyed_random.keys(0, index, "a", 0, 1),
        keyed_random.keys(0, index, "a", -1, 0),
        keyed_random.keys(0, index, "a"),
    ]
    seen = torch.cat(variants)
    assert len(seen.unique()) == len(seen)
    correlation = torch.corrcoef(torch.stack([keyed_random.uniform(k, (100,)).flatten() for k in variants]))
    off_diagonal = correlation - torch.eye(len(variants))
    assert off_diagonal.abs().max() < 5 / 5000**0.5


@given(seed=st.integers(0, 2**63 - 1), path=st.lists(st.integers(-(2**31), 2**63 - 1), max_size=3))
def test_one_number_for_all_is_the_same_as_one_for_each(seed: int, path: list[int]) -> None:
    index = torch.arange(4)
    for split in range(len(path) + 1):
        each = [torch.full_like(index, part) for part in path[split:]]
        assert torch.equal(
            keyed_random.keys(seed, index, "a", *path), keyed_random.keys(seed, index, "a", *path[:split], *each)
        )
    for number in path:
        key = keyed_random.keys(seed, index, "a")
        assert torch.equal(keyed_random.further(key, number), keyed_random.further(key, torch.full_like(index, number)))
