"""The zero-sum game of adversarial instrumental-variable regression: min over h, max over g (CAFE, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from engine import distributed
from engine.attacks.balls import per_image
from engine.attacks.loop import attacked
from engine.attacks.pgd import TrainingAttack
from engine.checkpoints import own as checkpoints
from engine.contract.plan import DIAGNOSED
from engine.contract.profile.schema import Game
from engine.contract.run.records import CheckpointWritten, WarningNote
from engine.data import Batch, Images, epoch_order
from engine.game import saddle
from engine.game.bank import FeatureBank, Features
from engine.game.moments import moment, omega, read_features, regulariser
from engine.models.folding import folded
from engine.stage import Context, EpochStage, Event, Meter

MEASURED = 512
"""Images measured at once."""


class GameRun(EpochStage):
    """A stage of kind game. The classifier is frozen and in eval mode throughout."""

    def __init__(self, context: Context, stage: Game) -> None:
        super().__init__(context, str(stage.id), stage.epochs, stage.batch_size)
        self.stage = stage
        self.model = context.trained(stage.base).requires_grad_(False).eval()
        sample = context.data.train.take(torch.arange(2, device=context.compute.device), context.compute)
        fast = folded(self.model, sample.x, channels_last=context.compute.prefers_channels_last)
        self.target = fast or self.model  # what the adversary climbs: it never changes either
        self.h, self.g = map(self.synchronised, context.treatments(self.model.feature_shape))
        self.optimizer_h, self.optimizer_g = (self._optimizer(network) for network in (self.h, self.g))
        self.scaler = context.compute.scaler()
        own = distributed.share(context.data.train.index)
        self.bank = FeatureBank(own, stage.views, stage.bank) if stage.reuse_epochs > 1 else None
        self.diagnosed = context.data.validation.subset(DIAGNOSED)
        self.held_out = FeatureBank(self._measured(context.data.validation.index), 1, stage.bank)
        self.drawn = -1  # the draw of the adversary whose features the bank holds
        self.readings: dict[str, float] = {}
        self.warned: set[str] = set()

    def _optimizer(self, network: nn.Module) -> torch.optim.AdamW:
        stage = self.stage
        return torch.optim.AdamW(
            network.parameters(),
            lr=stage.lr,
            betas=stage.betas,
            weight_decay=stage.weight_decay,
            amsgrad=stage.amsgrad,
            fused=True,  # the networks are large and the images few: elsewhere this is a third of a step
        )

    def _measured(self, index: Tensor) -> Tensor:
        """Of the held-out images `index` (M,) those that this rank sees: its share, and all of the diagnosis."""
        rows = torch.arange(len(index), device=index.device)
        return index[torch.isin(index, self.diagnosed.index) | (rows % distributed.world() == distributed.rank())]

    def drawing(self, epoch: int) -> int:
        """The epoch whose augmentation and starts of the adversary are used in `epoch`: with a bank, one before it."""
        since = epoch % self.stage.reuse_epochs
        return epoch - since + since % self.stage.views

    def share(self, rows: Tensor) -> Tensor:
        """With a bank an image is always the same rank's, which has its features then."""
        return super().share(rows) if self.bank is None else rows[rows % distributed.world() == distributed.rank()]

    def features(self, batch: Batch, epoch: int, share: float = 0.0) -> Features:
        """F_nat and F_adv (N,C,H,W) of a batch under the adversary of the stage, drawn anew for each `epoch`.

        A mixed adversary is what it is when `share` (0-1) of the epoch is behind.
        """
        context = self.context
        attack = TrainingAttack(self.stage.adversary, context.ball, context.compute, context.profile.seed)
        x_adv = attack(self.target, batch, epoch, share)
        with torch.no_grad(), context.compute.autocast():
            return self.model.features(batch.x), self.model.features(x_adv)

    def _training_features(self, batch: Batch, epoch: int) -> Features:
        """Those of the draw that `epoch` uses, from the bank where there is one."""
        drawing = self.drawing(epoch)
        if self.bank is None or not len(batch):  # a rank may have no share of a small batch
            return self.features(batch, drawing, self.epoch_share)
        draw, view = divmod(drawing, self.stage.reuse_epochs)
        if draw != self.drawn:
            self.bank.forget()
            self.drawn = draw

        def make() -> Features:  # in one compute shape, so that the bits do not depend on the company
            full = batch.padded(-(-self.batch_size // distributed.world()))
            F_nat, F_adv = self._features_again(full, drawing)
            return F_nat[: len(batch)], F_adv[: len(batch)]

        return self.bank.features(view, batch.index, make)

    def _features_again(self, batch: Batch, epoch: int) -> Features:
        """Those that the examples had, or have, in their turn of an epoch: a mixed adversary was pgd for the first."""
        adversary = self.stage.adversary
        if adversary.attack != "mixed":
            return self.features(batch, epoch)
        early = self._share_behind(epoch, batch.index) < adversary.pgd_share
        kinds = [share for share, some in ((0.0, early.any()), (1.0, (~early).any())) if some]
        made = [self.features(batch, epoch, share) for share in kinds]
        F_nat, F_adv = (torch.where(per_image(early, a), a, b) for a, b in zip(made[0], made[-1], strict=True))
        return F_nat, F_adv

    def _share_behind(self, epoch: int, index: Tensor) -> Tensor:
        """How much of an epoch (0-1) was behind when the examples `index` (N,) had their turn in it."""
        train, stage = self.context.data.train, self.id
        order = epoch_order(len(train), self.context.profile.seed, epoch, stage, index.device)
        turn = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=index.device))
        rows = torch.searchsorted(train.index, index)
        return (turn[rows] // self.batch_size) / self.steps_per_epoch

    def step(self, batch: Batch, epoch: int, logging: bool) -> dict[str, Tensor]:
        """One step of g up psi - lambda*regulariser, then one of h down psi, with g(Z) computed anew in between."""
        # The classifier is cut into features f_l and head f_l+. It never learns here, so that its features of N images
        # are data: for each, C channels at H x W positions.
        F_nat, F_adv = self._training_features(batch, epoch)  # f_l(x), f_l(x_adv)        (N,C,H,W) each
        Z = F_adv - F_nat  # the instrument: what the attack alone has changed            (N,C,H,W)
        shown = self._step_test_function(F_nat, Z, batch.y)  # max over g ...             (N,) each
        shown |= self._step_hypothesis(F_nat, Z, batch.y)  # ... then min over h          (N,)
        if logging:
            shown = self._readings(F_nat, F_adv, batch.y) | shown  # psi and regulariser as the step minimised them
        return shown

    def _step_test_function(self, F_nat: Tensor, Z: Tensor, y: Tensor) -> dict[str, Tensor]:
        """One step of g, for features F_nat and Z (N,C,H,W) and labels y (N,); what it saw, (N,) each."""
        self.h.requires_grad_(False)  # the gradient passes through h to g; one for the weights of h would be wasted
        with self.context.compute.autocast():
            treatment = self.g(Z)  # T' = g(Z), the worst-case counterfactual                         (N,C,H,W)
            omega_g = omega(self.model.head, F_nat, treatment)  # Omega(g(Z)): log softmax of CF      (N,K), fp32
            omega_h = omega(self.model.head, F_nat, self.h(treatment))  # Omega(h(g(Z))): of CC       (N,K), fp32
        self._show(Z)
        # Outside autocast, in fp32. psi is the product of two log-likelihoods of the true class, both at most 0: it is
        # large where neither CF nor CC answers right. The regulariser keeps g(Z) near Z, so that g cannot win by going
        # beyond what an attack does to the features.
        psi = moment(omega_h, omega_g, y)  # Omega(h(g(Z)))[y] * Omega(g(Z))[y]                       (N,)
        distance = regulariser(treatment, Z)  # mean over C,H,W of (g(Z) - Z)^2                       (N,)
        loss = self.stage.lambda_ * distance - psi  # to go down it is to go up psi - lambda*regulariser  (N,)
        self._update(self.optimizer_g, loss)
        self.h.requires_grad_(True)
        return {"psi": psi, "regulariser": distance, "test_function_loss": loss}

    def _step_hypothesis(self, F_nat: Tensor, Z: Tensor, y: Tensor) -> dict[str, Tensor]:
        """One step of h against g as it is after its own, for features (N,C,H,W) and labels (N,); its loss (N,)."""
        with self.context.compute.autocast():
            with torch.no_grad():  # for h, what g makes is given: no graph of g, and none of the head above it
                treatment = self.g(Z)  # anew, as g has moved: h answers the g it will be judged by   (N,C,H,W)
                omega_g = omega(self.model.head, F_nat, treatment)  # Omega(g(Z)): a weight for each example  (N,K)
            omega_h = omega(self.model.head, F_nat, self.h(treatment))  # Omega(h(g(Z))), which h raises      (N,K)
        self._show(Z)
        loss = moment(omega_h, omega_g, y)  # psi alone: the regulariser does not depend on h         (N,)
        self._update(self.optimizer_h, loss)
        return {"hypothesis_loss": loss}

    def _show(self, Z: Tensor) -> None:
        """Let the BatchNorm statistics of h see Z (N,C,H,W) as well as g(Z), where the stage says so."""
        if self.stage.statistics == "both":
            with torch.no_grad(), self.context.compute.autocast():
                self.h(Z)

    def _update(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """One step of a player down the mean of its losses (N,) over the images of all ranks."""
        self.descend(loss, optimizer, self.scaler)
        self.scaler.update()  # after either step, as the two players share one scale

    def _readings(self, F_nat: Tensor, F_adv: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The four accuracies and cross-entropies, psi, the regulariser and |Z|, with h and g in eval mode."""
        Z = F_adv - F_nat
        with attacked(self.h), attacked(self.g), torch.no_grad(), self.context.compute.autocast():
            treatment = self.g(Z)
            logits = read_features(self.model.head, self.h, F_nat, F_adv, Z, treatment)
        norm = Z.float().flatten(1).norm(dim=1)
        shown = {"psi": logits.psi(y), "regulariser": regulariser(treatment, Z), "variation_norm": norm}
        return logits.shown(y) | shown

    def _fixed(self, batch: Batch) -> Features:
        """F_nat and F_adv with fixed starts of the adversary."""
        return self.features(batch, epoch=-1)

    def _held_out_features(self, batch: Batch) -> Features:
        """The same for held-out images, made once."""
        return self.held_out.features(0, batch.index, lambda: self._fixed(batch))

    def measure(self, images: Images, prefix: str, features: Callable[[Batch], Features]) -> dict[str, float]:
        """The readings on images that were not trained on."""
        meter = Meter()
        for batch in images.share().batches(MEASURED, self.context.compute):
            meter.add(self._readings(*features(batch), batch.y))
        return {f"{prefix}{name}": value for name, value in meter.flush().items()}

    def _diagnosis(self) -> dict[str, float]:
        """How near the game is to its saddle point, on held-out images."""
        stage, play = self.stage, saddle.Play(self.model.head, self.h, self.g)
        parts = []
        for batch in self.diagnosed.batches(MEASURED, self.context.compute):
            F_nat, F_adv = self._held_out_features(batch)
            parts.append(saddle.HeldOut(F_nat, F_adv - F_nat, batch.y))
        held_out = saddle.HeldOut(*map(torch.cat, zip(*parts, strict=True)))
        with self.context.compute.autocast():
            values = saddle.shape_of_play(play, held_out)
        if stage.regret_steps and len(held_out.y) >= saddle.FEWEST:
            practice = saddle.Practice(self.optimizer_g, self.scaler, stage.regret_steps)
            values["regret"] = saddle.regret(play, practice, held_out, self.context.compute, stage.lambda_)
        return {f"val_{name}": value for name, value in values.items()}

    def end_epoch(self, epoch: int) -> Iterator[Event]:
        """The readings and the diagnosis on the held-out images."""
        values = self.measure(self.context.data.validation, "val_", self._held_out_features) | self._diagnosis()
        yield self.scalars(values, epoch + 1.0)
        for kind, text in saddle.alarms(values).items():
            if kind not in self.warned:
                self.warned.add(kind)
                yield WarningNote(stage=self.id, text=text)

    def finish(self) -> Iterator[Event]:
        """The readings on the test images, which select nothing (prefix `final_`), and the weights of h and g."""
        self.readings = self.measure(self.context.data.test, "final_", self._fixed)
        yield self.scalars(self.readings, float(self.epochs))
        yield self.save_weights()

    def save_weights(self, label: str = "last") -> CheckpointWritten:
        """Write h and g as they are."""
        path = self.context.weights_file(self.id, label)
        shape = list(self.model.feature_shape)
        facts = self.facts(label, base=self.stage.base, features=shape, readings=self.readings)
        checkpoints.save_weights(path, {"hypothesis": self.h, "test_function": self.g}, facts)
        return self.checkpoint_record(path, label)

    def parts(self) -> dict[str, Any]:
        """Both players with their optimisers, and the loss scaling."""
        return {
            "h": self.h,
            "g": self.g,
            "optimizer_h": self.optimizer_h,
            "optimizer_g": self.optimizer_g,
            "scaler": self.scaler,
        }

    def state(self) -> dict[str, Any]:
        """With the alarms that have been raised."""
        return super().state() | {"told": sorted(self.warned)}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        super().restore(state)
        self.warned = set(state["told"])
