"""Networks that look at their neighbours, change their input, give no gradient, or compute in a format of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cafe_tui.format import means_of
from engine.attacks.loop import NoGradient
from engine.contract.errors import UsageError
from engine.contract.profile import files as profiles
from engine.contract.profile.schema import Evaluate, Train
from engine.contract.run import results
from engine.contract.run.records import Cell, Message, Part, WarningNote
from engine.contract.run.rundir import RunDir
from engine.data import Images
from engine.defences.train import Training
from engine.device import Compute
from engine.evaluation.checks import of_parts, of_small_images, of_table, refuse
from engine.evaluation.table import Evaluation
from engine.models import foreign
from engine.stage import Context

STAGES = [
    {"kind": "train"},
    {"kind": "evaluate", "attacks": ["clean"], "batch_size": 20, "limit": 40, "square_queries": 20, "samples": 2},
]


class Odd(nn.Module):
    """A linear classifier by the nearest mean image, asked in the way of a test."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self._forward = forward

    def learn(self, images: Images) -> None:
        x = images.images.float().flatten(1) / 255 if images.images.dtype == torch.uint8 else images.images.flatten(1)
        means = torch.stack([x[images.labels == label].mean(0) for label in range(10)])
        self.linear.weight.data.copy_(means)
        self.linear.bias.data.copy_(-means.pow(2).sum(1) / 2)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self.linear, x)


@pytest.fixture
def context(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context], monkeypatch: pytest.MonkeyPatch
) -> Context:
    tables = {"name": "x", "threat": {"eps": 0.1}, "compute": {"threads": 1}, "stage": STAGES}
    return context_of(quick_run(tables=tables))


Table = Callable[..., tuple[dict[str, Cell], list[object]]]


@pytest.fixture
def table(context: Context, monkeypatch: pytest.MonkeyPatch) -> Table:
    """The cells of a network by attack, and all that its evaluation tells."""

    def fill(network: Odd, attacks: list[str], **keys: object) -> tuple[dict[str, Cell], list[object]]:
        network.learn(context.data.train)
        monkeypatch.setattr(Context, "trained", lambda *_: network)
        profile = profiles.from_tables(
            {"name": "x", "threat": {"eps": 0.1, "eps_l2": 0.5}, "compute": {"threads": 1}}
            | {"stage": [STAGES[0], STAGES[1] | {"attacks": attacks} | keys]}
        )
        for path in context.run.outcomes.iterdir() if context.run.outcomes.exists() else ():
            path.unlink()
        stage = profile.stage[1]
        assert isinstance(stage, Evaluate)
        told = list(Evaluation(replace(context, profile=profile), stage).run())
        return {event.attack: event for event in told if isinstance(event, Cell)}, told

    return fill


def norm_in_train_mode(linear: nn.Module, x: Tensor) -> Tensor:
    z: Tensor = linear(x.flatten(1))
    return F.batch_norm(z, torch.zeros(10), torch.ones(10), training=True)


@pytest.mark.parametrize(
    "forward",
    [
        norm_in_train_mode,
        lambda linear, x: linear((x - x.mean(0)).flatten(1)),
        lambda linear, x: linear((x - x[:1]).flatten(1)),
        lambda linear, x: linear(x.flatten(1)) / len(x),
    ],
    ids=["BatchNorm in train mode", "the mean", "the first", "how many"],
)
def test_a_network_that_looks_at_its_neighbours_is_warned_of(forward: Callable[..., Tensor], table: Table) -> None:
    cells, _ = table(Odd(forward), ["clean", "fgsm"])
    for cell in cells.values():
        assert any("depends on the other images of its batch" in warning for warning in cell.warnings)


def test_rounding_is_no_neighbour(table: Table) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        network = Odd(lambda linear, x, dtype=dtype: linear(x.flatten(1).to(dtype))).to(dtype)  # type: ignore[misc]
        cells, _ = table(network, ["clean", "pgd"], pgd_steps=2)
        assert not any("batch" in warning for cell in cells.values() for warning in cell.warnings)


def test_a_network_may_change_its_input(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiling(linear: nn.Module, x: Tensor) -> Tensor:
        z: Tensor = linear(x.flatten(1).clone())
        x.zero_()
        return z

    kinds = ["clean", "fgsm", "pgd", "square"]
    given, _ = table(Odd(lambda linear, x: linear(x.flatten(1))), kinds, pgd_steps=3)
    spoilt, _ = table(Odd(spoiling), kinds, pgd_steps=3)
    assert {name: cell.correct for name, cell in spoilt.items()} == {name: cell.correct for name, cell in given.items()}
    x = torch.rand(2, 1, 8, 8)
    kept = x.clone()
    foreign.Foreign(Odd(spoiling), foreign.Copy())(x)
    assert torch.equal(x, kept), "in training too"


def quiet(linear: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        z: Tensor = linear(x.flatten(1))
    return z


@pytest.mark.parametrize(
    "forward",
    [
        quiet,
        lambda linear, x: linear(x.detach().flatten(1)),
        lambda linear, x: F.one_hot(linear(x.flatten(1)).argmax(1), 10),
        lambda linear, x: linear(torch.from_numpy(x.numpy()).flatten(1)),
    ],
    ids=["no_grad", "detach", "argmax", "numpy"],
)
def test_without_a_gradient_clean_and_square_run_and_the_others_say_why_not(
    forward: Callable[..., Tensor], table: Table
) -> None:
    cells, told = table(Odd(forward), ["clean", "pgd", "square", "square-l2", "aa"])
    assert list(cells) == ["clean", "square", "square-l2"]
    assert cells["square"].correct <= cells["clean"].correct
    for cell in cells.values():
        assert any("no attack that needs one was made" in warning for warning in cell.warnings)
    (note,) = (event for event in told if isinstance(event, WarningNote))
    assert "so pgd, aa could not be made" in note.text
    assert any(isinstance(event, results.Results) for event in told)
    assert any(isinstance(event, Message) and event.text.startswith("no samples") for event in told)
    with pytest.raises(NoGradient, match="no gradient with respect to the image"):
        table(Odd(forward), ["pgd"])


@pytest.mark.parametrize(("dtype", "name"), [(torch.float64, "float64"), (torch.bfloat16, "bf16")])
def test_a_network_is_described_by_the_format_it_computes_in(dtype: torch.dtype, name: str, table: Table) -> None:
    network = Odd(lambda linear, x: linear(x.flatten(1).to(dtype)).float()).to(dtype)
    cells, _ = table(network, ["clean", "pgd"], pgd_steps=2)
    assert {cell.how for cell in cells.values()} == {f"the network computes in {name}"}
    foot = means_of(results.table(cells.values()))
    assert foot == f"the network computes in {name}; every break confirmed by the network as it is"
    plain, _ = table(Odd(lambda linear, x: linear(x.flatten(1))), ["clean", "pgd"], pgd_steps=2, precision="fp32")
    assert means_of(results.table(plain.values())) == "searched in fp32; every break confirmed in fp32"


def test_a_network_that_returns_a_tuple_is_told_so_and_the_data_set_is_not_blamed() -> None:
    images = Images(torch.rand(5, 1, 8, 8), torch.arange(5), torch.arange(5))
    cpu = Compute(torch.device("cpu"))
    with pytest.raises(UsageError, match="forward returns a tuple; needed: one tensor of logits") as caught:
        refuse(Odd(lambda linear, x: (linear(x.flatten(1)), x)), images, 10, cpu)  # type: ignore[arg-type,return-value]
    assert "data set" not in str(caught.value)
    for shape in ((1,), ()):
        with pytest.raises(UsageError, match="needed: logits of shape"):
            refuse(Odd(lambda linear, x, shape=shape: torch.zeros(shape)), images, 10, cpu)  # type: ignore[misc]


def test_whatever_the_forward_of_a_network_does_is_told_and_no_defect_of_ours() -> None:
    images = Images(torch.rand(5, 1, 8, 8), torch.arange(5), torch.arange(5))

    def told(forward: Callable[[nn.Module, Tensor], Tensor]) -> str:
        with pytest.raises(UsageError) as caught:
            refuse(Odd(forward), images, 10, Compute(torch.device("cpu")))
        assert "trained on" not in str(caught.value.hint), "the data set is not blamed"
        return caught.value.message

    def wants_three_channels(_: nn.Module, x: Tensor) -> Tensor:
        assert x.shape[1] == 3, "three channels"
        return x

    def one_alone(linear: nn.Module, x: Tensor) -> Tensor:
        if len(x) > 1:
            raise ValueError("one at a time")
        z: Tensor = linear(x.flatten(1))
        return z

    assert told(wants_three_channels).startswith("the network does not take images of 1x8x8: AssertionError: three")
    heads: dict[str, Tensor] = {}
    assert told(lambda *_: heads["head"]).endswith("images of 1x8x8: KeyError: 'head'")
    assert told(lambda _, x: x[9:][0]).startswith("the network does not take images of 1x8x8: IndexError: ")
    assert told(one_alone) == "the network does not take two images of 1x8x8: one at a time"
    of_rows = "needed: logits of shape (N, 10)"
    assert of_rows in told(lambda linear, x: linear(x.flatten(1)).squeeze(0))
    assert of_rows in told(lambda linear, x: linear(x.flatten(1))[:, :, None, None])
    assert "answers with shape (1, 20)" in told(lambda linear, x: linear(x.flatten(1)).reshape(1, -1))
    assert "complex" in told(lambda linear, x: linear(x.flatten(1)).to(torch.complex64))


def test_a_training_refuses_a_network_that_returns_a_tuple(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Odd(lambda linear, x: (linear(x.flatten(1)), x))  # type: ignore[arg-type,return-value]
    monkeypatch.setattr(Context, "classifier", lambda _: foreign.Foreign(odd, foreign.Copy()))
    stage = context.profile.stage[0]
    assert isinstance(stage, Train)
    with pytest.raises(UsageError, match="forward returns a tuple; needed: one tensor of logits"):
        Training(context, stage)


# --- AutoAttack judges its parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after", "marked"), [(981, 958, True), (981, 979, False), (98, 95, True)])
def test_an_ensemble_is_marked_where_square_alone_breaks_what_gradients_left(
    before: int, after: int, marked: bool
) -> None:
    for suffix in ("", "-l2"):
        kinds = [("apgd-ce", before + 5), ("apgd-t", before), ("fab-t", before), ("square", after)]
        notes = of_parts([Part(attack=f"{name}{suffix}", correct=correct) for name, correct in kinds], 1000)
        assert bool(notes) is marked
        assert not marked or notes[0].startswith(
            f"square{suffix} alone broke {(before - after) / 10:.1f} points ({before - after} examples)"
        )
    few = of_parts([Part(attack="apgd-ce", correct=2000), Part(attack="square", correct=1980)], 10_000)
    assert not few, "exactly 0.2 points may be an accident"


def test_ensembles_of_gradients_alone_are_marked_by_a_column_of_square() -> None:
    left = np.ones(100, dtype=bool)
    broken = left.copy()
    broken[:9] = False
    for suffix in ("", "-l2"):
        notes = of_table({f"rand{suffix}": left, f"square{suffix}": broken, f"aa{suffix}": broken})
        told = f"square{suffix} alone broke 9.0 points (9 examples) that this attack had left"
        assert notes[f"rand{suffix}"][0].startswith(told)
        assert f"aa{suffix}" not in notes
    assert of_table({"rand": broken, "square": left}) == {}
    assert of_table({"rand": left, "square-l2": broken}) == {}


def test_aa_on_a_network_of_masked_gradients_is_marked(table: Table) -> None:
    """Steps of the image hide its gradient, not its answers."""

    def masked(linear: nn.Module, x: Tensor) -> Tensor:
        z: Tensor = linear(x.mul(6).round().div(6).flatten(1) + 0 * x.flatten(1))
        return z

    network = Odd(masked)
    keys = {"apgd_steps": 3, "fab_steps": 2, "targets": 2, "square_queries": 200}
    cells, _ = table(network, ["clean", "aa", "aa-l2"], **keys)
    for name, square in (("aa", "square"), ("aa-l2", "square-l2")):
        before, after = (part.correct for part in cells[name].parts[-2:])
        assert before - after >= 3
        told = f"{square} alone broke {100 * (before - after) / 40:.1f} points"
        assert any(note.startswith(told) for note in cells[name].warnings)


@pytest.mark.parametrize(("side", "told"), [(8, True), (16, True), (28, False), (32, False)])
def test_a_column_of_square_on_small_images_says_that_it_is_not_comparable(side: int, told: bool) -> None:
    for name in ("square", "square-l2"):
        assert bool(of_small_images(name, side)) is told
    assert of_small_images("aa", side) == of_small_images("clean", side) == []


def test_the_note_on_square_is_in_the_table(table: Table) -> None:
    cells, _ = table(Odd(lambda linear, x: linear(x.flatten(1))), ["clean", "square"])
    assert any("not comparable with the official Square on images of 8x8" in note for note in cells["square"].warnings)
    assert cells["clean"].warnings == []
