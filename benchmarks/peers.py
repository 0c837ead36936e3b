"""torchattacks, attack by attack, as the peer of the benchmark `attacks`.

Each function makes one attack with an explicit budget. Never its class AutoAttack, which since 3.3.0 runs its parts for
ten steps. It is installed into a cache of its own, without its requirements, which pin old versions of everything.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

VERSION = "3.5.1"
Peer = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""A model in eval mode, images (N,C,H,W) in [0,1] and labels (N,) to adversarial images."""
Draw = Callable[[Tensor, int], Tensor]
"""Clean images (N,C,H,W) and the number of the attempt to the uniform numbers in [0,1) of their random starts."""


def cache_folder() -> Path:
    """Where benchmarks keep what takes long to make."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cafe"


def torchattacks() -> Any:
    """The library, installed on first use. Raises SystemExit where there is no way to get it."""
    folder = cache_folder() / f"torchattacks-{VERSION}"
    if not (folder / "torchattacks").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        answer = subprocess.run([*command, f"torchattacks=={VERSION}"], capture_output=True, text=True, check=False)
        if answer.returncode:
            last = answer.stderr.strip().splitlines()[-1:]
            raise SystemExit(f"the peer torchattacks {VERSION} cannot be installed: {' '.join(last)}")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    for name in ("torchvision", "torchvision.transforms", "requests"):  # imported by it, used by none of these attacks
        sys.modules.setdefault(name, types.ModuleType(name))
    return importlib.import_module("torchattacks")


def fgsm(eps: float) -> Peer:
    """One signed step."""
    return lambda model, x, y: torchattacks().FGSM(model, eps=eps)(x, y)


def pgd(eps: float, steps: int, draw: Draw | None = None) -> Peer:
    """Signed steps of 2.3 eps / steps from a random start, of its own or by `draw`."""

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        made = torchattacks().PGD(model, eps=eps, alpha=2.3 * eps / steps, steps=steps)
        if draw is None:
            return made(x, y)
        with patch.object(torch.Tensor, "uniform_", lambda _, low, high: low + (high - low) * draw(x, 0)):
            return made(x, y)

    return attack


def cw(eps: float, steps: int) -> Peer:
    """Signed steps of 3 eps / steps up the logit margin from the clean image.

    torchattacks has no such attack (its CW is one of L2 with Adam): its PGD with the loss put in its place.
    """

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        made = torchattacks().PGD(model, eps=eps, alpha=3 * eps / steps, steps=steps, random_start=False)
        cross_entropy = nn.CrossEntropyLoss.forward

        def margin(_: nn.Module, z: Tensor, labels: Tensor) -> Tensor:
            others = z.scatter(1, labels[:, None], -torch.inf).amax(1)
            return (others - z.gather(1, labels[:, None])[:, 0]).sum()

        nn.CrossEntropyLoss.forward = margin  # type: ignore[method-assign,assignment]
        try:
            return made(x, y)
        finally:
            nn.CrossEntropyLoss.forward = cross_entropy  # type: ignore[method-assign]

    return attack


def apgd(eps: float, steps: int, loss: str, seed: int = 0, norm: str = "Linf", draw: Draw | None = None) -> Peer:
    """APGD-CE or APGD-DLR (`loss` is ce or dlr), one start, of its own or by `draw`."""

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        made = torchattacks().APGD(model, norm=norm, eps=eps, steps=steps, n_restarts=1, seed=seed, loss=loss)
        return _started(made, draw, lambda: 0)(x, y)

    return attack


def apgd_t(eps: float, steps: int, targets: int, seed: int = 0, norm: str = "Linf", draw: Draw | None = None) -> Peer:
    """APGD with the targeted DLR loss towards the `targets` likeliest classes, one start each, of its own or by
    `draw`."""

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        made = torchattacks().APGDT(model, norm=norm, eps=eps, steps=steps, seed=seed, n_classes=targets + 1)
        return _started(made, draw, lambda: made.target_class - 2)(x, y)

    return attack


def _started(attack: Any, draw: Draw | None, attempt: Callable[[], int]) -> Any:
    """The peer's APGD for linf, with the numbers that it draws for its start taken from `draw`."""
    if draw is not None:
        run = attack.attack_single_run

        def started(x: Tensor, y: Tensor) -> Any:
            with patch.object(torch, "rand", lambda _: draw(x, attempt())):
                return run(x, y)

        attack.attack_single_run = started
    return attack


def fab_t(eps: float, steps: int, targets: int, norm: str = "Linf") -> Peer:
    """Targeted FAB towards the `targets` likeliest classes."""
    return lambda model, x, y: torchattacks().FAB(
        model, norm=norm, eps=eps, steps=steps, n_classes=targets + 1, multi_targeted=True
    )(x, y)


def square(eps: float, queries: int, norm: str = "Linf") -> Peer:
    """Square with the authors' schedule of shares, not rescaled to the number of queries."""
    return lambda model, x, y: torchattacks().Square(
        model, norm=norm, eps=eps, n_queries=queries, n_restarts=1, p_init=0.8, loss="margin", resc_schedule=False
    )(x, y)


def robust(model: nn.Module, attack: Peer, x: Tensor, y: Tensor, batch: int, alive: Tensor | None = None) -> Tensor:
    """Which examples (N,) bool are right, were `alive`, and still are right under the attack, in batches."""
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in x.split(batch)]) == y
    right = right if alive is None else right & alive
    rows = right.nonzero()[:, 0]
    for part in rows.split(batch):
        x_adv = attack(model, x[part], y[part])
        with torch.no_grad():
            right[part] = model(x_adv).argmax(1) == y[part]
    return right
