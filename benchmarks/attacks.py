"""Attacks against torchattacks: the same robust accuracy, and how much sooner.

Agreement: each attack on the quickstart's adversarially trained network and on `small` trained on mnist5k, with the
same budget and random starts on both sides, example by example. Speed: the table clean, fgsm, pgd, cw, apgd-ce,
apgd-dlr, aa of these networks and of a robust VGG-16 on images of 3x32x32; where the full budget would take over ten
minutes it is cut on both sides and the row says to what. A step of an attack is held against a bare forward and
backward pass of the same fused network. `--quick` has small budgets and leaves out what needs minutes of training.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
import peers
import psutil
import torch
import torch.nn.functional as F
from common import REPEATS, Row, in_turn, main
from msgspec import structs
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from engine import data, keyed_random, process
from engine.attacks import ATTACKS
from engine.attacks.balls import Ball
from engine.attacks.clean import answer_clean
from engine.attacks.loop import attacked, input_gradient
from engine.attacks.pgd import against_labels
from engine.attacks.queries import Effort, Oracle, Oracles, exact_oracle, searching_oracles
from engine.attacks.scheduler import LiveExamples
from engine.attacks.search import Search
from engine.attacks.setting import Setting
from engine.attacks.tally import Tally
from engine.checkpoints import own as checkpoints
from engine.contract.plan import parts
from engine.contract.profile import files as profiles
from engine.contract.profile.schema import Data, Evaluate
from engine.contract.run import rundir
from engine.data import Images
from engine.device import Compute, emulates
from engine.models import build
from engine.models.base import Inputs
from engine.models.folding import folded

CPU = Compute(torch.device("cpu"))
EXCESS = 0.2
"""Points by which our robust accuracy may lie above the peer's."""
AGREEMENT = 99.0
"""Percent of examples on which apgd-ce, apgd-t and fab-t must agree with the peer."""
COLUMNS = ("fgsm", "pgd", "cw", "apgd-ce", "apgd-dlr", "aa")
"""Of the table, after clean, which every evaluation begins with."""
OVERHEAD = 1.10
"""A step of an attack against a bare forward and backward pass."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """A trained network with the images and budgets that it is attacked with, `batch` at once on both sides."""

    name: str
    model: nn.Module
    images: Images
    eps: float
    stage: Evaluate
    batch: int

    @property
    def x(self) -> Tensor:
        """All images (N,C,H,W) in [0,1]."""
        images = self.images.images
        return images.float() / 255 if images.dtype == torch.uint8 else images


def weights_file(tables: dict[str, object]) -> Path:
    """Where the network of a profile is kept from one run of the benchmark to the next."""
    name = hashlib.sha256(repr(tables).encode()).hexdigest()[:16]
    return peers.cache_folder() / "networks" / f"{name}.safetensors"


def trained(tables: dict[str, object]) -> nn.Module:
    """The network that the one training stage of a profile makes, in eval mode."""
    path = weights_file(tables)
    if not path.exists():
        threads = torch.get_num_threads()
        with tempfile.TemporaryDirectory() as folder:
            profile = profiles.from_tables({"name": "benchmark", **tables})
            run = rundir.create(Path(folder), "benchmark", profiles.dumps(profile))
            with redirect_stderr(io.StringIO()):  # the engine's log
                failed = process.run(run)
            if failed:
                raise SystemExit(f"the network of the benchmark could not be trained: {run.state().error}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((run.checkpoints / "train.best.safetensors").read_bytes())
        torch.set_num_threads(threads)  # training may have asked for another number
    facts = checkpoints.read_facts(path)
    mean, std = tuple(facts["mean"]), tuple(facts["std"])
    inputs = Inputs(facts["classes"], facts["channels"], facts["size"], mean, std)
    model = build(facts["model"], inputs, seed=0)
    checkpoints.load_weights(path, {"classifier": model})
    return model.requires_grad_(False).eval()


def digits(stage: Evaluate) -> Case:
    """The quickstart's network on all 585 images that it was not trained on."""
    train = {"kind": "train", "defence": "adv", "epochs": 15, "batch_size": 64}
    tables: dict[str, object] = {"threat": {"eps": 0.15}, "compute": {"threads": 1}, "stage": [train]}
    loaded = data.load(Data(), seed=0, compute=CPU)
    test, held = loaded.test, loaded.validation
    both = Images(
        torch.cat([test.images, held.images]),
        torch.cat([test.labels, held.labels]),
        torch.cat([test.index, held.index + 1000]),
    )
    return Case("digits", trained(tables), both, 0.15, stage, 128)


def mnist(stage: Evaluate) -> Case:
    """`small` on the first 500 test images of mnist5k."""
    train = {"kind": "train", "defence": "adv", "epochs": 6, "batch_size": 64, "adversary": {"steps": 5}}
    tables: dict[str, object] = {"data": {"name": "mnist5k"}, "threat": {"eps": 0.2}, "stage": [train]}
    loaded = data.load(Data(name="mnist5k"), seed=0, compute=CPU)
    return Case("mnist5k", trained(tables), loaded.test.first(500), 0.2, stage, 128)


def enlarged(images: Tensor) -> Tensor:
    """Digits (N,1,8,8) uint8 as fp32 images (N,3,32,32) in [0,1]."""
    return F.interpolate(images.float() / 255, size=32, mode="bilinear").expand(-1, 3, -1, -1).contiguous()


def vgg(stage: Evaluate) -> Case:
    """VGG-16 trained with FGSM on the digits, enlarged to 3x32x32."""
    eps, loaded = 0.1, data.load(Data(), seed=0, compute=CPU)
    model = build("vgg16", Inputs(10, 3, 32, (0.3,) * 3, (0.35,) * 3), seed=0)
    path = weights_file({"vgg16": eps})
    if not path.exists():
        x, y = enlarged(loaded.train.images), loaded.train.labels
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=2e-4)
        ball, order = Ball("linf", eps), torch.Generator().manual_seed(0)
        for _ in range(4):
            for rows in torch.randperm(len(x), generator=order).split(64)[:-1]:
                start = ball.project(x[rows] + eps * (2 * torch.rand(x[rows].shape, generator=order) - 1), x[rows])
                with attacked(model):
                    here = input_gradient(against_labels(model, y[rows], CPU), start)
                x_adv = ball.project(start + 1.25 * eps * here.gradient.sign(), x[rows])
                model.train()
                optimizer.zero_grad()
                F.cross_entropy(model(x_adv), y[rows]).backward()
                optimizer.step()
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoints.save_weights(path, {"classifier": model}, {})
    checkpoints.load_weights(path, {"classifier": model})
    few = loaded.test.first(64)
    images = Images(enlarged(few.images), few.labels, few.index)
    return Case("VGG-16", model.requires_grad_(False).eval(), images, eps, stage, 16)


def oracles_of(case: Case) -> tuple[Oracle, Oracle]:
    """The network as an evaluation would search it, in haste and precisely."""
    sample = next(case.images.batches(16, CPU))
    return searching_oracles(case.model, case.stage, CPU, sample)


def search_of(case: Case, name: str, seed: int = 0) -> Search:
    """An attack on the network of a case."""
    return ATTACKS[name].search(Setting(Ball("linf", case.eps), case.stage, seed, 10))


def ours(
    case: Case, name: str, oracles: tuple[Oracle, Oracle], alive: np.ndarray | None = None, seed: int = 0
) -> Tally:
    """The tally of our attack as in an evaluation, on examples that are `alive` if that is given."""
    search = search_of(case, name, seed)
    exact = exact_oracle(case.model, CPU)
    examples = answer_clean(exact, case.images, CPU, case.batch, case.stage.targets + 1)
    right = examples.clean.right
    tally = Tally.before(right if alive is None else right & alive, search.attempts)
    asked = Oracles(oracles[search.precise], exact)
    for _ in LiveExamples(search, asked, examples, tally, continuation=case.stage.continuation).run():
        pass
    return tally


def theirs(case: Case, seed: int = 0, draw: peers.Draw | None = None) -> dict[str, peers.Peer]:
    """The peer's attacks with the budgets of the case; their random starts by `draw` if that is given."""
    stage, eps = case.stage, case.eps
    return {
        "fgsm": peers.fgsm(eps),
        "pgd": peers.pgd(eps, stage.pgd_steps, draw),
        "cw": peers.cw(eps, stage.cw_steps),
        "apgd-ce": peers.apgd(eps, stage.apgd_steps, "ce", seed, draw=draw),
        "apgd-dlr": peers.apgd(eps, stage.apgd_steps, "dlr", seed, draw=draw),
        "apgd-t": peers.apgd_t(eps, stage.apgd_steps, stage.targets, seed, draw=draw),
        "fab-t": peers.fab_t(eps, stage.fab_steps, stage.targets),
        "square": peers.square(eps, stage.square_queries),
    }


def our_draw(case: Case, purpose: str) -> peers.Draw:
    """The numbers that our attacks draw for their starts: by image and attempt, whatever batch the image is in."""
    known = {image.numpy().tobytes(): index for image, index in zip(case.x, case.images.index.tolist(), strict=True)}

    def draw(images: Tensor, attempt: int) -> Tensor:
        index = torch.tensor([known[image.numpy().tobytes()] for image in images])
        key = keyed_random.keys(0, index, purpose, torch.full_like(index, attempt))
        return keyed_random.uniform(key, tuple(images.shape[1:]))

    return draw


def same(a: np.ndarray, b: np.ndarray) -> float:
    """Percent of examples with the same outcome."""
    return 100 * float(np.mean(a == b))


def agreement(case: Case) -> list[Row]:
    """Robust accuracy and single outcomes, attack by attack.

    Attacks with a random start begin where ours do on both sides: another start alone moves the robust accuracy by
    some tenths of a point, and one to three percent of the outcomes. For apgd-ce that is shown too, by how much the
    peer agrees with itself, and we with it, from starts of one's own. Both search in fp32; where the processor has
    instructions for bf16, what we find by it is shown beside the peer too.
    """
    rows, batch = [], case.batch
    exactly, briefly = (replace(case, stage=structs.replace(case.stage, precision=p)) for p in ("fp32", "bf16"))
    oracles = oracles_of(exactly)
    brief = None if emulates(CPU.device, torch.bfloat16) else oracles_of(briefly)

    def peer(attack: peers.Peer) -> np.ndarray:
        return peers.robust(case.model, attack, case.x, case.images.labels, batch).numpy()

    for name in theirs(case):
        drawn = our_draw(case, "pgd" if name == "pgd" else "apgd")
        mine, other = ours(exactly, name, oracles).robust, peer(theirs(case, draw=drawn)[name])
        accuracy = 100 * float(np.mean(other))
        title = f"{case.name} {name}{_budget(case.stage, name)}"
        limit = 1 + EXCESS / max(accuracy, EXCESS)
        rows.append(Row(f"{title}: robust accuracy", 100 * float(np.mean(mine)), accuracy, "%", limit))
        if brief and not search_of(case, name).precise:
            in_bf16 = 100 * float(np.mean(ours(briefly, name, brief).robust))
            rows.append(Row(f"{title}, searched in bf16: robust accuracy", in_bf16, accuracy, "%", limit))
        if name in ("apgd-ce", "apgd-t", "fab-t"):
            agreed = same(mine, other)
            rows.append(Row(f"{title}: same outcome, against the limit", agreed, AGREEMENT, "%", 1.0, "more"))
        if name == "apgd-ce":
            one, two = (peer(theirs(case, seed)[name]) for seed in (0, 1))
            agreed, itself = same(mine, one), same(one, two)
            own = "same outcome, other starts, against the peer with itself"
            rows.append(Row(f"{title}: {own}", agreed, itself, "%", 0.99, "more"))
    return rows


class Watched:
    """Counts the images that the peer asks a network about."""

    def __init__(self, model: nn.Module) -> None:
        self.images = 0
        self._handle = model.register_forward_hook(self._asked)

    def _asked(self, model: nn.Module, inputs: tuple[Tensor, ...], answer: Tensor) -> None:
        self.images += len(inputs[0])

    def stop(self) -> None:
        """No more."""
        self._handle.remove()


@dataclass
class Column:
    """What one column of a table took on both sides: seconds of each round, and what one round asked."""

    mine: list[float]
    theirs: list[float]
    effort: Effort
    asked_by_peer: int


def table(case: Case, target: float, repeats: int = REPEATS) -> list[Row]:
    """The seven columns as an evaluation makes them: what aa shares with a column is not made again.

    Column by column in turn, all of it several times; medians. The time is the product of two figures, shown for both
    sides: how many images the network was asked about (with a gradient or without), and how long one of them took.
    """
    attacks, y, oracles = theirs(case), case.images.labels, oracles_of(case)
    inside, watched = Timed(*oracles), Watched(case.model)
    columns: dict[str, Column] = {}
    for _ in range(repeats):
        survivors: dict[str, np.ndarray] = {}
        for name in COLUMNS:
            mine, other, effort = 0.0, 0.0, Effort()
            before = watched.images
            alive: np.ndarray | None = None
            standing: Tensor | None = None
            for part in parts(name):
                started = time.perf_counter()
                if part in survivors:  # a column of its own in this table
                    alive = survivors[part]
                else:
                    tally = ours(case, part, oracles, alive)
                    alive = tally.robust
                    effort.gradient_steps += tally.effort.gradient_steps
                    effort.forwards += tally.effort.forwards
                between = time.perf_counter()
                standing = peers.robust(case.model, attacks[part], case.x, y, case.batch, standing)
                mine, other = mine + between - started, other + time.perf_counter() - between
            assert alive is not None, "a column has parts"
            assert standing is not None, "a column has parts"
            survivors[name] = alive
            column = columns.setdefault(name, Column([], [], effort, 0))
            column.mine.append(mine)
            column.theirs.append(other)
            column.asked_by_peer = watched.images - before
    watched.stop()
    title, rows = f"{case.name}, {len(case.images)} examples", []
    for name, column in columns.items():
        words = f"{column.effort.gradient_steps:,} gradients and {column.effort.forwards:,} answers"
        peer_words = f"{column.asked_by_peer:,} of either by the peer"
        medians = median(column.mine), median(column.theirs)
        rows.append(Row(f"{title}: {name}{_budget(case.stage, name)}, {words}; {peer_words}", *medians, "s", 1.0))
    mine, other = (
        median(map(sum, zip(*rounds, strict=True)))
        for rounds in ([column.mine for column in columns.values()], [column.theirs for column in columns.values()])
    )
    gradients = sum(column.effort.gradient_steps for column in columns.values())
    answers = sum(column.effort.forwards for column in columns.values())
    asked, asked_by_peer = gradients + answers, sum(column.asked_by_peer for column in columns.values())
    everything = sum(sum(column.mine) for column in columns.values())
    return [
        Row(f"{title}: seven columns, median of {repeats}", mine, other, "s", 1 / target),
        *rows,
        Row(f"{title}: aa", 100 * float(alive.mean()), 100 * float(standing.float().mean()), "%", 1.02),
        Row(f"{title}: images asked about", asked, asked_by_peer, "", 1.0),
        Row(f"{title}: time for each", 1e6 * mine / asked, 1e6 * other / asked_by_peer, "us", 1.0),
        Row(f"{title}: of our time, in the searching network", inside.seconds, everything, "s", 1.0),
        Row(f"{title}: places of our batches that are filled", inside.examples, inside.places, "", 0.0, "more"),
        Row(
            f"{title}: seven columns at the speed of matrix products alone, against the peer",
            products(case, gradients, answers),
            other,
            "s",
            1 / target,
        ),
    ]


def products(case: Case, gradients: int, answers: int) -> float:
    """Seconds that this processor needs for the multiplications of so many gradients and answers of a network.

    In matrix products of the size at which it is fastest. Nothing that multiplies as the network is defined is faster.
    """
    x = case.x[: case.batch].clone().requires_grad_()
    with FlopCounterMode(display=False) as forward:
        z = case.model(x)
    with FlopCounterMode(display=False) as backward:
        torch.autograd.grad(z.sum(), x)
    once, slope = (counter.get_total_flops() / len(x) for counter in (forward, backward))
    side = 2048
    matrix = torch.randn(side, side)
    (taken,) = in_turn(lambda: matrix @ matrix)
    return (gradients * (once + slope) + answers * once) * taken / (2 * side**3)


class Timed:
    """Measures how long oracles take to answer, and how full their batches are, from now on."""

    def __init__(self, *oracles: Oracle) -> None:
        self.seconds, self.examples, self.places = 0.0, 0, 0
        for oracle in dict.fromkeys(oracles):
            oracle.logits = self._timed(oracle, oracle.logits)  # type: ignore[method-assign]
            oracle.slope = self._timed(oracle, oracle.slope)  # type: ignore[method-assign]

    def _timed(self, oracle: Oracle, work: Callable[Concatenate[Tensor, P], T]) -> Callable[Concatenate[Tensor, P], T]:
        def timed(x: Tensor, /, *arguments: P.args, **named: P.kwargs) -> T:
            started = time.perf_counter()
            answer = work(x, *arguments, **named)
            self.seconds += time.perf_counter() - started
            self.examples, self.places = self.examples + oracle.live, self.places + len(x)
            return answer

        return timed


def step(case: Case) -> Row:
    """One step of apgd-ce against a bare forward and backward pass of the fused network in the same shape."""
    batch = next(case.images.batches(case.batch, CPU))
    fused = folded(case.model, batch.x, channels_last=True)
    assert fused is not None, "these networks have BatchNorm"
    search = search_of(case, "apgd-ce")
    zeros = torch.zeros_like(batch.y)
    given = {"x": batch.x, "y": batch.y, "index": batch.index, "attempt": zeros, "ranking": zeros[:, None]}
    state, oracle = search.begin(given), Oracle(fused, CPU)

    def bare() -> None:
        x = batch.x.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(fused(x), batch.y, reduction="sum"), x)

    def attack() -> None:
        nonlocal state
        state = search.advance(state, oracle)

    for work in (bare, attack):
        work()
    taken, limit = in_turn(attack, bare, repeats=case.stage.apgd_steps)
    name = f"{case.name}: a step of apgd-ce, {case.batch} examples, median of {case.stage.apgd_steps}"
    return Row(name, taken * 1e3, limit * 1e3, "ms", OVERHEAD)


def memory(examples: int) -> Row:
    """Growth of the process over PGD on so many images of 3x32x32, once a tenth of them is behind."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (examples, 3, 32, 32), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        labels = model(pixels.float() / 255).argmax(1)
    case = Case("", model, Images(pixels, labels, torch.arange(examples)), 0.001, Evaluate(pgd_steps=3), 128)
    sizes: list[float] = []
    search = search_of(case, "pgd")
    exact = exact_oracle(model, CPU)
    subjects = answer_clean(exact, case.images, CPU, case.batch, 2)
    tally = Tally.before(subjects.clean.right, 1)
    for decided in LiveExamples(search, Oracles(exact, exact), subjects, tally).run():
        if decided >= examples // 10:
            sizes.append(psutil.Process().memory_info().rss / 1e6)
    return Row(f"memory grown by pgd on {examples:,} examples of 3x32x32", max(sizes) - sizes[0], 10.0, "MB", 1.0)


def _budget(stage: Evaluate, name: str) -> str:
    """The budget of one attack or of aa, as it follows on the name."""
    towards = f" to {stage.targets} classes"
    return {
        "pgd": f"-{stage.pgd_steps}",
        "cw": f"-{stage.cw_steps}",
        "apgd-ce": f"-{stage.apgd_steps}",
        "apgd-dlr": f"-{stage.apgd_steps}",
        "apgd-t": f"-{stage.apgd_steps}{towards}",
        "fab-t": f"-{stage.fab_steps}{towards}",
        "square": f"-{stage.square_queries}",
        "aa": f" of apgd-{stage.apgd_steps}, fab-{stage.fab_steps}{towards}, square-{stage.square_queries}",
    }.get(name, "")


SHORT = Evaluate(pgd_steps=10, cw_steps=20, apgd_steps=20, targets=3, fab_steps=20, square_queries=200)
CUT = Evaluate(targets=3, fab_steps=50, square_queries=500)
CUT_MORE = Evaluate(pgd_steps=20, cw_steps=20, apgd_steps=20, targets=2, fab_steps=10, square_queries=100)
"""Where the full budgets would take over ten minutes on two cores; the rows tell them."""

GROUPS: dict[str, Callable[[], list[Row]]] = {
    "agreement-digits": lambda: agreement(digits(Evaluate(square_queries=1000))),
    "agreement-mnist5k": lambda: agreement(mnist(CUT)),
    "speed-small": lambda: table(digits(Evaluate()), 3.0),
    "speed-vgg16": lambda: table(vgg(CUT_MORE), 4.0),
    "overhead": lambda: [step(digits(Evaluate())), step(mnist(Evaluate())), step(vgg(Evaluate(apgd_steps=15)))],
    "memory": lambda: [memory(10_000)],
}
"""What `--only` measures, on two idle cores: speeds within a quarter of an hour, the others in about five minutes."""


def measure(quick: bool) -> list[Row]:
    """All groups; or some of each, with small budgets and without what needs minutes of training."""
    if not quick:
        return [row for group in GROUPS.values() for row in group()]
    case = digits(SHORT)
    return [*agreement(case), *table(case, 3.0, repeats=1), step(case), memory(3_000)]


if __name__ == "__main__":
    main("attacks", measure, groups=GROUPS)
