"""The one training loop, for every defence, with and without inoculation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from engine import checkpoints
from engine.attacks.losses import cross_entropy
from engine.attacks.pgd import training_adversary
from engine.contract.records import CheckpointWritten
from engine.contract.schema import Inoculate, Train
from engine.data import Batch
from engine.defences import DEFENCES
from engine.defences.inoculation import Inoculation
from engine.stage import Context, EpochStage, Event, Meter


def triangular(step: int, total: int, rise: float) -> float:
    """Share of the highest learning rate at `step` (0-based) of `total`: up to 1 in `rise` steps, then down to 0.

    The first step has a rate above 0 (the reference wastes it).
    """
    now = step + 0.5
    return min(now / rise if rise > 0 else 1.0, (total - now) / max(total - rise, 1e-9))


class Training(EpochStage):
    """A stage of kind train or inoculate."""

    def __init__(self, context: Context, stage: Train | Inoculate) -> None:
        super().__init__(context, str(stage.id), stage.epochs, stage.batch_size)
        self.stage = stage
        self.defence = DEFENCES[stage.defence]
        self.model = context.trained(stage.start) if stage.start else context.classifier()
        self.inoculation = Inoculation(context, stage, self.model) if isinstance(stage, Inoculate) else None
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=stage.lr, momentum=stage.momentum, weight_decay=stage.weight_decay
        )
        self.scaler = context.compute.scaler()
        self.best = (-1.0, -1.0)

    def _rate(self, step: int) -> float:
        assert self.stage.warmup_epochs is not None, "the profile was resolved"
        rise = self.stage.warmup_epochs * self.steps_per_epoch
        return self.stage.lr * triangular(step, self.total_steps, rise)

    def rates(self) -> dict[str, float]:
        """The learning rate of the step just done."""
        return {"lr": self._rate(self.done - 1)}

    def step(self, batch: Batch, epoch: int, logging: bool) -> dict[str, Tensor]:
        """Attack, loss, update; the accuracy shown is that on the attacked images."""
        compute, model = self.context.compute, self.model
        x_adv = self._attack(batch, epoch) if self.defence.attacks else batch.x
        model.train()
        with compute.autocast():
            z_nat = model(batch.x) if self.defence.clean_logits else None
            z_adv = model(x_adv)
        loss = self.defence.loss(z_nat, z_adv, batch.y, self.stage.beta)
        shown = {"loss": loss, "accuracy": 100.0 * (z_adv.argmax(1) == batch.y)}
        if self.inoculation:
            inoculated = self.inoculation.addend(model, batch, x_adv, z_adv, epoch)
            shown |= {"defence_loss": loss, "inoculation_loss": inoculated.term}
            loss = loss + self.inoculation.weight * inoculated.term
            shown["loss"] = loss
            if logging:
                shown["kl_inversion"] = self.inoculation.distance(model, inoculated)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(self.done)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss.mean()).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return shown

    def _attack(self, batch: Batch, epoch: int) -> Tensor:
        context = self.context
        return training_adversary(
            self.model,
            batch,
            context.ball,
            context.compute,
            self.stage.adversary,
            seed=context.profile.seed,
            epoch=epoch,
        )

    def end_epoch(self, epoch: int) -> Iterator[Event]:
        """Held-out accuracy; the weights are kept as `best` when they beat all earlier ones.

        Robust accuracy decides, clean accuracy breaks ties.
        """
        values = self._validate()
        yield self.scalars(values, epoch + 1.0)
        score = (values.get("val_robust_accuracy", values["val_accuracy"]), values["val_accuracy"])
        if score > self.best:
            self.best = score
            yield self.save_weights("best")

    def finish(self) -> Iterator[Event]:
        """Keep the last weights."""
        yield self.save_weights()

    def _validate(self) -> dict[str, float]:
        """Accuracy on the held-out images, clean and under the adversary of training with fixed starts."""
        context, meter = self.context, Meter()
        self.model.eval()
        for batch in context.data.validation.batches(512, context.compute):
            with torch.no_grad(), context.compute.autocast():
                z = self.model(batch.x)
            shown = {"val_loss": cross_entropy(z, batch.y), "val_accuracy": 100.0 * (z.argmax(1) == batch.y)}
            if self.defence.attacks:
                x_adv = self._attack(batch, epoch=-1)
                with torch.no_grad(), context.compute.autocast():
                    z_adv = self.model(x_adv)
                shown["val_robust_accuracy"] = 100.0 * (z_adv.argmax(1) == batch.y)
            meter.add(shown)
        return meter.flush()

    def save_weights(self, label: str = "last") -> CheckpointWritten:
        """Write the classifier as it is."""
        path = self.context.weights_file(self.id, label)
        checkpoints.save_weights(path, {"classifier": self.model}, self.facts(label))
        return self.checkpoint_record(path, label)

    def parts(self) -> dict[str, Any]:
        """The classifier, its optimiser, and the loss scaling."""
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}

    def state(self) -> dict[str, Any]:
        """With the best held-out score so far."""
        return super().state() | {"best": self.best}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        super().restore(state)
        self.best = tuple(state["best"])
