"""cafe import: a checkpoint of another program in our format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cafe_tui.cli.options import Runs, check_known, run_engine


def import_checkpoint(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .t7 of the published code, or any state dict saved by torch.")
    ],
    model: Annotated[str, typer.Option(help="Its network: a name, timm:NAME or PACKAGE.MODULE:FUNCTION.")],
    data: Annotated[str, typer.Option(help="The data set that it was trained on.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="[default: FILE with .safetensors, in this folder]")
    ] = None,
    kind: Annotated[
        Literal["classifier", "hypothesis", "test_function"] | None,
        typer.Option(help="Which network, where the file does not tell.", show_default=False),
    ] = None,
    mean: Annotated[str | None, typer.Option(help="What it normalises images in [0,1] with: 0.49,0.48,0.45.")] = None,
    std: Annotated[str | None, typer.Option(help="Deviation of each channel, to go with --mean.")] = None,
    runs: Runs = None,
) -> None:
    """Write a foreign checkpoint in our format, after a forward pass. Nothing in the file is executed. (--runs makes no
    difference.)

    Layers may have other names than ours if they are the same in the same order. A file with the two networks of a game
    gives a checkpoint of both; --model is then the classifier that it was played on.
    """
    from engine.contract.profile.catalogue import DATA_FACTS, MODELS, is_foreign

    check_known("data set", data, DATA_FACTS)
    if not is_foreign(model):
        check_known("model", model, MODELS)
    target = out or Path(file.name).with_suffix(".safetensors")
    options = ["--model", model, "--data", data, *(("--kind", kind) if kind else ())]
    for name, text in (("--mean", mean), ("--std", std)):
        if text is not None:
            options += [name, *_numbers(name, text)]
    raise typer.Exit(run_engine("import", *options, "--", str(file), str(target)))


def _numbers(name: str, text: str) -> list[str]:
    from engine.contract.errors import UsageError

    try:
        return [str(float(word)) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"{name}: found {text!r}", "One number a channel, separated by commas.") from None
