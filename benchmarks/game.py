"""The instrumental-variable game against the way it was published, and its memory against the formula of docs/game.md.

The peer attacks in every epoch, differentiates the features and both players twice in a step, updates them tensor by
tensor, and reads seven numbers back in each step; it is written here from the description of the method. Both sides
start from the same weights and play the same number of epochs; afterwards both pairs of players are measured alike on
images that neither saw. The time is without measures on the way and checkpoints, which the peer does not make. VGG-16
plays on the digits, enlarged to 3x32x32. Its CF is chaotic: weights of the players moved by 1e-6 of their size at the
start moved it by 0 to 14 points after 20 steps (7.5 in double precision) and by 0.3 and 8.4 after 95; AC and CC by 0.9
at most. So the time is that of a few games, and the accuracies are those of many pairs of players, who meet features
that either side has made once: ours those of one draw, searched with folded BatchNorm, the peer's those of an attack in
each epoch. Their steps are the same; what the published code does twice in a step changes no number of it. The distance
of the means is told with its standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import attacks
import psutil
import torch
import torch.nn.functional as F
from common import Row, main, seconds
from torch import nn

from engine import data, keyed_random
from engine.checkpoints import own as checkpoints
from engine.contract.profile import files as profiles
from engine.contract.profile.schema import Data, Evaluate, Game
from engine.contract.run import rundir
from engine.data import Batch, Images
from engine.game.bank import FeatureBank, Features, bank_bytes
from engine.game.game import GameRun
from engine.models.treatment import build_treatment
from engine.stage import Context, Event

EPOCHS = 10
POINTS = 1.0
"""By which final accuracies may differ."""
READINGS = ("ac", "cf", "cc")


@contextmanager
def context_of(case: attacks.Case, model: str, train: int, steps: int) -> Iterator[Context]:
    """A game of `EPOCHS` epochs, one draw of the adversary for all, on the first `train` training images of a case."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "network.safetensors"
        checkpoints.save_weights(weights, {"classifier": case.model}, {})
        game = {
            "kind": "game",
            "base": "checkpoint",
            "epochs": EPOCHS,
            "reuse_epochs": EPOCHS,
            "adversary": {"steps": steps},
        }
        profile = profiles.from_tables(
            {
                "name": "game",
                "data": {"augment": False},
                "threat": {"eps": case.eps},
                "model": {"name": "small", "checkpoint": str(weights)},
                "stage": [game],
            }
        )
        profile.model.name = model  # the images are the digits, but enlarged: no data set of the catalogue
        run = rundir.create(Path(folder) / "runs", "game", profiles.dumps(profile))
        digits = data.load(Data(), seed=0, compute=attacks.CPU)
        size = case.x.shape[-1]
        splits = replace(
            digits,
            facts=replace(digits.facts, size=size, channels=case.x.shape[1]),
            mean=digits.mean * case.x.shape[1],
            std=digits.std * case.x.shape[1],
            train=_like(case, digits.train.first(train)),
            validation=_like(case, digits.validation),
            test=_like(case, digits.test),
        )
        yield Context(profile, run, attacks.CPU, splits)


def _like(case: attacks.Case, images: Images) -> Images:
    """Digits in the shape of the images of a case."""
    if case.x.shape[1:] == images.images.shape[1:]:
        return images
    return Images(attacks.enlarged(images.images), images.labels, images.index)


def _together(a: Images, b: Images) -> Images:
    """The images of both, those of `b` as if they were others than those of `a`."""
    return Images(
        torch.cat([a.images, b.images]), torch.cat([a.labels, b.labels]), torch.cat([a.index, b.index + len(a)])
    )


class Stock(nn.Module):
    """A player of the layers of torch alone, as the published code builds it."""

    def __init__(self, player: nn.Module) -> None:
        super().__init__()
        copy = deepcopy(player)
        self.encoder, self.linear, self.decoder = copy.encoder, copy.linear, copy.decoder
        for layers, kind in ((self.encoder, nn.Conv2d), (self.decoder, nn.ConvTranspose2d)):
            for i, layer in enumerate(layers):
                if isinstance(layer, kind):
                    layers[i] = kind(layer.in_channels, layer.out_channels, 3, padding=1)
                    layers[i].load_state_dict(layer.state_dict())

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        summary = F.leaky_relu(self.linear(self.encoder(w).mean((2, 3))), 0.2)
        return self.decoder(summary[:, :, None, None].expand(-1, -1, *w.shape[2:]))


def attacked_as_published(context: Context, model: nn.Module, batch: Batch, epoch: int) -> torch.Tensor:
    """x_adv (N,C,H,W) of a batch by the loop of the published code, from our random starts."""
    stage, ball = context.profile.stage[0], context.ball
    assert isinstance(stage, Game)
    assert stage.adversary.step_size is not None
    x, eps, size = batch.x, ball.eps, stage.adversary.step_size * ball.eps
    x_adv = ball.random_point(x, keyed_random.keys(context.profile.seed, batch.index, "training", epoch))
    for _ in range(stage.adversary.steps):
        x_adv = x_adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x_adv), batch.y), x_adv)
        x_adv = torch.min(torch.max(x_adv + size * gradient.sign(), x - eps), x + eps).clamp(0, 1).detach()
    return x_adv


def published(context: Context, model: nn.Module, epochs: int) -> tuple[nn.Module, nn.Module]:
    """h and g after the game as the published code plays it.

    In our order of the images and from our random starts, anew in each epoch: others alone move CF by several points.
    """
    stage = context.profile.stage[0]
    assert isinstance(stage, Game)
    h, g = map(Stock, context.treatments(model.feature_shape))
    options = {"lr": stage.lr, "weight_decay": stage.weight_decay, "amsgrad": True}
    optimizer_h, optimizer_g = (torch.optim.AdamW(player.parameters(), **options) for player in (h, g))
    train, seed = context.data.train, context.profile.seed
    model.eval()
    for epoch in range(epochs):
        order = data.epoch_order(len(train), seed, epoch, stage.id or "game", context.compute.device)
        for rows in order.split(stage.batch_size):
            batch = train.take(rows, context.compute)
            x, y = batch.x, batch.y
            x_adv = attacked_as_published(context, model, batch, epoch)
            for player, optimizer in (("g", optimizer_g), ("h", optimizer_h)):
                F_nat, F_adv = model.features(x), model.features(x_adv)
                Z = F_adv - F_nat
                treatment = g(Z)
                causal = h(treatment)
                omega_g = F.log_softmax(model.head(F_nat + treatment), 1)[torch.arange(len(y)), y]
                omega_h = F.log_softmax(model.head(F_nat + causal), 1)[torch.arange(len(y)), y]
                psi, distance = (omega_h * omega_g).mean(), F.mse_loss(treatment, Z)
                optimizer.zero_grad()
                (psi if player == "h" else distance - psi).backward()
                optimizer.step()
            h.eval()  # read in train mode, h(Z) would move the statistics of its BatchNorm: 1.4 to 2 points of CC
            with torch.no_grad():
                logits = [model.head(F_adv), *(model.head(F_nat + w) for w in (treatment, causal, h(Z)))]
                h.train()
                [(z.argmax(1) == y).float().mean().item() for z in logits]
                [value.item() for value in (psi, distance, Z.norm())]
    return h, g


class Bare(GameRun):
    """The game without what the peer does not do: measuring on held-out and test images, checkpoints to resume from."""

    def end_epoch(self, epoch: int) -> Iterator[Event]:
        return iter(())

    def finish(self) -> Iterator[Event]:
        return iter(())

    def save(self) -> None:
        pass


class Given(Bare):
    """Such a game on features that have been made: F_nat and F_adv (N,C,H,W) of all training images by epoch."""

    made: Sequence[Features]

    def _training_features(self, batch: Batch, epoch: int) -> Features:
        rows = torch.searchsorted(self.context.data.train.index, batch.index)
        F_nat, F_adv = (part[rows] for part in self.made[epoch % len(self.made)])
        return F_nat, F_adv


def play(case: attacks.Case, model: str, train: int, steps: int, target: float, seeds: int) -> Row:
    """Time of whole games on both sides, means over seeds."""
    with context_of(case, model, train, steps) as context:
        stage = context.profile.stage[0]
        assert isinstance(stage, Game)
        times = []
        for seed in range(seeds):
            context.profile.seed = seed
            game = Bare(context, stage)
            network = context.trained("checkpoint")
            mine = seconds(lambda: list(game.run()))  # noqa: B023  # called at once
            theirs = seconds(lambda: published(context, network, EPOCHS))  # noqa: B023
            times.append((mine, theirs))
            print(f"{case.name}, seed {seed}: {mine:.1f} and {theirs:.1f} s", file=sys.stderr)
    mine, theirs = map(mean, zip(*times, strict=True))
    title = f"{described(case, train, steps)}, {seeds} seed{'s' if seeds > 1 else ''}"
    return Row(f"{title}: seconds, against the game as published", mine, theirs, "s", target)


def described(case: attacks.Case, train: int, steps: int) -> str:
    """A game in words."""
    return f"{case.name}, {train} images, PGD-{steps}, {EPOCHS} epochs"


def accuracies(case: attacks.Case, model: str, train: int, steps: int, pairs: int) -> list[Row]:
    """Distances of the final accuracies on images that neither side saw, means over pairs of players."""
    apart = []
    with context_of(case, model, train, steps) as context:
        stage, unseen = context.profile.stage[0], _together(context.data.test, context.data.validation)
        assert isinstance(stage, Game)
        ours, network = Bare(context, stage), context.trained("checkpoint").eval()
        once = _of_all(context, lambda batch: ours.features(batch, 0))
        anew = [
            _of_all(context, lambda batch: _published_features(context, network, batch, epoch))  # noqa: B023
            for epoch in range(EPOCHS)
        ]
        seen = FeatureBank(unseen.index, 1, "host")
        for seed in range(pairs):
            context.profile.seed = seed
            readings = []
            for made in ([once], anew):
                game = Given(context, stage)
                game.made = made
                for _ in game.run():
                    pass
                readings.append(
                    game.measure(
                        unseen,
                        "",
                        lambda batch: seen.features(0, batch.index, lambda: ours._fixed(batch)),
                    )
                )
            apart.append([readings[0][f"accuracy_{name}"] - readings[1][f"accuracy_{name}"] for name in READINGS])
            summary = ", ".join(f"{name} {points:+.2f}" for name, points in zip(READINGS, apart[-1], strict=True))
            print(f"{case.name}, players {seed}: {summary}", file=sys.stderr)
    rows = []
    for name, distances in zip(READINGS, zip(*apart, strict=True), strict=True):
        error = f", standard error {stdev(distances) / pairs**0.5:.2g}" if pairs > 1 else ""
        title = f"{described(case, train, steps)}, {pairs} pairs of players: accuracy of {name.upper()}"
        rows.append(Row(f"{title}, distance from the peer's{error}", abs(mean(distances)), POINTS, "points", 1.0))
    return rows


def _of_all(context: Context, features: Callable[[Batch], Features]) -> Features:
    """F_nat and F_adv (N,C,H,W) of all training images, in their order."""
    made = [features(batch) for batch in context.data.train.batches(context.profile.stage[0].batch_size, attacks.CPU)]
    F_nat, F_adv = (torch.cat(parts) for parts in zip(*made, strict=True))
    return F_nat, F_adv


def _published_features(context: Context, model: nn.Module, batch: Batch, epoch: int) -> Features:
    x_adv = attacked_as_published(context, model, batch, epoch)
    with torch.no_grad():
        return model.features(batch.x), model.features(x_adv)


def memory(images: int, shape: tuple[int, int, int]) -> list[Row]:
    """What a filled bank and two players with their optimisers add to the process, against the formula."""
    _filled(1, shape)
    _players((8, 2, 2))  # the code that the first of each loads is no part of them
    before = _held()
    bank = _filled(images, shape)
    filled = _held()
    players = _players(shape)
    after = _held()
    predicted = 40 * sum(parameter.numel() for parameter in players[0][0].parameters())
    what = f"{images} images of {'x'.join(map(str, shape))}"
    title = f"memory of both players for {shape[0]} channels, against the formula"
    assert bank.nbytes == bank_bytes(images, 1, shape)
    return [
        Row(f"memory of a bank of {what}, against the formula", (filled - before) / 1e6, bank.nbytes / 1e6, "MB", 1.05),
        Row(title, (after - filled) / 1e6, predicted / 1e6, "MB", 1.05),
    ]


def _players(shape: tuple[int, int, int]) -> list[tuple[nn.Module, torch.optim.Optimizer]]:
    """h and g after a step, with what their optimisers know and their gradients."""
    players: list[tuple[nn.Module, torch.optim.Optimizer]] = []
    for seed in (1, 2):
        player = build_treatment(shape, seed=seed)
        optimizer = torch.optim.AdamW(player.parameters(), amsgrad=True, fused=True)
        for parameter in player.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        players.append((player, optimizer))
    return players


def _held() -> int:
    """Bytes of memory of this process, without what its allocator keeps for later."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def _filled(images: int, shape: tuple[int, int, int]) -> FeatureBank:
    index = torch.arange(images)
    bank = FeatureBank(index, 1, "host")
    for rows in index.split(1000):
        bank.features(0, rows, lambda rows=rows: (torch.ones(len(rows), *shape), torch.zeros(len(rows), *shape)))  # type: ignore[misc]
    return bank


def _digits() -> tuple[attacks.Case, str]:
    return attacks.digits(Evaluate()), "small"


def _vgg() -> tuple[attacks.Case, str]:
    return attacks.vgg(Evaluate()), "vgg16"


GROUPS: dict[str, Callable[[], list[Row]]] = {
    "memory": lambda: memory(45_000, (512, 2, 2)),
    "digits": lambda: [
        play(*_digits(), 1_212, 10, 1.0, seeds=5),
        *accuracies(*_digits(), 1_212, 10, pairs=20),
    ],
    "speed-vgg16": lambda: [play(*_vgg(), 256, 10, 1 / 8, seeds=3)],
    "accuracy-vgg16": lambda: accuracies(*_vgg(), 256, 10, pairs=60),
}
"""What `--only` measures, the last two in twenty minutes and in an hour on two idle cores."""


def measure(quick: bool) -> list[Row]:
    """All groups; or a short game, and the memory of less."""
    if not quick:
        return [row for group in GROUPS.values() for row in group()]
    few = (*_digits(), 400, 10)
    return [play(*few, 1.0, seeds=1), *accuracies(*few, pairs=1), *memory(4_500, (512, 2, 2))]


if __name__ == "__main__":
    main("game", measure, groups=GROUPS)
