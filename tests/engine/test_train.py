"""The training loop: schedule, one step by hand, selection on held-out images, exact resume."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from engine.attacks.balls import Ball
from engine.checkpoints import own as checkpoints
from engine.contract.errors import CheckpointError, ProfileError
from engine.contract.plan import plan
from engine.contract.run.records import Scalars
from engine.contract.run.rundir import RunDir
from engine.data import Batch, Images
from engine.defences.train import Training, resized, side, triangular
from engine.game.game import GameRun
from engine.pipeline import make
from engine.stage import Context, EpochStage, Event, Step


def test_the_resolution_rises_between_its_epochs_in_steps_of_32() -> None:
    sides = [side(epoch, (160, 224), (18, 25)) for epoch in range(30)]
    assert sides[:19] == [160] * 19
    assert sorted(sides) == sides
    assert set(sides) == {160, 192, 224}
    assert sides[25:] == [224] * 5
    assert side(3, (10, 12), (0, 0)) == 12
    batch = Batch(torch.rand(2, 3, 24, 24), torch.zeros(2), torch.arange(2))
    assert resized(batch, 16).x.shape == (2, 3, 16, 16)
    assert torch.allclose(resized(batch, 24).x, batch.x, atol=1e-6)


def test_training_images_have_the_resolution_of_the_stage(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProfileError, match=r"resolution: found \[8, 9\]; allowed.*: 8 to 8"):
        quick_run("stage.train.resolution=[8, 9]")
    context = context_of(quick_run("stage.train.defence=standard"))
    stage = structs.replace(context.profile.stage[0], resolution=(4, 4), ramp=(18.0, 25.0))
    training = Training(context, stage)  # type: ignore[arg-type]
    seen: list[int] = []
    training.model.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-1]))
    training.step(context.data.train.take(torch.arange(8), context.compute), 0, logging=False)
    assert seen == [4]


@given(total=st.integers(1, 500), share=st.floats(0, 1))
def test_the_schedule_rises_to_one_and_falls_to_zero(total: int, share: float) -> None:
    rates = [triangular(step, total, share * total) for step in range(total)]
    assert all(0 < rate <= 1 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_the_schedule_at_known_steps() -> None:
    assert triangular(0, 30, 5) == pytest.approx(0.1)
    assert triangular(4, 30, 5) == pytest.approx(0.9)
    assert triangular(29, 30, 5) == pytest.approx(0.5 / 25)
    assert triangular(0, 4, 0) == pytest.approx(3.5 / 4)


def test_momentum_falls_where_the_rate_rises(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    """.9 at a rate of 0, .8 at its highest, as torch's CyclicLR has it; without a lower one it stays."""
    context = context_of(quick_run("stage.train.defence=standard", "stage.train.momentum_low=0.8"))
    training = Training(context, context.profile.stage[0])  # type: ignore[arg-type]
    batch = context.data.train.take(torch.arange(64), context.compute)
    for _ in range(training.total_steps):
        training.step(batch, 0, logging=False)
        (group,) = training.optimizer.param_groups
        assert group["momentum"] == pytest.approx(0.9 - 0.1 * group["lr"] / training.stage.lr)
        training.done += 1
    plain = Training(context, structs.replace(context.profile.stage[0], momentum_low=None))  # type: ignore[arg-type]
    assert {plain._momentum(step) for step in range(plain.total_steps)} == {0.9}


def test_one_step_is_one_step_of_sgd_on_the_loss(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    context = context_of(quick_run("stage.train.defence=standard"))
    stage = context.profile.stage[0]
    training = Training(context, stage)  # type: ignore[arg-type]
    twin = copy.deepcopy(training.model).train()
    batch = context.data.train.take(torch.arange(64), context.compute)
    training.step(batch, 0, logging=False)
    torch.nn.functional.cross_entropy(twin(batch.x), batch.y).backward()
    rate = 0.1 * triangular(0, training.total_steps, 2 / 6 * training.steps_per_epoch)
    for ours, parameter in zip(training.model.parameters(), twin.parameters(), strict=True):
        assert parameter.grad is not None
        expected = parameter.detach() - rate * (parameter.grad + 2e-4 * parameter.detach())
        assert torch.allclose(ours, expected, atol=1e-6)


def _events(work: EpochStage) -> list[Event]:
    return list(work.run())


def _shown(events: list[Event]) -> list[object]:
    """Everything in the records that does not depend on the clock."""
    return [
        (event.step, {k: v for k, v in event.values.items() if k != "images_per_second"})
        for event in events
        if isinstance(event, Scalars)
    ]


@pytest.mark.parametrize("kind", ["train", "game", "inoculate"])
def test_a_stage_stopped_anywhere_goes_on_exactly(
    kind: str, quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    """Weights, optimiser state and records are bit-identical to those of a run that was never stopped."""
    context = context_of(quick_run("stage.inoculate.epochs=2"))
    stages = {str(stage.id): stage for stage in context.profile.stage}
    for earlier in ("train", "game"):
        if kind not in (earlier, "train"):
            _events(make(context, stages[earlier]))  # type: ignore[arg-type]
    whole = make(context, stages[kind])
    assert isinstance(whole, Training | GameRun)
    expected = _shown(_events(whole))
    whole.clear()
    assert not list(context.run.checkpoints.glob(f"{kind}.resume*"))

    for stop_after in (1, 4, 5, 7):
        stopped = make(context, stages[kind])
        assert isinstance(stopped, Training | GameRun)
        before: list[Event] = []
        for event in stopped.run():
            before.append(event)
            if isinstance(event, Step) and event.done == stop_after:
                stopped.save()
                break
        resumed = make(context, stages[kind])
        assert isinstance(resumed, Training | GameRun)
        assert resumed.resume() == []
        assert resumed.done == stop_after
        after = _events(resumed)
        assert _shown(before) + _shown(after) == expected, stop_after
        assert _same(whole.state(), resumed.state()), stop_after
        resumed.clear()


def test_a_stage_whose_checkpoints_are_all_damaged_is_left_as_it_is(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    context = context_of(quick_run())
    training = make(context, context.profile.stage[0])
    training.save()
    training.save()
    ema = context_of(quick_run("stage.train.ema=0.9"))
    other = make(ema, ema.profile.stage[0])
    assert isinstance(other, Training)
    other.resume_file.write_bytes((context.run.checkpoints / "train.resume.pt").read_bytes())
    with pytest.raises(CheckpointError, match="made under another profile"):
        other.resume()
    for path in context.run.checkpoints.glob("train.resume*"):
        path.write_bytes(path.read_bytes()[:-1])
    again = make(context, context.profile.stage[0])
    assert isinstance(again, Training)
    with pytest.raises(CheckpointError, match=r"train.resume.pt and train.resume.previous.pt damaged") as refused:
        again.resume()
    assert "delete train.resume.pt and train.resume.previous.pt to run the stage anew" in refused.value.hint
    for path in context.run.checkpoints.glob("train.resume*"):
        path.unlink()
    assert again.resume() == []


@pytest.mark.parametrize(("override", "written"), [("seed=0", [1, 6]), ("checkpoint.every_steps=10", [1, 2, 4, 6])])
def test_epochs_shorter_than_twenty_checkpoints_end_without_one(
    quick_run: Callable[..., RunDir],
    context_of: Callable[[RunDir], Context],
    monkeypatch: pytest.MonkeyPatch,
    override: str,
    written: list[int],
) -> None:
    context = context_of(quick_run("stage.train.epochs=6", "stage.train.adversary.steps=1", override))
    found, now = [], [0.0]

    def slow(path: Path, state: dict[str, object]) -> None:
        found.append(state["ended"])
        now[0] += 0.5

    monkeypatch.setattr("engine.stage.time", SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter))
    monkeypatch.setattr(checkpoints, "save_resume", slow)
    training = make(context, context.profile.stage[0])
    assert isinstance(training, Training)
    assert training.steps_per_epoch == 5
    _events(training)
    assert found == written


def _same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))  # type: ignore[arg-type]
    return a == b


def test_a_last_batch_of_one_image_is_left_out(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    """Features of one pixel and a batch of one image have no variance; BatchNorm refuses them."""
    overrides = ["model.name=resnet18", "data.validation=0.95", "stage.train.epochs=1", "stage.train.adversary.steps=1"]
    context = context_of(quick_run(*overrides, "stage.train.batch_size=11"))
    assert len(context.data.train) % 11 == 1
    training = Training(context, context.profile.stage[0])  # type: ignore[arg-type]
    assert training.total_steps == len(context.data.train) // 11
    assert training.total_steps == plan(context.profile)[0].steps
    _events(training)
    assert training.done == training.total_steps


def test_the_test_images_play_no_part_in_training_or_selection(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    context = context_of(quick_run())
    garbage = Images(*(torch.zeros_like(part) for part in vars(context.data.test).values()))
    blind = replace(context, data=replace(context.data, test=garbage))
    one, other = (Training(c, c.profile.stage[0]) for c in (context, blind))  # type: ignore[arg-type]
    assert _shown(_events(one)) == _shown(_events(other))
    assert one.best == other.best


def test_best_weights_are_those_of_the_best_held_out_epoch(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    context = context_of(quick_run("stage.train.epochs=4"))
    training = Training(context, context.profile.stage[0])  # type: ignore[arg-type]
    scores = [
        (event.numbers()["val_robust_accuracy"], event.numbers()["val_accuracy"])
        for event in training.run()
        if isinstance(event, Scalars) and "val_accuracy" in event.values
    ]
    assert training.best == max(scores)
    chosen = Training(context, context.profile.stage[0])  # type: ignore[arg-type]
    chosen.model.load_state_dict(context.trained("train").state_dict())
    values = chosen._validate()
    assert (values["val_robust_accuracy"], values["val_accuracy"]) == pytest.approx(max(scores))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_and_keeps_weights_in_fp32(
    precision: str, quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    run = quick_run(
        f"compute.precision={precision}",
        "compute.channels_last=true",
        "data.validation=0.95",  # 67 images to train on: fp16 is slow on a CPU
        "stage.train.epochs=1",
        "stage.game.epochs=1",
        "stage.game.regret_steps=1",
    )
    context = context_of(run)
    few = replace(context.data, validation=context.data.validation.first(16), test=context.data.test.first(16))
    context = replace(context, data=few)
    for stage in context.profile.stage[:3]:
        work = make(context, stage)
        assert isinstance(work, EpochStage)
        values = [value for event in _events(work) if isinstance(event, Scalars) for value in event.numbers().values()]
        assert all(value == value for value in values)
    model = context.trained("train")
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["train", "game"])
def test_a_mixed_adversary_keeps_its_share_of_every_epoch_when_resumed(
    kind: str,
    quick_run: Callable[..., RunDir],
    context_of: Callable[[RunDir], Context],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = (f'stage.{kind}.adversary.attack="mixed"', f"stage.{kind}.adversary.pgd_share=0.4", "stage.train.epochs=1")
    context = context_of(quick_run(*keys))
    stages = {str(stage.id): stage for stage in context.profile.stage}
    if kind == "game":
        _events(make(context, stages["train"]))  # type: ignore[arg-type]
    asked: list[tuple[int, float]] = []

    def spy(objective: object, x: torch.Tensor, start: torch.Tensor, ball: Ball, **options: float) -> torch.Tensor:
        asked.append((int(options["steps"]), options["step_size"] / ball.eps))
        return start

    monkeypatch.setattr("engine.attacks.pgd.ascend", spy)
    first = make(context, stages[kind])
    for event in first.run():
        if isinstance(event, Step) and event.done == 3:
            first.save()
            break
    pgd, fgsm = (2, pytest.approx(1.15)), (1, pytest.approx(1.25))
    assert asked == [pgd, pgd, fgsm], "2 of the 5 steps of an epoch"
    resumed = make(context, stages[kind])
    assert isinstance(resumed, EpochStage)
    assert resumed.resume() == []
    asked.clear()
    _events(resumed)
    assert asked[:2] == [fgsm, fgsm]
    judge = (10, pytest.approx(0.23)) if kind == "train" else pgd
    assert asked[2] == judge, "what measures the epoch"
