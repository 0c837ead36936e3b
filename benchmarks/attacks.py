"""Attacks against torchattacks: the same robust accuracy, and how much sooner.

Agreement: each attack on the quickstart's adversarially trained network and on `small` trained on mnist5k, with the
same budget on both sides, example by example. Speed: the table clean, fgsm, pgd, cw, apgd-ce, apgd-dlr, aa of that
network and of a robust VGG-16 on images of 3x32x32; where the full budget would take over ten minutes it is cut on
both sides and the row says to what. A step of an attack is held against a bare forward and backward pass of the same
fused network. `--quick` has small budgets and leaves out what needs minutes of training.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import peers
import psutil
import torch
import torch.nn.functional as F
from common import Row, in_turn, main
from torch import Tensor, nn

from engine import checkpoints, data, process
from engine.attacks import ATTACKS, Setting
from engine.attacks.balls import Ball
from engine.attacks.live import Found, LiveExamples, answer_clean
from engine.attacks.loop import attacked, input_gradient
from engine.attacks.oracle import Oracle, exact_oracle, searching_oracle
from engine.attacks.pgd import against_labels
from engine.contract import profile as profiles
from engine.contract import rundir
from engine.contract.plan import parts
from engine.contract.schema import Evaluate
from engine.data import Images
from engine.device import Compute
from engine.models import build
from engine.models.folding import fold

CPU = Compute(torch.device("cpu"))
EXCESS = 0.2
"""Points by which our robust accuracy may lie above the peer's."""
AGREEMENT = 99.0
"""Percent of examples on which apgd-ce, apgd-t and fab-t must agree with the peer."""
SEEDS = 3
OVERHEAD = 1.10
"""A step of an attack against a bare forward and backward pass."""


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
        with tempfile.TemporaryDirectory() as folder:
            profile = profiles.from_tables({"name": "benchmark", **tables})
            run = rundir.create(Path(folder), "benchmark", profiles.dumps(profile))
            if process.run(run):
                raise SystemExit(f"the network of the benchmark could not be trained: {run.state().error}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((run.checkpoints / "train.best.safetensors").read_bytes())
    torch.set_num_threads(os.cpu_count() or 1)  # training may have asked for another number
    facts = checkpoints.read_facts(path)
    shape = {key: facts[key] for key in ("classes", "channels", "size", "mean", "std")}
    model = build(facts["model"], seed=0, **shape)
    checkpoints.load_weights(path, {"classifier": model})
    return model.requires_grad_(False).eval()


def digits(stage: Evaluate) -> Case:
    """The quickstart's network on all 585 images that it was not trained on."""
    train = {"kind": "train", "defence": "adv", "epochs": 15, "batch_size": 64}
    tables: dict[str, object] = {"threat": {"eps": 0.15}, "compute": {"threads": 1}, "stage": [train]}
    loaded = data.load("digits", validation=0.1, seed=0, compute=CPU)
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
    loaded = data.load("mnist5k", validation=0.1, seed=0, compute=CPU)
    return Case("mnist5k", trained(tables), loaded.test.first(500), 0.2, stage, 128)


def enlarged(images: Tensor) -> Tensor:
    """Digits (N,1,8,8) uint8 as fp32 images (N,3,32,32) in [0,1]."""
    return F.interpolate(images.float() / 255, size=32, mode="bilinear").expand(-1, 3, -1, -1).contiguous()


def vgg(stage: Evaluate) -> Case:
    """VGG-16 trained with FGSM on the digits, enlarged to 3x32x32."""
    eps, loaded = 0.1, data.load("digits", validation=0.1, seed=0, compute=CPU)
    model = build("vgg16", classes=10, channels=3, size=32, mean=[0.3] * 3, std=[0.35] * 3, seed=0)
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
    return Case("VGG-16", model.requires_grad_(False).eval(), images, eps, stage, 32)


def oracle_of(case: Case) -> Oracle:
    """The network as an evaluation would search it."""
    sample = next(case.images.batches(16, CPU))
    return searching_oracle(case.model, case.stage, CPU, sample)


def ours(case: Case, name: str, oracle: Oracle, alive: np.ndarray | None = None, seed: int = 0) -> Found:
    """What our attack finds, on examples that are `alive` if that is given."""
    search = ATTACKS[name].search(Setting(Ball("linf", case.eps), case.stage, seed, 10))
    exact = exact_oracle(case.model, CPU)
    clean = answer_clean(exact, case.images, CPU, case.batch, case.stage.targets + 1)
    robust = clean.right.copy() if alive is None else clean.right & alive
    found = Found(robust, np.zeros((len(robust), search.attempts), dtype=bool))
    for _ in LiveExamples(search, oracle, exact, case.images, clean, found, CPU, case.batch).run():
        pass
    return found


def theirs(case: Case) -> dict[str, Callable[[int], peers.Peer]]:
    """The peer's attacks with the budgets of the case, by seed."""
    stage, eps = case.stage, case.eps
    return {
        "fgsm": lambda seed: peers.fgsm(eps),
        "pgd": lambda seed: peers.pgd(eps, stage.pgd_steps),
        "cw": lambda seed: peers.cw(eps, stage.cw_steps),
        "apgd-ce": lambda seed: peers.apgd(eps, stage.apgd_steps, "ce", seed),
        "apgd-dlr": lambda seed: peers.apgd(eps, stage.apgd_steps, "dlr", seed),
        "apgd-t": lambda seed: peers.apgd_t(eps, stage.apgd_steps, stage.targets),
        "fab-t": lambda seed: peers.fab_t(eps, stage.fab_steps, stage.targets),
        "square": lambda seed: peers.square(eps, stage.square_queries),
    }


def agreement(case: Case) -> list[Row]:
    """Robust accuracy and single outcomes, attack by attack, with the time that each took on both sides.

    Attacks with one random start are made with SEEDS of them, and the means compared: another start alone moves the
    robust accuracy of either side by some tenths of a point, and one to two percent of the outcomes.
    """
    rows, oracle = [], oracle_of(case)
    for name, attack in theirs(case).items():
        mine, others, spent, found = [], [], [0.0, 0.0], None
        for seed in range(SEEDS if name in ("pgd", "apgd-ce", "apgd-dlr") else 1):
            torch.manual_seed(seed)
            started = time.perf_counter()
            found = ours(case, name, oracle, seed=seed)
            between = time.perf_counter()
            others.append(peers.robust(case.model, attack(seed), case.x, case.images.labels, case.batch).numpy())
            spent = [spent[0] + between - started, spent[1] + time.perf_counter() - between]
            mine.append(found.robust)
        assert found is not None, "there is a seed"
        ours_mean, theirs_mean = (100 * float(np.mean(side)) for side in (mine, others))
        title = f"{case.name} {name}"
        limit = 1 + EXCESS / max(theirs_mean, EXCESS)
        rows.append(Row(f"{title}: robust accuracy, mean of {len(mine)}", ours_mean, theirs_mean, "%", limit))
        if name in ("apgd-ce", "apgd-t", "fab-t"):
            same = 100 * float(np.mean([a == b for a, b in zip(mine, others, strict=True)]))
            rows.append(Row(f"{title}: same outcome, against the limit", same, AGREEMENT, "%", 1.0, "more"))
            if len(others) > 1:
                itself = 100 * float(np.mean([a == b for a, b in itertools.combinations(others, 2)]))
                rows.append(
                    Row(f"{title}: same outcome, against the peer with itself", same, itself, "%", 0.99, "more")
                )
        effort = f"{found.effort.gradient_steps:,} gradients, {found.effort.forwards:,} answers"
        rows.append(Row(f"{title}: time, {effort}", *spent, "s", 1.0))
    return rows


def table(case: Case, target: float, budget: str) -> list[Row]:
    """The seven columns, once, as an evaluation makes them: what aa shares with a column is not made again."""
    names = ("fgsm", "pgd", "cw", "apgd-ce", "apgd-dlr")
    asked = 0.0

    def asking(work: Callable[..., object]) -> Callable[..., object]:
        def timed(*arguments: object) -> object:
            nonlocal asked
            started = time.perf_counter()
            answer = work(*arguments)
            asked += time.perf_counter() - started
            return answer

        return timed

    started = time.perf_counter()
    oracle = oracle_of(case)
    oracle.logits, oracle.slope = asking(oracle.logits), asking(oracle.slope)  # type: ignore[method-assign,assignment]
    found = {name: ours(case, name, oracle) for name in names}
    alive = found["apgd-ce"].robust
    for name in parts("aa")[1:]:
        alive = ours(case, name, oracle, alive).robust
    mine = time.perf_counter() - started

    started = time.perf_counter()
    attacks, y = theirs(case), case.images.labels
    for name in names:
        peers.robust(case.model, attacks[name](0), case.x, y, case.batch)
    left: Tensor | None = None
    for name in parts("aa"):
        left = peers.robust(case.model, attacks[name](0), case.x, y, case.batch, left)
    other = time.perf_counter() - started
    assert left is not None, "aa has parts"
    title = f"{case.name}: seven columns, {len(y)} examples, {budget}"
    return [
        Row(f"{title}: time", mine, other, "s", 1 / target),
        Row(f"{title}: aa", 100 * alive.mean(), 100 * float(left.float().mean()), "%", 1.02),
        Row(f"{title}: of our time, asking the network", asked, mine, "s", 1.0),
    ]


def step(case: Case) -> Row:
    """One step of apgd-ce against a bare forward and backward pass of the fused network in the same shape."""
    batch = next(case.images.batches(case.batch, CPU))
    fused = fold(case.model)
    assert fused is not None, "these networks have BatchNorm"
    search = ATTACKS["apgd-ce"].search(Setting(Ball("linf", case.eps), case.stage, 0, 10))
    zeros = torch.zeros_like(batch.y)
    given = {"x": batch.x, "y": batch.y, "index": batch.index, "attempt": zeros, "ranking": zeros[:, None]}
    state, oracle = search.begin(given), Oracle(fused, CPU)

    def bare() -> None:
        x = batch.x.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(fused(x), batch.y, reduction="sum"), x)

    def attack() -> None:
        search.advance(state, oracle)

    for work in (bare, attack):
        work()
    taken, limit = in_turn(attack, bare, repeats=15)
    return Row(f"{case.name}: a step of apgd-ce, {case.batch} examples", taken * 1e3, limit * 1e3, "ms", OVERHEAD)


def memory(examples: int) -> Row:
    """Growth of the process over PGD on so many images of 3x32x32, once a tenth of them is behind."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (examples, 3, 32, 32), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        labels = model(pixels.float() / 255).argmax(1)
    case = Case("", model, Images(pixels, labels, torch.arange(examples)), 0.001, Evaluate(pgd_steps=3), 128)
    sizes: list[float] = []
    search = ATTACKS["pgd"].search(Setting(Ball("linf", case.eps), case.stage, 0, 10))
    exact = exact_oracle(model, CPU)
    clean = answer_clean(exact, case.images, CPU, case.batch, 2)
    found = Found(clean.right.copy(), np.zeros((examples, 1), dtype=bool))
    for decided in LiveExamples(search, exact, exact, case.images, clean, found, CPU, case.batch).run():
        if decided >= examples // 10:
            sizes.append(psutil.Process().memory_info().rss / 1e6)
    return Row(f"memory grown by pgd on {examples:,} examples of 3x32x32", max(sizes) - sizes[0], 10.0, "MB", 1.0)


SHORT = Evaluate(pgd_steps=10, cw_steps=20, apgd_steps=20, targets=3, fab_steps=20, square_queries=200)
CUT = Evaluate(targets=2, fab_steps=50, square_queries=300)
CUT_WORDS = "pgd-30, cw-100, apgd-100, 2 targets, fab-50, square-300"


def measure(quick: bool) -> list[Row]:
    """All rows."""
    with redirect_stderr(io.StringIO()):  # the log of training
        return _measure(quick)


def _measure(quick: bool) -> list[Row]:
    if quick:
        case = digits(SHORT)
        budget = "pgd-10, cw-20, apgd-20, 3 targets, fab-20, square-200"
        return [*agreement(case), *table(case, 3.0, budget), step(case), memory(3_000)]
    rows: list[Row] = []
    for make in (digits, mnist):
        rows += agreement(make(Evaluate(square_queries=1000)))
    case = digits(Evaluate())
    rows += [*table(case, 3.0, "pgd-30, cw-100, apgd-100, 9 targets, fab-100, square-5000"), step(case)]
    case = mnist(CUT)
    rows += [*table(case, 3.0, CUT_WORDS), step(case)]
    case = vgg(CUT)
    rows += [*table(case, 4.0, CUT_WORDS), step(case)]
    return [*rows, memory(10_000)]


if __name__ == "__main__":
    main("attacks", measure)
