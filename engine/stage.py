"""What the stages of a run share: their surroundings, metering, and how they go on after a stop.

A stage is a generator of record values. Between two steps it yields a `Step`; to stop it, the pipeline calls `save`
there and consumes no more.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from engine import distributed
from engine.attacks.balls import Ball
from engine.checkpoints import own as checkpoints
from engine.contract.errors import CheckpointError, RunFailed
from engine.contract.plan import Column, batches
from engine.contract.profile.catalogue import CHECKPOINT, DATA_FACTS, MODELS, NO_WEIGHTS
from engine.contract.profile.schema import Game, Inoculate, Profile, Train
from engine.contract.run.fingerprint import IMAGES, Settings, cell_settings, changed, image_settings, settings
from engine.contract.run.records import CheckpointWritten, Record, Scalars, WarningNote, to_number
from engine.contract.run.results import Results
from engine.contract.run.rundir import RunDir
from engine.contract.weights import read_facts
from engine.data import Batch, Splits, augment, epoch_order
from engine.device import Compute
from engine.models import build, conv_by_matmul
from engine.models.base import Classifier, Inputs
from engine.models.loading import load_foreign
from engine.models.synced import synchronised
from engine.models.treatment import build_treatment
from engine.oom import out_of_memory

LOGS_PER_EPOCH = 10
SAVING_SHARE = 0.05
"""Of the time between two checkpoints, what one at the end of an epoch may take."""
DROPOUT_STRIDE = 2**32
"""Between the seeds of two ranks: more than any run has steps."""


@dataclass(frozen=True)
class Step:
    """`done` optimiser steps (or decided examples) of the stage are behind us; `share` (0-1) of its work, if that is
    not the same."""

    done: int
    share: float | None = None


Event = Record | Results | Step
Network = TypeVar("Network", bound=nn.Module)


def checked_finite(network: Network, what: str) -> Network:
    """The network as it is. Raises RunFailed where a weight is not a finite number: what learned it has diverged."""
    finite = {name: value.isfinite().all() for name, value in network.named_parameters()}
    finite |= {name: ~value.isnan().any() for name, value in network.named_buffers()}  # masks may be infinite
    if finite and not torch.stack(list(finite.values())).all():
        first = next(name for name, is_finite in finite.items() if not is_finite)
        raise RunFailed(
            f"{what} has weights that are not finite numbers, such as {first}: its training has diverged, and "
            "nothing can go on from it",
            "Start a new run with a lower learning rate (lr) in the stage that made it, or use other weights.",
        )
    return network


@dataclass(frozen=True)
class Context:
    """What every stage works with."""

    profile: Profile
    run: RunDir
    compute: Compute
    data: Splits

    @property
    def ball(self) -> Ball:
        """The threat model of the profile."""
        return Ball(self.profile.threat.norm, self.profile.threat.eps)

    def classifier(self) -> Classifier:
        """A new network, its weights a function of the seed. One that is not ours has no features and no head."""
        facts, model = self.data.facts, self.profile.model
        options = {key: getattr(model, key) for key in MODELS[model.name].options} if model.name in MODELS else {}
        inputs = Inputs(facts.classes, facts.channels, facts.size, self.data.mean, self.data.std)
        network = build(model.name, inputs, seed=self.profile.seed, folder=self.run.info().folder, **options)
        self.compute.place(network)
        return cast(Classifier, network)

    def treatments(self, shape: tuple[int, int, int]) -> tuple[nn.Module, nn.Module]:
        """New networks h (hypothesis) and g (test function) for features of `shape` (C,H,W)."""
        seed = self.profile.seed
        h, g = (self.compute.place(build_treatment(shape, seed=2 * seed + player)) for player in (1, 2))
        with self.compute.autocast():
            small = conv_by_matmul.suits(torch.empty(1, *shape, device=self.compute.device))
        return (conv_by_matmul.by_taps(h), conv_by_matmul.by_taps(g)) if small else (h, g)

    def weights_file(self, stage_id: str, label: str = "last") -> Path:
        """Where a stage keeps its `last` or `best` weights."""
        return self.run.checkpoints / (f"{stage_id}.safetensors" if label == "last" else f"{stage_id}.best.safetensors")

    def trained(self, stage_id: str | None) -> Classifier:
        """The network of an earlier stage, the checkpoint that the stage selects, or that of [model] checkpoint.

        Raises CheckpointError, and RunFailed where it has diverged.
        """
        if stage_id == CHECKPOINT and self.profile.model.checkpoint:
            network = self.classifier()
            if self.profile.model.checkpoint != NO_WEIGHTS:
                path = Path(self.profile.model.checkpoint).expanduser()
                load_foreign(path, network, data_name=self.profile.data.name)
            return checked_finite(network, "the network of [model] checkpoint")
        stage = next(stage for stage in self.profile.stage if stage.id == stage_id)
        assert isinstance(stage, Train | Inoculate), "the profile was checked"
        network = self.classifier()
        checkpoints.load_weights(self.weights_file(str(stage_id), stage.select), {"classifier": network})
        return checked_finite(network, f"the network of stage {stage_id}")

    def hypothesis(self, game_id: str | None, shape: tuple[int, int, int]) -> nn.Module:
        """h of an earlier game, or that of [model] hypothesis, in eval mode.

        Raises CheckpointError, and RunFailed where it has diverged.
        """
        h, _ = self.treatments(shape)
        given = self.profile.model.hypothesis
        file = Path(given) if game_id == CHECKPOINT and given else self.weights_file(str(game_id))
        checkpoints.load_weights(file, {"hypothesis": h})
        return checked_finite(h, f"h of {file.name}").eval()

    def readings(self) -> dict[str, float]:
        """The four accuracies on the test images at the end of the latest game, in percent; empty without one."""
        games = [stage for stage in self.profile.stage if isinstance(stage, Game)]
        if not games or not self.weights_file(str(games[-1].id)).exists():
            return {}
        readings = checkpoints.read_facts(self.weights_file(str(games[-1].id)))["readings"]
        return {name.removeprefix("final_"): value for name, value in readings.items()}

    def settings(self, stage_id: str) -> Settings:
        """What the numbers of a stage depend on: keys of the profile, and the images."""
        return settings(self.profile, stage_id) | image_settings(self.data.sums)

    def cell_settings(self, stage_id: str, model: str, column: Column) -> Settings:
        """What a cell of a table depends on: keys of the profile, and the images."""
        return cell_settings(self.profile, stage_id, model, column) | image_settings(self.data.sums)

    def doubts(self, stage_id: str) -> list[str]:
        """What a reader of a number must know of the data that the network of a stage was tested on."""
        notes = [self._other_classes()] if stage_id == CHECKPOINT else []
        if self.data.shared and self.profile.data.name not in DATA_FACTS:
            notes.append(f"{self.data.shared:,} of the {len(self.data.test):,} test images are in train too")
        return [note for note in notes if note]

    def _other_classes(self) -> str:
        """Whether [model] checkpoint was trained on classes of other names; empty where it does not know them."""
        path, now = Path(str(self.profile.model.checkpoint)).expanduser(), self.data.class_names
        then = (read_facts(path) or {}).get("class_names") if path.is_file() else None
        if not then or not now or list(then) == list(now):
            return ""
        place, (old, new) = next((i, pair) for i, pair in enumerate(zip_longest(then, now)) if pair[0] != pair[1])
        return (
            f"the classes have other names than those the network was trained on: class {place} was {old} and is "
            f"{new}; an answer may be counted for the wrong class"
        )

    def facts(self, **more: Any) -> dict[str, Any]:
        """Metadata of a checkpoint: what is needed to build its network again, and to test it on its data set."""
        data, model = self.data.facts, self.profile.model
        return {
            "model": model.name,
            "dropout": model.dropout,
            "data": self.profile.data.name,
            "classes": data.classes,
            "channels": data.channels,
            "size": data.size,
            "mean": list(self.data.mean),
            "std": list(self.data.std),
            "norm": self.profile.threat.norm,
            "eps": self.profile.threat.eps,
            "eps_l2": self.profile.threat.eps_l2,
            "class_names": list(self.data.class_names),
            "images": dict(self.data.sums),
            "run": self.run.id,
            **more,
        }


def another_profile(files: Sequence[Path], difference: str) -> CheckpointError:
    """The error of `files` that were written under a different profile, or on other images."""
    names = ", ".join(f"{file.parent.name}/{file.name}" for file in files)
    if difference.startswith(IMAGES):
        return CheckpointError(
            f"{files[0]}: made with other images: {difference}",
            "Put back the images that the run was started with; `cafe run` makes a new run on these. To do these "
            f"stages of this run anew, delete {names}.",
        )
    return CheckpointError(
        f"{files[0]}: made under another profile: {difference}",
        "Put back the profile that the run was started with; `cafe run` makes a new run of another. To do these stages "
        f"of this run anew, delete {names}.",
    )


def resume_file(run: RunDir, stage_id: str) -> Path:
    """Where a stage of epochs keeps what it goes on from while it is not finished."""
    return run.checkpoints / f"{stage_id}.resume.pt"


class Meter:
    """Means of per-example values, summed on the device and moved to the host once per logging interval."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Add the values (N,) of each name; N may differ between names and calls."""
        for name, value in values.items():
            total = value.detach().float().sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
            self._counts[name] = self._counts.get(name, 0) + len(value)

    def flush(self) -> dict[str, float]:
        """The means since the last flush, over all ranks: one transfer from the device."""
        sums, counts = self._totals()
        self._sums, self._counts = {}, {}
        return {name: total / counts[name] for name, total in sums.items()}

    def _totals(self) -> tuple[dict[str, float], dict[str, int]]:
        """Sums and counts over all ranks."""
        sums = torch.stack(list(self._sums.values())).tolist() if self._sums else []
        totals = distributed.totals(*sums, *self._counts.values())
        counts = (int(count) for count in totals[len(sums) :])
        return dict(zip(self._sums, totals, strict=False)), dict(zip(self._counts, counts, strict=True))

    def state(self) -> dict[str, Any]:
        """For resuming in the middle of an interval."""
        if distributed.world() == 1:
            return {"sums": dict(self._sums), "counts": dict(self._counts)}
        sums, counts = self._totals()
        return {"sums": {name: torch.tensor(total) for name, total in sums.items()}, "counts": counts}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """The inverse of `state`; rank 0 goes on with the sums of all."""
        own = int(distributed.first())
        self._sums = {name: value.to(device) * own for name, value in state["sums"].items()}
        self._counts = {name: count * own for name, count in state["counts"].items()}


class StageRun(ABC):
    """One stage while it runs. `done` counts finished steps; a stage that was stopped starts there again."""

    def __init__(self, context: Context, stage_id: str, total_steps: int) -> None:
        self.context = context
        self.id = stage_id
        self.total_steps = total_steps
        self.done = 0

    @abstractmethod
    def run(self) -> Iterator[Event]:
        """Do the work from `done` on."""

    @abstractmethod
    def save(self) -> None:
        """Write what is needed to go on from here. Raises DiskError."""

    @abstractmethod
    def clear(self) -> None:
        """Remove what was needed to go on, now that the stage is finished. Raises DiskError."""

    def scalars(self, values: dict[str, float], epoch: float) -> Scalars:
        """A record of curves at the current step."""
        return Scalars(
            stage=self.id, step=self.done, epoch=epoch, values={name: to_number(v) for name, v in values.items()}
        )


class EpochStage(StageRun):
    """A stage of epochs over the training images: the loop that training and the game share.

    Order, augmentation and attacks are functions of (seed, epoch, data index), so `done`, the meter and `state` are
    all it takes to go on exactly. A checkpoint is written as often as [checkpoint] says, and at the ends
    of epochs unless it would take longer than is worth it.
    """

    def __init__(self, context: Context, stage_id: str, epochs: int, batch_size: int) -> None:
        self.steps_per_epoch = batches(len(context.data.train), batch_size)
        super().__init__(context, stage_id, epochs * self.steps_per_epoch)
        self.epochs = epochs
        self.batch_size = batch_size
        self.log_every = max(1, round(self.steps_per_epoch / LOGS_PER_EPOCH))
        self.meter = Meter()
        self.global_batch = batch_size
        """Images of the batch at work on all ranks together; this one has its share of them."""
        self.ended = 0
        self.resume_file = resume_file(context.run, stage_id)
        self._saved, self._saving = time.monotonic(), 0.0

    def run(self) -> Iterator[Event]:
        """Go on from `done` to the end."""
        data, compute, seed = self.context.data, self.context.compute, self.context.profile.seed
        while self.ended < self.epochs:
            epoch, images, since = self.ended, 0, time.perf_counter()
            order = epoch_order(len(data.train), seed, epoch, self.id, compute.device)
            first = self.done - epoch * self.steps_per_epoch
            global_batches = order.split(self.batch_size)[first : self.steps_per_epoch]
            shares = data.train.stream([self.share(rows) for rows in global_batches], compute)
            for rows, batch in zip(global_batches, shares, strict=True):
                self.global_batch = len(rows)
                if self.context.profile.data.augment:
                    border = data.mean if self.context.profile.data.border == "mean" else None
                    flip, drawing = data.facts.flip, self.drawing(epoch)
                    batch = augment(batch, flip=flip, seed=seed, epoch=drawing, border=border)
                logging = (self.done % self.steps_per_epoch + 1) % self.log_every == 0
                # dropout draws from torch's generator, anew in every step and on every rank
                torch.manual_seed(seed + self.done + DROPOUT_STRIDE * distributed.rank())
                self.meter.add(self.step(batch, epoch, logging))
                self._share_statistics()
                self.done += 1
                images += len(rows)
                if logging:
                    values = self.meter.flush() | self.rates()
                    speed = images / (time.perf_counter() - since)
                    yield self.scalars(values | {"images_per_second": speed}, self.done / self.steps_per_epoch)
                    images, since = 0, time.perf_counter()
                yield Step(self.done)
                if self.done % self.steps_per_epoch and self._due():
                    self.save()
            yield from self.end_epoch(epoch)
            self.ended += 1
            if self.ended == self.epochs or self._due() or distributed.of_first(self._worth_saving):
                self.save()
        yield from self.finish()

    def _due(self) -> bool:
        """Whether it is time for a checkpoint, by what the profile says."""
        wanted = self.context.profile.checkpoint
        if wanted.every_steps is not None and self.done % wanted.every_steps == 0:
            return True
        return distributed.anywhere(time.monotonic() - self._saved >= 60 * wanted.every_minutes)

    def _worth_saving(self) -> bool:
        """Whether a checkpoint at the end of an epoch takes no more than its share of the time since the last one."""
        return self._saving <= SAVING_SHARE * (time.monotonic() - self._saved)

    @property
    def epoch_share(self) -> float:
        """Of the epoch's steps, what is behind (0-1); 0 between epochs."""
        return self.done % self.steps_per_epoch / self.steps_per_epoch

    @abstractmethod
    def step(self, batch: Batch, epoch: int, logging: bool) -> dict[str, Tensor]:
        """One optimiser step; per-example values (N,) to be shown, some of them perhaps only when `logging`."""

    def drawing(self, epoch: int) -> int:
        """The epoch whose augmentation is used in `epoch`."""
        return epoch

    def rates(self) -> dict[str, float]:
        """Numbers that the host knows, shown beside the means."""
        return {}

    def share(self, rows: Tensor) -> Tensor:
        """What this rank takes of a batch: some of its rows (N,)."""
        return distributed.share(rows)

    def descend(self, loss: Tensor, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
        """One step down the mean over the whole batch of the losses (N,) of this rank's share."""
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss.sum() / self.global_batch).backward()
        weights = (weight for group in optimizer.param_groups for weight in group["params"])
        distributed.sum_up([weight.grad for weight in weights if weight.grad is not None])
        scaler.step(optimizer)

    def _share_statistics(self) -> None:
        """Where each rank's BatchNorm knows its own images alone, its running statistics are the mean of all ranks'."""
        if distributed.world() == 1 or self.context.profile.compute.sync_bn:
            return
        networks = [part for part in self.parts().values() if isinstance(part, nn.Module)]
        running = [value for part in networks for value in part.buffers() if value.is_floating_point()]
        distributed.sum_up(running)
        for value in running:
            value /= distributed.world()

    def synchronised(self, network: Network) -> Network:
        """A network to be trained, with its BatchNorm over all ranks if the profile says so."""
        return synchronised(network) if self.context.profile.compute.sync_bn else network

    @abstractmethod
    def end_epoch(self, epoch: int) -> Iterator[Event]:
        """Measure on the held-out images."""

    @abstractmethod
    def finish(self) -> Iterator[Event]:
        """After the last epoch."""

    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """Everything with a `state_dict` that the stage changes, by name."""

    def state(self) -> dict[str, Any]:
        """Tensors and numbers that, with `done` and the meter, are all the stage knows."""
        return {name: part.state_dict() for name, part in self.parts().items()}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        for name, part in self.parts().items():
            part.load_state_dict(state[name])

    @abstractmethod
    def save_weights(self, label: str = "last") -> CheckpointWritten:
        """Write the weights as they are, as `last` or `best`."""

    def save(self) -> None:
        """Weights and resume state of this moment."""
        since = time.monotonic()
        self.save_weights()
        checkpoints.save_resume(
            self.resume_file,
            {
                "settings": self.context.settings(self.id),
                "done": self.done,
                "ended": self.ended,
                "meter": self.meter.state(),
                "state": self.state(),
            },
        )
        self._saved = time.monotonic()
        self._saving = self._saved - since

    def clear(self) -> None:
        """The weights stay."""
        checkpoints.remove_resume(self.resume_file)

    def resume(self) -> list[WarningNote]:
        """Go back to the newest checkpoint that is whole, if there is one, and tell of those that are damaged.

        Raises CheckpointError when it was written under another profile or none is whole, DiskError when one cannot be
        read.
        """
        saved, damaged = distributed.of_first(partial(checkpoints.load_resume, self.resume_file))
        if saved is not None:
            files = [self.resume_file, checkpoints.before(self.resume_file)]
            if difference := changed(saved.get("settings", {}), self.context.settings(self.id)):
                raise another_profile(files, difference)
            try:
                self.restore(saved["state"])
                self.meter.restore(saved["meter"], self.context.compute.device)
                self.done, self.ended = int(saved["done"]), int(saved["ended"])
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                if out_of_memory(error):
                    raise
                raise another_profile(files, str(error).splitlines()[0]) from None
        if not damaged:
            return []
        names = " and ".join(file.name for file in damaged)
        text = f"{self.id}: {names} damaged; the stage goes on from the one before it, after step {self.done}"
        return [WarningNote(stage=self.id, text=text)]

    def facts(self, label: str, **more: Any) -> dict[str, Any]:
        """Metadata of the stage's checkpoint; `finished` tells a later engine that there is nothing left to do."""
        finished = label == "last" and self.ended == self.epochs
        made_under = self.context.settings(self.id)
        return self.context.facts(
            stage=self.id, step=self.done, label=label, finished=finished, settings=made_under, **more
        )

    def checkpoint_record(self, path: Path, label: str) -> CheckpointWritten:
        """The record of a checkpoint just written."""
        return CheckpointWritten(
            stage=self.id, path=str(path.relative_to(self.context.run.path)), step=self.done, label=label
        )
