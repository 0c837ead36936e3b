"""Writes docs/profile.md, the reference of profile keys, from the schema, and the tables of names in README.md from the
catalogue: `make schema`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from engine.contract.profile import schema
from engine.contract.profile.catalogue import (
    ATTACK_NAMES,
    ATTACKS,
    DATA_FORMS,
    DATA_SETS,
    DEFENCES,
    ENSEMBLES,
    HUB,
    L2,
    MODELS,
)
from engine.contract.profile.checking import describe

HEADER = """# Profile keys

Made from `engine/contract/profile/schema.py` by `make schema`. Every key may be given in a profile, in the `[set]`
table of a profile that inherits, or on the command line as `--set KEY=VALUE`. `cafe profile NAME` shows all, with their
values. What the presets hold, and where `paper-code` differs from the published code, is [below](#presets).

A table `[sweep]` makes a profile stand for several runs. Its keys are key paths, each with a list of values, and every
combination of them is a run. Tables `[[sweep.case]]` hold values that go together; every combination is run in every
case. `--set 'sweep.seed=[0,1,2]'` runs any profile with three seeds. `cafe run NAME --dry-run` lists the runs and says
what they will cost.

```toml
[sweep]
seed = [0, 1, 2]

[[sweep.case]]
"data.name" = "digits"
"threat.eps" = 0.15

[[sweep.case]]
"data.name" = "mnist5k"
"threat.eps" = 0.2
```
"""
PRESETS = """## Presets

| | `standard` | `paper-code` | `paper` |
|:--|:--|:--|:--|
| from | us | the published code, read at its newest version | the same, with what the text of the paper is quoted with |
| eps of CIFAR-10, CIFAR-100, SVHN | 8/255 | 0.03 | 8/255 |
| step of PGD-10 in training | 2.3/10 eps = .0072 | 2.3/10 eps = .0069 | 2.3/10 eps = .0072 |
| adversarial training: epochs, rate | 30, 0.1 | 30, 0.1 | 120, 0.1 |
| a defence, with and without CAFE: epochs, rate | 4, .001 | 4, .001 | 120, 0.1 |
| momentum of SGD | 0.9 | 0.9 to 0.8 and back against the rate | as `paper-code` |
| augmentation | SVHN is not mirrored; the border is black | SVHN is mirrored; the border has the mean colour | as `paper-code` |
| dropout of wide networks | 0 | 0.3 | 0.3 |
| game: features of one draw | used in 5 epochs | drawn anew in each epoch | as `paper-code` |
| game: AMSGrad | on | off for Tiny-ImageNet and ImageNet | as `paper-code` |
| game: statistics of h | of g(Z) | of g(Z) and Z | as `paper-code` |
| inoculation: Z | in eval mode | in train mode | as `paper-code` |
| inoculation under awp and help | Z and inversion at the weights | at the perturbed weights | as `paper-code` |
| CW | from the clean image | from a random point | as `paper-code` |
| "AP" and "DLR" | APGD of 100 steps, one start | 30 steps; one start, and two for DLR | as `paper-code` |
| "AA" | AutoAttack in full, `aa` | APGD-CE and APGD-DLR, `aa-paper` | as `paper-code` |

Tiny-ImageNet has 4/255 and ImageNet 2/255 in all three, with the epochs and rates of the code.

`paper` is second-hand. Its eps, step, rate and 120 epochs are what a reader quotes from the paper in a question at the
repository of the code (ByungKwanLee/Causal-Adversarial-Instruments, issue 1) where the code has other defaults; which
stages the 120 epochs are for is our reading. The profiles of `profiles/paper` have `preset = "paper-code"`.

Where `paper-code` still differs from the published code, and why:

| published code | here | why |
|:--|:--|:--|
| the best checkpoint is chosen on the test images | on held-out training images | a number would be selected on what it measures; `data.validation` says how many |
| the first step has a rate of 0 | every step has a rate above 0 | that step is wasted |
| a partial last batch is dropped | it is used, but for a single image | every image counts |
| networks and attacks compute in fp16 | in `compute.precision`, attack arithmetic always in fp32 | points on the grid of fp16 leave the ball |
| each GPU sees every image | images are shared among devices | `batch_size` would depend on the number of devices |
| KL from probabilities | from log-softmax | no 0/0 |
| h and g: He initialisation reaches the linear layer alone | it reaches all layers | the code means to, but its loop does not enter the blocks |
| CW masks the true class by 0 and stops at a margin of 0 | by -inf, and an example ends where it is broken | wrong where all other logits are negative |
| APGD counts the first step as an increase | it is compared with the start | see `engine/attacks/apgd.py` |
| the mixed adversary reads a game, and judges a training, with one step | with PGD | one step sees no gradient masking |
| ImageNet is cropped at random and resized | shifted by up to an eighth, at a rising `resolution` | images are kept at one size |
| clean and adversarial features of an inoculation come from the passes of the loss | they have passes of their own | the passes are made twice; BatchNorm statistics see them twice |
"""  # noqa: E501
SECTIONS: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("(top)", schema.Profile),
    ("[data]", schema.Data),
    ("[model]", schema.Model),
    ("[threat]", schema.Threat),
    ("[compute]", schema.Compute),
    ("[checkpoint]", schema.Checkpoint),
    *((f'[[stage]] kind = "{name}"', kind) for name, kind in schema.STAGES.items()),
    ("[stage.adversary]", schema.Adversary),
)


def reference() -> str:
    """The page."""
    parts = [HEADER]
    for title, section in SECTIONS:
        info = inspect.type_info(section)
        assert isinstance(info, inspect.StructType)
        parts += [f"## `{title}`", "", cleandoc(section.__doc__ or ""), ""]
        parts += ["| key | allowed | default | meaning |", "|:--|:--|:--|:--|"]
        parts += [_row(field) for field in info.fields if not _is_section(field.type)]
        parts.append("")
    parts.append(PRESETS)
    return "\n".join(parts)


def _row(field: inspect.Field) -> str:
    allowed = describe(field.type).replace("|", "\\|")
    return f"| `{field.encode_name}` | {allowed} | {_default(field)} | {_meaning(field.type)} |"


def _is_section(kind: inspect.Type) -> bool:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.ListType):
        return _is_section(kind.item_type)
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return any(isinstance(option, inspect.StructType) for option in kinds)


def _meaning(kind: inspect.Type) -> str:
    while isinstance(kind, inspect.Metadata):
        if text := (kind.extra_json_schema or {}).get("description"):
            return str(text)
        kind = kind.type
    return ""


def _default(field: inspect.Field) -> str:
    value: Any = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is msgspec.NODEFAULT:
        return "needed"
    return "" if value is None else f"`{msgspec.json.encode(value).decode()}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Of Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _attacks() -> str:
    defaults = schema.Evaluate()
    rows = [(_both(name), attack.about, _budget(defaults, attack.keys)) for name, attack in ATTACKS.items()]
    for name, ensemble in ENSEMBLES.items():
        budget = f"those of its parts, `eot` = {defaults.eot}" if ensemble.averaged else "those of its parts"
        rows.append((_both(name), f"{ensemble.about}: {', '.join(ensemble.parts)} in turn on what is left", budget))
    return table(("attack", "what it is", "budget by default"), rows)


def _budget(defaults: schema.Evaluate, keys: Sequence[str]) -> str:
    """Keys with their values; those that follow others are left out."""
    values = ((key, getattr(defaults, key)) for key in keys)
    shown = ((key, str(value).lower() if isinstance(value, bool) else value) for key, value in values)
    return ", ".join(f"`{key}` = {value}" for key, value in shown if value is not None)


def _both(name: str) -> str:
    """The name of an attack, and that in an L2 ball if it has one."""
    return " ".join(f"`{one}`" for one in (name, name + L2) if one in ATTACK_NAMES)


def _defences() -> str:
    rows = [
        (f"`{name}`", defence.about, "" if defence.beta is None else f"{defence.beta:g}")
        for name, defence in DEFENCES.items()
    ]
    return table(("defence", "what it minimises", "`beta` by default"), rows)


def _models() -> str:
    rows = [
        (f"`{name}`", model.about, f"{model.smallest}x{model.smallest}", ", ".join(f"`{o}`" for o in model.options))
        for name, model in MODELS.items()
    ]
    return table(("`[model] name`", "what it is", "images of at least", "options"), rows)


def _data() -> str:
    rows = [(f"`{name}`", row.about, row.how) for name, row in DATA_SETS.items()]
    rows += [(f"`{form}`", HUB.about, HUB.how) for form in DATA_FORMS]
    return table(("`[data] name`", "what it is", "source"), rows)


TABLES = {"attacks": _attacks, "defences": _defences, "models": _models, "data": _data}


def readme(text: str) -> str:
    """A page with what lies between `<!-- KIND: made by make schema -->` and `<!-- end of KIND -->` made anew.

    Raises ValueError where a table has no place.
    """
    for kind, made in TABLES.items():
        begin, end = f"<!-- {kind}: made by make schema -->\n", f"\n<!-- end of {kind} -->"
        before, start, rest = text.partition(begin)
        _, stop, after = rest.partition(end)
        if not start or not stop:
            raise ValueError(f"there is no place for the table of {kind}")
        text = before + begin + made() + end + after
    return text


if __name__ == "__main__":
    docs = Path(__file__).resolve().parent
    (docs / "profile.md").write_text(reference(), encoding="utf-8")
    front = docs.parent / "README.md"
    front.write_text(readme(front.read_text(encoding="utf-8")), encoding="utf-8")
