"""What can be named in a profile, known without torch.

The engine's registries hold the code; this list holds the names and the few facts that validation, cost
estimates and screens need. A test pins the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DataName = Literal["digits", "mnist5k", "cifar10", "cifar100", "svhn", "tiny-imagenet", "imagenet", "folder"]
HUGGING_FACE = "hf:"
DATA_FORMS = (f"{HUGGING_FACE}NAME",)
"""Data sets that are not ours: of the Hugging Face hub."""
ModelName = Literal[
    "small",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "resnet18",
    "resnet34",
    "resnet50",
    "preact-resnet18",
    "wrn-28-10",
    "wrn-34-10",
]
MODEL_FORMS = ("timm:NAME", "PACKAGE.MODULE:FUNCTION")
"""Networks that are not ours: of the library timm, or what a function of the user returns."""
DefenceName = Literal["standard", "adv", "fast", "trades", "mart", "awp", "help"]
BETAS = {"trades": 2.0, "mart": 3.0, "awp": 4.0, "help": 4.0}
"""Weight of the KL term by defence, as in the CAFE authors' code."""
AttackName = Literal[
    "clean",
    "fgsm",
    "pgd",
    "cw",
    "apgd-ce",
    "apgd-dlr",
    "apgd-t",
    "fab-t",
    "square",
    "aa",
    "aa-paper",
    "rand",
    "fgsm-l2",
    "pgd-l2",
    "apgd-ce-l2",
    "apgd-dlr-l2",
    "apgd-t-l2",
    "fab-t-l2",
    "square-l2",
    "aa-l2",
    "aa-paper-l2",
    "rand-l2",
]
Norm = Literal["linf", "l2"]


ENSEMBLES: dict[str, tuple[str, ...]] = {
    "aa": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "aa-paper": ("apgd-ce", "apgd-dlr"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
"""Attacks that are several in turn, each on what the ones before left (Croce and Hein, ICML 2020).

`aa` is AutoAttack's standard version, `aa-paper` what the CAFE authors' code runs under that name, `rand` AutoAttack's
version for networks whose answers are random. Names ending in -l2 have the same parts.
"""


TRANSFERABLE = ("clean", "fgsm", "pgd", "cw", "apgd-ce", "apgd-dlr", "apgd-t")
"""Attacks that can be crafted on one network and tried on another: those that climb a loss to the end."""
CHECKPOINT = "checkpoint"
"""What stages call the network of `[model] checkpoint`."""
NO_WEIGHTS = "-"
"""Stands for a checkpoint where the network comes with its weights: a function of the user that loads its own."""


@dataclass(frozen=True)
class DataFacts:
    """A data set: images `(channels, size, size)`, `pool` examples to train and validate on, `test` held apart."""

    classes: int
    channels: int
    size: int
    pool: int
    test: int
    flip: bool
    """Whether a mirrored image keeps its class (never for digits)."""


DATA_FACTS: dict[str, DataFacts] = {  # those of others stand in the resolved profile: `datasets.facts`
    "digits": DataFacts(classes=10, channels=1, size=8, pool=1347, test=450, flip=False),
    "mnist5k": DataFacts(classes=10, channels=1, size=28, pool=4000, test=1000, flip=False),
    "cifar10": DataFacts(classes=10, channels=3, size=32, pool=50_000, test=10_000, flip=True),
    "cifar100": DataFacts(classes=100, channels=3, size=32, pool=50_000, test=10_000, flip=True),
    "svhn": DataFacts(classes=10, channels=3, size=32, pool=73_257, test=26_032, flip=False),
    "tiny-imagenet": DataFacts(classes=200, channels=3, size=64, pool=100_000, test=10_000, flip=True),
    "imagenet": DataFacts(classes=1000, channels=3, size=224, pool=1_281_167, test=50_000, flip=True),
}

SMALLEST_IMAGE: dict[str, int] = {"vgg11": 32, "vgg13": 32, "vgg16": 32, "vgg19": 32}
"""Smallest image side of the networks that need more than 8 pixels: VGG halves the image five times."""


def is_foreign(model: str) -> bool:
    """Whether a network is not one of ours, so that it is not cut into features and head."""
    return ":" in model
