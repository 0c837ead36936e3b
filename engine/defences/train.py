"""The one training loop, for every defence, with and without inoculation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from engine.attacks.losses import cross_entropy
from engine.attacks.pgd import TrainingAttack
from engine.checkpoints import own as checkpoints
from engine.contract.plan import judge
from engine.contract.profile.catalogue import DEFENCES
from engine.contract.profile.schema import Adversary, Inoculate, Train
from engine.contract.run.records import CheckpointWritten, WarningNote
from engine.data import Batch
from engine.defences import LOSSES
from engine.defences.alarms import Epoch, alarms, another_attack
from engine.defences.awp import perturbed, worst_direction
from engine.defences.inoculation import Inoculation, Inverted
from engine.defences.losses import HELPER_REACH, helper_term
from engine.models.answers import refuse_answer
from engine.models.foreign import Foreign
from engine.stage import Context, EpochStage, Event, Meter


def triangular(step: int, total: int, rise: float) -> float:
    """Share of the highest learning rate at `step` (0-based) of `total`: up to 1 in `rise` steps, then down to 0.

    The first step has a rate above 0 (the reference wastes it).
    """
    now = step + 0.5
    return min(now / rise if rise > 0 else 1.0, (total - now) / max(total - rise, 1e-9))


def side(epoch: int, resolution: tuple[int, int], ramp: tuple[float, float]) -> int:
    """The side of training images in an epoch (0-based): from the first to the last in steps of 32 pixels."""
    (first, last), (begin, end) = resolution, ramp
    if not begin < epoch < end:
        return first if epoch < end else last
    between = round((first + (epoch - begin) / (end - begin) * (last - first)) / 32) * 32
    return min(max(between, min(resolution)), max(resolution))


def resized(batch: Batch, size: int) -> Batch:
    """The batch with images (N,C,size,size), still in [0,1]."""
    x = torch.nn.functional.interpolate(batch.x, size=(size, size), mode="bilinear", antialias=True)
    return Batch(x.clamp(0, 1), batch.y, batch.index)


def follow(mean: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Let `mean` be the exponential mean of the weights of `model` and of its statistics of BatchNorm.

    In the first steps (0-based) it forgets faster, so that little is left of where it began.
    """
    kept = min(decay, (1 + step) / (10 + step))
    for average, now in zip(mean.state_dict().values(), model.state_dict().values(), strict=True):
        if average.is_floating_point():
            average.lerp_(now, 1 - kept)
        else:
            average.copy_(now)


def _refuse_odd(network: nn.Module, context: Context) -> None:
    """Raise UsageError for a network that is not ours and does not answer with logits."""
    if not isinstance(network, Foreign):
        return
    labels = context.data.train.labels
    one = context.data.train.take(torch.zeros(1, dtype=torch.int64, device=labels.device), context.compute)
    mode = network.training
    refuse_answer(network.eval(), one.x, context.data.facts.classes)
    network.train(mode)


class Training(EpochStage):
    """A stage of kind train or inoculate."""

    def __init__(self, context: Context, stage: Train | Inoculate) -> None:
        super().__init__(context, str(stage.id), stage.epochs, stage.batch_size)
        self.stage = stage
        self.defence, self.loss = DEFENCES[stage.defence], LOSSES[stage.defence]
        network = context.trained(stage.start) if stage.start else context.classifier()
        _refuse_odd(network, context)
        self.model = self.synchronised(network)
        self.inoculation = Inoculation(context, stage, self.model) if isinstance(stage, Inoculate) else None
        self.attacks = self.defence.attacks or self.inoculation is not None
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=stage.lr, momentum=stage.momentum, weight_decay=stage.weight_decay, fused=True
        )
        self.scaler = context.compute.scaler()
        self.helper = context.trained(stage.helper).requires_grad_(False).eval() if self.defence.helper else None
        self.mean = None if stage.ema is None else deepcopy(self.model).requires_grad_(False)
        labels = context.data.validation.labels
        self.majority = 100.0 * int(labels.bincount().max()) / len(labels)
        self.best = (-math.inf, -math.inf)
        self.history: list[Epoch] = []
        self.warned: set[str] = set()

    def _height(self, step: int) -> float:
        """Share (0-1) of the highest learning rate at a step."""
        assert self.stage.warmup_epochs is not None, "the profile was resolved"
        return triangular(step, self.total_steps, self.stage.warmup_epochs * self.steps_per_epoch)

    def _rate(self, step: int) -> float:
        return self.stage.lr * self._height(step)

    def _momentum(self, step: int) -> float:
        """Constant, or falling to `momentum_low` where the rate is highest."""
        high, low = self.stage.momentum, self.stage.momentum_low
        return high if low is None else high - (high - low) * self._height(step)

    def rates(self) -> dict[str, float]:
        """The learning rate of the step just done."""
        return {"lr": self._rate(self.done - 1)}

    def step(self, batch: Batch, epoch: int, logging: bool) -> dict[str, Tensor]:
        """Attack, loss, update; the accuracy shown is that on the attacked images."""
        batch = self._resized(batch, epoch)
        x_adv = self._attack(self.model, batch, self.stage.adversary, epoch) if self.attacks else batch.x
        perturbed_too = isinstance(self.stage, Inoculate) and self.stage.invert_perturbed
        inverted, distance = (None, {}) if perturbed_too else self._inverted(batch, x_adv, epoch, logging)
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"], group["momentum"] = self._rate(self.done), self._momentum(self.done)
        with self._worst_weights(x_adv, batch.y):
            if perturbed_too:
                inverted, distance = self._inverted(batch, x_adv, epoch, logging)
                self.model.train()
            shown = self._losses(batch, x_adv, inverted) | distance
            self.descend(shown["loss"], self.optimizer, self.scaler)
        self.scaler.update()
        if self.mean is not None and self.stage.ema is not None:
            follow(self.mean, self.model, self.stage.ema, self.done)
        return shown

    def _inverted(
        self, batch: Batch, x_adv: Tensor, epoch: int, logging: bool
    ) -> tuple[Inverted | None, dict[str, Tensor]]:
        """The causal inversion, and how well it succeeded at the weights and statistics at which it was made."""
        if self.inoculation is None:
            return None, {}
        inverted = self.inoculation.invert(self.model, batch, x_adv, epoch)
        return inverted, {"kl_inversion": self.inoculation.distance(self.model, inverted)} if logging else {}

    def _resized(self, batch: Batch, epoch: int) -> Batch:
        """The batch, at the resolution of the epoch if the stage ramps it."""
        stage = self.stage
        if not isinstance(stage, Train) or not stage.resolution or not stage.ramp:
            return batch
        return resized(batch, side(epoch, stage.resolution, stage.ramp))

    def _losses(self, batch: Batch, x_adv: Tensor, inverted: Inverted | None) -> dict[str, Tensor]:
        """Values (N,) to be shown, among them the `loss` to go down: that of the defence, and what CAFE adds to it."""
        with self.context.compute.autocast():
            z_nat = self.model(batch.x) if self.defence.clean_logits else None
            z_adv = self.model(x_adv) if self.attacks or z_nat is None else z_nat
        loss = self.loss(z_nat, z_adv, batch.y, self.stage.beta or 0.0)
        if self.helper is not None:
            loss = loss + self._helper_loss(self.helper, batch.x, x_adv)
        shown = {"loss": loss, "accuracy": 100.0 * (z_adv.argmax(1) == batch.y)}
        if self.inoculation is None or inverted is None:
            return shown
        term = self.inoculation.term(self.model, inverted, z_adv)
        return shown | {"loss": loss + self.inoculation.weight * term, "defence_loss": loss, "inoculation_loss": term}

    @property
    def result(self) -> nn.Module:
        """The network that is measured and kept: the mean of the weights where one is taken."""
        return self.model if self.mean is None else self.mean

    def _worst_weights(self, x_adv: Tensor, y: Tensor) -> AbstractContextManager[None]:
        """Where the loss is taken: at the weights as they are, or perturbed against the network."""
        if not self.defence.awp:
            return nullcontext()
        directions = worst_direction(self.model, x_adv, y, self.context.compute, self.global_batch)
        return perturbed(self.model, directions, self.stage.awp_gamma)

    def _helper_loss(self, helper: nn.Module, x: Tensor, x_adv: Tensor) -> Tensor:
        """The term (N,) of the helper example, which lies beyond the adversarial one and may leave the box."""
        with self.context.compute.autocast():
            with torch.no_grad():
                z_standard = helper(x_adv)
            z_helper = self.model(x + HELPER_REACH * (x_adv - x))
        return helper_term(z_helper, z_standard)

    def _attack(self, model: nn.Module, batch: Batch, adversary: Adversary, epoch: int) -> Tensor:
        context = self.context
        attack = TrainingAttack(adversary, context.ball, context.compute, context.profile.seed)
        return attack(model, batch, epoch, self.epoch_share)

    def end_epoch(self, epoch: int) -> Iterator[Event]:
        """Held-out accuracy; the weights are kept as `best` when they beat all earlier ones.

        Robust accuracy decides, clean accuracy breaks ties; anything is better than weights that have diverged.
        """
        values = self._validate()
        yield self.scalars(values, epoch + 1.0)
        seen = Epoch(values["val_accuracy"], values.get("val_robust_accuracy"), values["val_loss"])
        score = (seen.clean if seen.robust is None else seen.robust, seen.clean)
        score = score if math.isfinite(seen.loss) else (-1.0, -1.0)
        if score > self.best:
            self.best = score
            yield self.save_weights("best")
        self.history.append(seen)
        held_out, over = len(self.context.data.validation), epoch + 1 == self.epochs
        remedy = another_attack(self.stage.adversary, self.stage.defence)
        for kind, text in alarms(self.history, held_out, self.majority, over=over, remedy=remedy).items():
            if kind not in self.warned:
                self.warned.add(kind)
                yield WarningNote(stage=self.id, text=text)

    def finish(self) -> Iterator[Event]:
        """Keep the last weights."""
        yield self.save_weights()

    def _validate(self) -> dict[str, float]:
        """Accuracy on the held-out images, clean and under PGD with fixed starts."""
        context, meter, pgd = self.context, Meter(), judge(self.stage.adversary)
        model = self.result.eval()
        for batch in context.data.validation.share().batches(512, context.compute):
            with torch.no_grad(), context.compute.autocast():
                z = model(batch.x)
            shown = {"val_loss": cross_entropy(z, batch.y), "val_accuracy": 100.0 * (z.argmax(1) == batch.y)}
            if self.attacks:
                x_adv = self._attack(model, batch, pgd, epoch=-1)
                with torch.no_grad(), context.compute.autocast():
                    z_adv = model(x_adv)
                shown["val_robust_accuracy"] = 100.0 * (z_adv.argmax(1) == batch.y)
            meter.add(shown)
        return meter.flush()

    def save_weights(self, label: str = "last") -> CheckpointWritten:
        """Write the classifier as it is."""
        path = self.context.weights_file(self.id, label)
        checkpoints.save_weights(path, {"classifier": self.result}, self.facts(label))
        return self.checkpoint_record(path, label)

    def parts(self) -> dict[str, Any]:
        """The classifier, its optimiser, and the loss scaling."""
        parts = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
        return parts if self.mean is None else parts | {"mean": self.mean}

    def state(self) -> dict[str, Any]:
        """With the held-out scores so far."""
        history = [tuple(epoch) for epoch in self.history]
        return super().state() | {"best": self.best, "history": history, "told": sorted(self.warned)}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        super().restore(state)
        self.best = tuple(state["best"])
        self.history = [Epoch(*epoch) for epoch in state["history"]]
        self.warned = set(state["told"])
