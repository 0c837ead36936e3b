"""Networks that are not ours: of the library timm, or returned by a function of the user."""

from __future__ import annotations

import importlib
import inspect
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType

import torch
from torch import Tensor, nn

from engine.contract.errors import UsageError
from engine.models.base import Inputs, Normalise


class Foreign(nn.Module):
    """A network without a cut: images (N,C,H,W) in [0,1] to logits (N,K), normalised first where it expects that."""

    def __init__(self, network: nn.Module, normalise: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Images (N,C,H,W), fp32 in [0,1], to logits (N,K)."""
        logits: Tensor = self.network(self.normalise(x))
        return logits


class Copy(nn.Module):
    """Images of its own for a network that may change them: ours are used again."""

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) as it is."""
        return x.clone()


def build_foreign(name: str, inputs: Inputs, seed: int, folder: str) -> nn.Module:
    """The network of `timm:NAME`, which gets images normalised by the data's statistics, or of `MODULE:FUNCTION`.

    A function of the user gets those of the arguments classes, channels and size that it names, and images in [0,1].
    Its module is looked for in `folder` first; what that imports in turn is looked for in the environment of cafe first
    and then in `folder`, so that a torch.py there is nobody's torch. Raises UsageError.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if name.startswith("timm:"):
            return Foreign(_timm(name.removeprefix("timm:"), inputs), Normalise(inputs.mean, inputs.std))
        return Foreign(_made_by_user(name, inputs, folder), Copy())


def _timm(name: str, inputs: Inputs) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise UsageError(
            f"model.name: timm:{name} needs the library timm, which does not import ({error})",
            "Install it with: pip install timm",
        ) from None
    try:
        network = timm.create_model(name, pretrained=False, num_classes=inputs.classes, in_chans=inputs.channels)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise UsageError(f"model.name: timm cannot make {name}: {error}", "timm.list_models() has the names.") from None
    return _checked(f"timm:{name}", network)


def _made_by_user(name: str, inputs: Inputs, folder: str) -> nn.Module:
    module_name, _, function_name = name.partition(":")
    try:
        module = _import_from(folder, module_name)
    except Exception as error:  # whatever the user's module does while it is imported
        raise UsageError(
            f"model.name: {module_name} cannot be imported: {type(error).__name__}: {error}",
            f"It is looked for in {folder or '.'} and in the environment of cafe.",
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UsageError(f"model.name: {module_name} has no function {function_name}")
    known = {"classes": inputs.classes, "num_classes": inputs.classes, "channels": inputs.channels, "size": inputs.size}
    try:
        wanted = inspect.signature(function).parameters
        made = function(**{key: value for key, value in known.items() if key in wanted})
    except Exception as error:  # whatever the user's function does
        raise UsageError(f"model.name: {name} failed: {type(error).__name__}: {error}") from error
    return _checked(name, made)


def _import_from(folder: str, name: str) -> ModuleType:
    """The module `name`, from `folder` where it is there. Raises ImportError, and whatever the module does."""
    if not folder:
        return importlib.import_module(name)
    if folder not in sys.path:
        sys.path.append(folder)  # at the end, where it hides nothing that is imported from now on
    top = name.partition(".")[0]
    spec = PathFinder.find_spec(top, [folder])
    if top not in sys.modules and spec and spec.loader:  # a folder without an __init__.py has no loader
        sys.modules[top] = module = module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[top]
            raise
    return importlib.import_module(name)


def _checked(name: str, made: object) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise UsageError(f"model.name: {name} returned {type(made).__name__}; needed: a torch.nn.Module")
    return made
