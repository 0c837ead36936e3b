"""Classifiers. To add one: write its builder in a file of its family and add a row to MODELS."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial

from torch import nn

from engine.contract.profile.catalogue import SMALLEST_IMAGE, is_foreign
from engine.models.base import Classifier, Inputs, draw_classifier_weights, materialise
from engine.models.foreign import build_foreign
from engine.models.preact import preact_resnet18
from engine.models.resnet import resnet
from engine.models.small import small
from engine.models.vgg import vgg
from engine.models.wide import wide_resnet

MODELS: dict[str, Callable[..., Classifier]] = {
    "small": small,
    "vgg11": partial(vgg, depth=11),
    "vgg13": partial(vgg, depth=13),
    "vgg16": partial(vgg, depth=16),
    "vgg19": partial(vgg, depth=19),
    "resnet18": partial(resnet, depth=18),
    "resnet34": partial(resnet, depth=34),
    "resnet50": partial(resnet, depth=50),
    "preact-resnet18": preact_resnet18,
    "wrn-28-10": partial(wide_resnet, depth=28, widening=10),
    "wrn-34-10": partial(wide_resnet, depth=34, widening=10),
}
"""Name -> builder, called with `Inputs` and the options of the family. `build` draws the weights."""


def build(name: str, inputs: Inputs, *, seed: int, folder: str = "", **options: float) -> nn.Module:
    """The network `name` on the CPU, in train mode: a Classifier if it is one of ours.

    The constants of `inputs` become part of the state dict. The weights are a function of `seed` alone, and no global
    random state is read or changed. `options`: `dropout` in [0,1) for wide residual networks; `folder` is where a
    function of the user is looked for first. Raises ValueError.
    """
    if is_foreign(name):
        return build_foreign(name, inputs, seed, folder)
    if name not in MODELS:
        near = get_close_matches(name, MODELS, 1, 0.5)
        guess = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"model: found {name!r}; {guess}allowed: {', '.join(MODELS)}")
    smallest = SMALLEST_IMAGE.get(name, 8)
    if inputs.size < smallest:
        raise ValueError(f"size: found {inputs.size}; {name} needs images of at least {smallest}x{smallest}")
    return materialise(partial(MODELS[name], inputs, **options), seed, draw_classifier_weights)
