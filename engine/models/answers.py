"""What a network answers, looked at before anything is asked of it in earnest: whoever wrote it is told in words."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.contract.errors import UsageError
from engine.oom import out_of_memory


def refuse_answer(model: nn.Module, x: Tensor, classes: int) -> None:
    """Ask about one image (1,C,H,W) and about two; raise UsageError where an answer is not logits (N, classes)."""
    shape = "x".join(map(str, x.shape[1:]))
    answers, failures = _answers(model, x)
    if 2 in failures:
        error = failures[min(failures)]
        raise UsageError(
            f"the network does not take {'two ' if 1 in answers else ''}images of {shape}: {_words(error)}",
            "It must take any number of images at once, as float32 (N,C,H,W) in [0,1]; a network that computes in "
            "another format converts them.",
        ) from error
    for asked, z in answers.items():
        if not isinstance(z, Tensor):
            raise UsageError(
                f"the network's forward returns a {type(z).__name__}; needed: one tensor of logits (N, {classes})",
                "Return the logits alone, or wrap the network in a module that does.",
            )
        if z.shape != (asked, classes):
            of_other_classes = z.ndim == 2 and len(z) == asked
            raise UsageError(
                f"the network answers with shape {tuple(z.shape)}; needed: logits of shape (N, {classes}), one for "
                "each class of the data",
                "Name the data set that the network was trained on."
                if of_other_classes
                else "Return one row of logits for each image.",
            )
        if z.is_complex():
            raise UsageError("the network answers with complex numbers", "Return real logits, such as their .real.")


def _answers(model: nn.Module, x: Tensor) -> tuple[dict[int, object], dict[int, Exception]]:
    """By count of copies of one image (1,C,H,W), one and two: the answer, or what the network's forward raised.

    A network that takes two but no single one looks at its neighbours, of which the table will warn.
    """
    answers: dict[int, object] = {}
    failures: dict[int, Exception] = {}
    with torch.no_grad():
        for count in (1, 2):
            try:
                answers[count] = model(torch.cat([x] * count))
            except Exception as error:  # whatever the user's network does
                if out_of_memory(error):
                    raise
                failures[count] = error
    return answers, failures


def _words(error: Exception) -> str:
    """The first line of its message; its kind alone says what a bare KeyError or assertion does not."""
    message = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, RuntimeError | TypeError | ValueError) and message:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
