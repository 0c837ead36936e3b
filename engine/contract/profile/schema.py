"""The profile as typed models: every key with its type, range, default and meaning in one place.

The text under `description` is what `cafe profile --schema`, editors and forms show. Keys whose default depends on
other keys are None here and filled by `profile.resolve`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property
from inspect import cleandoc
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, inspect

from engine.contract.profile.catalogue import (
    ATTACKS,
    CLEAN,
    DATA_FACTS,
    DATA_FORMS,
    DATA_SETS,
    DEFENCES,
    ENSEMBLES,
    HUGGING_FACE,
    MODEL_FORMS,
    MODELS,
    AttackName,
    DataFacts,
    DefenceName,
    Norm,
)
from engine.contract.profile.presets import Preset

FRACTION = {"fraction": True}
"""Marks a key that also accepts a fraction in quotes, such as "8/255"."""
_ABOVE_ZERO = r"(?=[0-9.]*[1-9])[0-9]+(\.[0-9]+)?"
FRACTION_PATTERN = rf"^\s*{_ABOVE_ZERO}\s*/\s*{_ABOVE_ZERO}\s*$"


def _texts(pattern: str, words: str, known: Sequence[str] = ()) -> Any:
    """A text that matches `pattern`, which `words` tell a reader; `known` are those that a typo may have meant."""
    return Meta(pattern=pattern, extra={"words": words, "known": known})


def _or_another(known: Sequence[str], others: Sequence[str]) -> str:
    return f"one of {', '.join(sorted(known))}, {' or '.join(others)}"


ModelText = Annotated[
    str,
    _texts(
        rf"^({'|'.join(MODELS)}|timm:[A-Za-z0-9_./-]+|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$",
        _or_another(tuple(MODELS), MODEL_FORMS),
        tuple(MODELS),
    ),
]
DataText = Annotated[
    str,
    _texts(
        rf"^({'|'.join(DATA_SETS)}|{HUGGING_FACE}\w[\w.-]*(/\w[\w.-]*)?)$",
        _or_another(tuple(DATA_SETS), DATA_FORMS),
        tuple(DATA_SETS),
    ),
]
DeviceText = Annotated[str, _texts(r"^(auto|cpu|cuda(:[0-9]+)?)$", "auto, cpu, cuda or cuda:N")]
DevicesText = Annotated[
    str,
    _texts(
        r"^(cpu:[1-9][0-9]{0,3}|[0-9]+(,[0-9]+)*)$",
        "GPUs by index, such as 0 or 0,1, or cpu:N for N processes on the CPU, such as cpu:2",
    ),
]
RunName = Annotated[
    str,
    _texts(
        r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$",
        "at most 60 characters: letters A-Z and a-z, digits, dot, dash, underscore; the first a letter or digit",
    ),
]
StageId = Annotated[
    str,
    _texts(
        r"^[a-z0-9][a-z0-9_-]{0,39}$",
        "at most 40 characters: letters a-z, digits, dash, underscore; the first a letter or digit",
    ),
]

FGSM_STEP = 1.25
"""Step of fgsm from a random start, in units of eps (Wong et al., ICLR 2020)."""

Count = Annotated[int, Meta(ge=1)]
Side = Annotated[int, Meta(ge=8, le=1024)]
"""Of a square image, in pixels."""
BatchSize = Annotated[int, Meta(ge=2)]
"""BatchNorm needs two images to learn a variance from."""
Radius = Annotated[float, Meta(gt=0, extra=FRACTION)]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(gt=0, lt=1)]
Momentum = Annotated[float, Meta(ge=0, lt=1)]
BankPlace = Literal["auto", "device", "host", "disk"]


def doc(text: str) -> Any:
    """Description of a key."""
    return Meta(description=text)


def _listed(names: Sequence[str]) -> str:
    """In a sentence: "one", "one and two", "one, two and three"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _with(key: str) -> str:
    """Those of which `key` is the budget."""
    return _listed([name for name, attack in ATTACKS.items() if key in attack.keys])


def _averaged() -> str:
    return _listed([name for name, ensemble in ENSEMBLES.items() if ensemble.averaged])


def _having(trait: str) -> str:
    """Those that have it."""
    return _listed([name for name, defence in DEFENCES.items() if getattr(defence, trait)])


def _betas() -> str:
    """The weights of the KL term, each with the defences that have it."""
    by_beta: dict[float, list[str]] = {}
    for name, defence in DEFENCES.items():
        if defence.beta is not None:
            by_beta.setdefault(defence.beta, []).append(name)
    return ", ".join(f"{beta:g} for {_listed(names)}" for beta, names in by_beta.items())


class _Section(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=False):
    pass


class Data(_Section, dict=True):
    """Which images."""

    name: Annotated[
        DataText,
        doc("the data set: one of ours, an image folder, or one of the Hugging Face hub"),
    ] = "digits"
    path: Annotated[
        str | None, doc("of folder and imagenet: where train/CLASS/PICTURE and test/CLASS/PICTURE (or val) are")
    ] = None
    size: Annotated[
        Side | None,
        doc("of folder, imagenet and hf: side of the images in pixels, to which the shorter side is brought"),
    ] = None
    flip: Annotated[
        bool | None,
        doc(
            "mirror half of the training images; default where that is known to keep the class, never for digits "
            "(but for svhn in the presets of the paper's code)"
        ),
    ] = None
    augment: Annotated[bool, doc("shift (and, where classes allow it, mirror) training images at random")] = True
    border: Annotated[
        Literal["black", "mean"],
        doc(
            "what comes in at the border of shifted training images: black, or their mean colour as in the paper's code"
        ),
    ] = "black"
    validation: Annotated[Share, doc("share of the training images held out to select checkpoints")] = 0.1
    residency: Annotated[
        Literal["auto", "device", "stream"],
        doc("where images are kept: all on the device, or on the host, read ahead; auto: what the device has room for"),
    ] = "auto"
    classes: Annotated[Count | None, doc("of folder and hf: default what is there")] = None
    channels: Annotated[Annotated[int, Meta(ge=1, le=3)] | None, doc("of folder and hf: default what is there")] = None
    train_images: Annotated[Count | None, doc("of folder and hf: default what is there")] = None
    test_images: Annotated[Count | None, doc("of folder and hf: default what is there")] = None
    config: Annotated[str | None, doc("of hf: the configuration, where the set has several")] = None
    image: Annotated[str | None, doc("of hf: the column of pictures, where there are several")] = None
    label: Annotated[
        str | None, doc("of hf: the column of classes, where there are several; classes, whole numbers or words")
    ] = None
    test: Annotated[
        str | None, doc("of hf: the part to test on; default the first with labels of test, validation, valid, val")
    ] = None

    @cached_property
    def facts(self) -> DataFacts:
        """Those of a resolved profile, which are looked up once and are no keys of it."""
        known = DATA_FACTS.get(self.name)
        if known is None:
            assert self.classes is not None, "the profile is not resolved"
            pool, test = self.train_images or 0, self.test_images or 0
            known = DataFacts(self.classes, self.channels or 0, self.size or 0, pool, test, flip=False)
        return replace(known, size=self.size or known.size, flip=known.flip if self.flip is None else self.flip)


class Model(_Section):
    """Which classifier."""

    name: Annotated[
        ModelText,
        doc("the network: one of ours, one of the library timm, or a function of your own that returns one"),
    ] = "small"
    checkpoint: Annotated[
        str | None,
        doc('file with trained weights, ours or a plain state dict; stages name that network "checkpoint"'),
    ] = None
    hypothesis: Annotated[
        str | None,
        doc(
            'file with the hypothesis model h of a game, ours or imported; an inoculation names it as game "checkpoint"'
        ),
    ] = None
    dropout: Annotated[Momentum, doc("dropout inside wide residual blocks")] = 0.0


class Threat(_Section):
    """What the adversary may do."""

    norm: Annotated[Norm, doc("the norm of the perturbation")] = "linf"
    eps: Annotated[Radius, doc("radius of the ball around the image, as a number or a fraction")] = 8 / 255
    eps_l2: Annotated[Radius | None, doc("radius for the attacks named -l2 when norm is linf")] = None


class Compute(_Section):
    """Where and how to compute."""

    device: Annotated[DeviceText, doc("the device of all stages; auto: a GPU if torch can use one, else the CPU")] = (
        "auto"
    )
    devices: Annotated[
        DevicesText | None,
        doc("several processes, one on each of these; default: one process, on `device`"),
    ] = None
    sync_bn: Annotated[
        bool, doc("BatchNorm looks at the images of all processes; without it each knows its share of the batch alone")
    ] = True
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"], doc("number format of the network; losses and images stay fp32")
    ] = "fp32"
    channels_last: Annotated[bool, doc("memory layout that convolutions often prefer")] = False
    threads: Annotated[Count | None, doc("CPU threads of a process; default: what torch chooses")] = None

    @property
    def places(self) -> list[str]:
        """The device of each process that `devices` asks for; one for None."""
        if self.devices is None:
            return [self.device]
        if self.devices.startswith("cpu:"):
            return ["cpu"] * int(self.devices.removeprefix("cpu:"))
        return [f"cuda:{int(index)}" for index in self.devices.split(",")]


class Checkpoint(_Section):
    """How often a stage keeps a state to go on from, besides when it is stopped and at the ends of epochs; but where
    that would take more than a twentieth of the time since the one before, an epoch ends without."""

    every_minutes: Annotated[Positive, doc("minutes of work that a killed run loses at most")] = 10.0
    every_steps: Annotated[Count | None, doc("optimiser steps that it loses at most; default: the minutes decide")] = (
        None
    )


class Adversary(_Section):
    """The attack inside training."""

    attack: Annotated[
        Literal["pgd", "fgsm", "mixed"],
        doc("pgd; fgsm from a random start; or mixed: pgd in the first steps of an epoch, then fgsm of 1.25 eps"),
    ] = "pgd"
    pgd_share: Annotated[Share, doc("of mixed: share of an epoch's steps that pgd makes")] = 0.3
    steps: Annotated[Count, doc("gradient steps of pgd")] = 10
    step_size: Annotated[
        Positive | None,
        doc("length of a step in units of eps; default 2.3/steps for pgd (also that of mixed), 1.25 for fgsm"),
    ] = None
    loss: Annotated[Literal["ce", "kl"], doc("cross-entropy, or KL to the clean prediction")] = "ce"


class _Stage(_Section):
    id: Annotated[StageId | None, doc("name of the stage in records and files; default its kind")] = None


class _Training(_Stage):
    epochs: Annotated[Count, doc("passes over the training images")] = 30
    batch_size: Annotated[BatchSize, doc("images a step")] = 128
    lr: Annotated[Positive, doc("highest learning rate of the triangular schedule")] = 0.1
    warmup_epochs: Annotated[NotNegative | None, doc("epochs in which the learning rate rises from 0")] = None
    momentum: Annotated[Momentum, doc("momentum of SGD")] = 0.9
    momentum_low: Annotated[
        Momentum | None,
        doc(
            "momentum at the highest learning rate, to which it falls and from which it rises again against the rate, "
            "as in the paper's code (0.8); default it stays as it is"
        ),
    ] = None
    weight_decay: Annotated[NotNegative, doc("L2 penalty of SGD")] = 2e-4
    beta: Annotated[NotNegative | None, doc(f"weight of the KL term; default {_betas()}")] = None
    awp_gamma: Annotated[
        NotNegative, doc(f"of {_having('awp')}: size of the weight perturbation, relative to a layer")
    ] = 0.01
    helper: Annotated[
        StageId | None,
        doc(f"of {_having('helper')}: stage with the standard network; default the latest that trains one"),
    ] = None
    adversary: Annotated[Adversary, doc("the attack inside training")] = msgspec.field(default_factory=Adversary)
    ema: Annotated[
        Share | None,
        doc(
            "decay of an exponential mean of the weights and statistics, such as 0.999 (smaller in the first steps), "
            "which is measured and kept instead of them"
        ),
    ] = None
    select: Annotated[
        Literal["best", "last"], doc("which checkpoint later stages use; best is chosen on held-out images")
    ] = "best"


class Train(_Training, tag_field="kind", tag="train"):
    """Standard or adversarial training."""

    defence: Annotated[DefenceName, doc("the loss")] = "adv"
    start: Annotated[StageId | None, doc("stage whose network to start from; default a new network")] = None
    resolution: Annotated[
        tuple[Side, Side] | None,
        doc("sides to which training images are brought, in the first epochs and in the last; default as they are"),
    ] = None
    ramp: Annotated[
        tuple[NotNegative, NotNegative] | None,
        doc("epochs between which resolution rises, in steps of 32 pixels; default 18 and 25"),
    ] = None


class Game(_Stage, tag_field="kind", tag="game"):
    """The zero-sum game between the hypothesis model h and the test function g."""

    base: Annotated[StageId | None, doc("training stage whose network is examined; default the latest")] = None
    epochs: Annotated[Count, doc("passes over the training images")] = 10
    batch_size: Annotated[BatchSize, doc("images a step")] = 128
    lr: Annotated[Positive, doc("learning rate of AdamW for h and g")] = 1e-4
    weight_decay: Annotated[NotNegative, doc("weight decay of AdamW")] = 1e-5
    betas: Annotated[tuple[Momentum, Momentum], doc("decay rates of AdamW")] = (0.9, 0.999)
    amsgrad: Annotated[bool, doc("the AMSGrad variant of AdamW")] = True
    lambda_: Annotated[NotNegative, doc("weight of the regulariser |g(Z) - Z|^2")] = msgspec.field(
        default=1.0, name="lambda"
    )
    adversary: Annotated[Adversary, doc("the attack that makes the instrument Z")] = msgspec.field(
        default_factory=Adversary
    )
    reuse_epochs: Annotated[
        Count, doc("epochs in which the features of one draw of the adversary are used; 1 attacks in every epoch")
    ] = 5
    views: Annotated[Count, doc("augmented views of each image in one draw, used in turn; at most reuse_epochs")] = 1
    bank: Annotated[
        BankPlace,
        doc("where reused features lie: device, host memory, or disk (a temporary file); auto: the first with room"),
    ] = "auto"
    statistics: Annotated[
        Literal["treatment", "both"],
        doc(
            "what the BatchNorm statistics of h, with which it is read, are of: g(Z) alone, or g(Z) and Z in equal "
            "parts as in the paper's code"
        ),
    ] = "treatment"
    regret_steps: Annotated[
        Annotated[int, Meta(ge=0)],
        doc("steps in which a copy of g is trained on after each epoch, to tell how far it is from its best answer"),
    ] = 5


class Inoculate(_Training, tag_field="kind", tag="inoculate"):
    """CAFE: a defence plus the KL to the network's answer on the causal inversion."""

    defence: Annotated[DefenceName, doc("the loss that inoculation is added to")] = "adv"
    game: Annotated[StageId | None, doc("game whose h is used; default the latest")] = None
    start: Annotated[StageId | None, doc("stage whose network to start from; default the base of the game")] = None
    epochs: Annotated[Count, doc("passes over the training images")] = 4
    batch_size: Annotated[BatchSize, doc("images a step")] = 64
    lr: Annotated[Positive, doc("highest learning rate of the triangular schedule")] = 1e-3
    weight: Annotated[NotNegative, doc("weight of the inoculation term")] = 1.0
    gamma: Annotated[
        Radius | None, doc("Linf radius of the causal inversion; default eps / 4 for linf, none for imagenet")
    ] = None
    features: Annotated[
        Literal["eval", "train"],
        doc(
            "mode of the network in which F_nat and F_adv are taken; h knows those of eval, the paper's code took train"
        ),
    ] = "eval"
    inversion_steps: Annotated[Count, doc("signed steps of the causal inversion")] = 10
    invert_perturbed: Annotated[
        bool,
        doc(
            f"of {_having('awp')}: Z and the inversion are taken at the perturbed weights, as in the paper's code; "
            "otherwise at the weights themselves"
        ),
    ] = False


class Evaluate(_Stage, tag_field="kind", tag="evaluate"):
    """A robust-accuracy table on the test images."""

    models: Annotated[
        Annotated[list[StageId], Meta(min_length=1)] | None,
        doc("stages whose networks are attacked, the base first; default all that train one"),
    ] = None
    attacks: Annotated[Annotated[list[AttackName], Meta(min_length=1)], doc("columns of the table")] = msgspec.field(
        default_factory=lambda: [CLEAN, "fgsm", "pgd"]
    )
    eps: Annotated[
        Annotated[list[Radius], Meta(min_length=1)] | None,
        doc("radii at which every attack is made, one column each; default the one of [threat]"),
    ] = None
    source: Annotated[
        StageId | None,
        doc("transfer: stage on whose network the attacks are crafted; default the network that is tested"),
    ] = None
    pgd_steps: Annotated[Count, doc(f"gradient steps of {_with('pgd_steps')}")] = 30
    pgd_restarts: Annotated[Count, doc(f"random starts of {_with('pgd_restarts')}")] = 1
    pgd_loss: Annotated[
        Literal["ce", "margin", "dlr", "kl"],
        doc(f"what {_with('pgd_loss')} maximises: cross-entropy, logit margin, DLR, or KL from the clean answer"),
    ] = "ce"
    cw_steps: Annotated[Count, doc(f"gradient steps of {_with('cw_steps')}")] = 100
    cw_random_start: Annotated[
        bool, doc(f"{_with('cw_random_start')} starts at a random point of the ball, not at the clean image")
    ] = False
    apgd_steps: Annotated[Count, doc(f"steps of {_with('apgd_steps')}")] = 100
    apgd_restarts: Annotated[Count, doc(f"random starts of {_with('apgd_restarts')}")] = 1
    apgd_dlr_restarts: Annotated[
        Count | None, doc(f"random starts of {_with('apgd_dlr_restarts')}; default apgd_restarts")
    ] = None
    targets: Annotated[
        Count, doc(f"classes that {_with('targets')} aim at, the likeliest first; at most all others")
    ] = 9
    fab_steps: Annotated[Count, doc(f"steps of {_with('fab_steps')} towards each class")] = 100
    square_queries: Annotated[Count, doc(f"questions of {_with('square_queries')} to the network")] = 5000
    eot: Annotated[Count, doc(f"gradients that {_averaged()} averages in each step")] = 20
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        doc(
            "number format in which attacks search; whatever it is, an example counts as broken only if the fp32 "
            "network says so; auto: bf16 (fp16 where it is lacking) on GPUs, bf16 on CPUs with AMX, fp32 on others"
        ),
    ] = "auto"
    continuation: Annotated[
        Annotated[float, Meta(ge=0, le=1)],
        doc(
            "share of the steps that are made in fp32 for what a search in bf16 or fp16 did not break: the last of "
            "pgd and cw, additional ones of the others; all of fgsm and fab-t are"
        ),
    ] = 0.1
    fold: Annotated[bool, doc("search with BatchNorm folded into the convolutions before it")] = True
    channels_last: Annotated[
        bool | None,
        doc("memory layout in which attacks search; default what [compute] says, but on for folded fp32 on a CPU"),
    ] = None
    compile: Annotated[bool, doc("search with the network compiled by torch, as CUDA graphs on a GPU")] = False
    checks: Annotated[bool, doc("look for signs that the numbers cannot be trusted, such as masked gradients")] = True
    batch_size: Annotated[Count, doc("compute shape: examples attacked at once, always so many")] = 128
    limit: Annotated[
        Count | None, doc("only so many test images, of all classes in turn and always the same; default all")
    ] = None
    samples: Annotated[Annotated[int, Meta(ge=0)], doc("test images to keep as pictures")] = 8


Stage = Train | Game | Inoculate | Evaluate
STAGES: dict[str, type[Train] | type[Game] | type[Inoculate] | type[Evaluate]] = {
    "train": Train,
    "game": Game,
    "inoculate": Inoculate,
    "evaluate": Evaluate,
}


class Profile(_Section, kw_only=True):
    """One experiment: what to train, attack, examine and measure."""

    name: Annotated[
        RunName,
        doc("short name, part of the run id"),
    ]
    preset: Annotated[
        Preset | None,
        doc(
            "named settings, which the profile's own keys override: standard, sound ones for each data set and "
            "network; paper-code, those of the code of the paper; or paper, those with what its text is quoted with"
        ),
    ] = None
    description: Annotated[str, doc("what the experiment is for, in one sentence")] = ""
    seed: Annotated[
        Annotated[int, Meta(ge=0, lt=2**31)], doc("seed of weights, data order, starts and augmentation")
    ] = 0
    data: Annotated[Data, doc("which images")] = msgspec.field(default_factory=Data)
    model: Annotated[Model, doc("which classifier")] = msgspec.field(default_factory=Model)
    threat: Annotated[Threat, doc("what the adversary may do")] = msgspec.field(default_factory=Threat)
    compute: Annotated[Compute, doc("where and how to compute")] = msgspec.field(default_factory=Compute)
    checkpoint: Annotated[Checkpoint, doc("how often a state to go on from is kept")] = msgspec.field(
        default_factory=Checkpoint
    )
    stage: Annotated[Annotated[list[Stage], Meta(min_length=1)], doc("what to do, in order")]


@cache
def keys() -> inspect.Type:
    """The keys of a profile with their types, which take 5 ms to find out, once."""
    return inspect.type_info(Profile)


def words(kind: inspect.Type) -> str:
    """What the text of a key, or each text of its list, may be; "" for a key that takes any text, or none."""
    while not isinstance(kind, inspect.StrType):
        if isinstance(kind, inspect.Metadata):
            if told := (kind.extra or {}).get("words"):
                return str(told)
            kind = kind.type
        elif isinstance(kind, inspect.UnionType):
            kind = kind.types[0]
        elif isinstance(kind, inspect.ListType):
            kind = kind.item_type
        else:
            break
    return ""


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a profile file, for editors.

    A file may also hold `extends` (another profile to start from), `set` (overrides by key path) and `sweep` (values
    of several runs); with `extends` the otherwise required keys may come from there. What depends on several keys, such
    as references between stages, only the loader can tell.
    """
    schema = msgspec.json.schema(Profile)
    for section in schema["$defs"].values():  # releases of msgspec differ in what they make of a docstring's margin
        if "description" in section:
            section["description"] = cleandoc(section["description"])
    profile = schema["$defs"]["Profile"]
    profile["anyOf"] = [{"required": profile.pop("required")}, {"required": ["extends"]}]
    profile["properties"]["extends"] = {
        "type": "string",
        "description": "profile to inherit from: a name or a path",
    }
    profile["properties"]["set"] = {
        "type": "object",
        "description": 'overrides after inheritance, by key path: { "stage.train.epochs" = 3 }',
    }
    profile["properties"]["sweep"] = {
        "type": "object",
        "description": "several runs: every combination of these values, each a list by key path, in every case",
        "minProperties": 1,
        "properties": {
            "case": {
                "type": "array",
                "description": "values that go together, by key path",
                "minItems": 1,
                "items": {"type": "object"},
            }
        },
        "additionalProperties": {"type": ["array", "object"], "minItems": 1, "minProperties": 1},
    }
    for kind in (Profile, Data, Model, Compute, *STAGES.values()):
        info = inspect.type_info(kind)
        assert isinstance(info, inspect.StructType)
        for field in info.fields:
            if told := words(field.type):
                schema["$defs"][kind.__name__]["properties"][field.encode_name]["description"] += f"; allowed: {told}"
    radii = (("Threat", "eps"), ("Threat", "eps_l2"), ("Inoculate", "gamma"))
    for section, key in radii:
        entry = schema["$defs"][section]["properties"][key]
        number = next((option for option in entry.get("anyOf", []) if option["type"] == "number"), entry)
        number["type"] = ["number", "string"]
        number["pattern"] = FRACTION_PATTERN
    several = next(option for option in schema["$defs"]["Evaluate"]["properties"]["eps"]["anyOf"] if "items" in option)
    several["items"] |= {"type": ["number", "string"], "pattern": FRACTION_PATTERN}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "cafe profile", **schema}


if __name__ == "__main__":
    print(msgspec.json.format(msgspec.json.encode(json_schema()), indent=2).decode())
