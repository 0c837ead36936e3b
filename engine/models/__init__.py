"""Classifiers. To add one: write its builder in a file of its family, add a row to the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial

from torch import nn

from engine.contract.profile import catalogue
from engine.contract.profile.catalogue import is_foreign, smallest_image
from engine.models.base import Classifier, Inputs, draw_classifier_weights, materialise
from engine.models.foreign import build_foreign
from engine.registry import resolve

MODELS: dict[str, Callable[..., Classifier]] = {
    name: partial(resolve(model.builder), **model.arguments) for name, model in catalogue.MODELS.items()
}
"""Name -> builder, called with `Inputs` and the options of the family. `build` draws the weights."""


def build(name: str, inputs: Inputs, *, seed: int, folder: str = "", **options: float) -> nn.Module:
    """The network `name` on the CPU, in train mode: a Classifier if it is one of ours.

    The constants of `inputs` become part of the state dict. The weights are a function of `seed` alone, and no global
    random state is read or changed. `options` are those of its row: `dropout` in [0,1) of wide residual networks.
    `folder` is where a function of the user is looked for first. Raises ValueError.
    """
    if is_foreign(name):
        return build_foreign(name, inputs, seed, folder)
    if name not in MODELS:
        near = get_close_matches(name, MODELS, 1, 0.5)
        guess = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"model: found {name!r}; {guess}allowed: {', '.join(MODELS)}")
    smallest = smallest_image(name)
    if inputs.size < smallest:
        raise ValueError(f"size: found {inputs.size}; {name} needs images of at least {smallest}x{smallest}")
    return materialise(partial(MODELS[name], inputs, **options), seed, draw_classifier_weights)
