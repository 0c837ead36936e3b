"""cafe data: the data sets, and getting those that must be fetched."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cafe_tui.cli.options import Json, print_json, run_engine
from engine.contract.printing import say


def list_data(json: Json = False) -> None:
    """List the data sets that a profile can name: classes, image shape, sizes, and whether they are here.

    ImageNet, folders and sets of the Hugging Face hub have a line for each size that is prepared.
    """
    from engine.contract.datasets import is_here, is_prepared, prepared
    from engine.contract.profile.catalogue import DATA_FACTS
    from engine.contract.profile.schema import Data

    mine = prepared()
    rows: list[dict[str, Any]] = [
        {"name": name, **vars(facts), "here": is_here(Data(name=name))}
        for name, facts in DATA_FACTS.items()
        if name not in {data.name for data, _ in mine}
    ]
    rows += [{"name": data.name, **vars(facts), "here": is_prepared(data), "path": data.path} for data, facts in mine]
    if json:
        print_json({"data": rows})
        return
    width = max(len(row["name"]) for row in rows)
    say(f"{'name':<{width}}  {'classes':>7}  {'image':<9}  {'train':>9}  {'test':>6}  here")
    for row in rows:
        shape = f"{row['channels']}x{row['size']}x{row['size']}"
        line = f"{row['name']:<{width}}  {row['classes']:>7,}  {shape:<9}  {row['pool']:>9,}  {row['test']:>6,}"
        say(f"{line}  {'yes' if row['here'] else 'no'}{', of ' + row['path'] if row.get('path') else ''}")
    say(f"{'folder':<{width}}  your own pictures: data.path with train/CLASS/PICTURE and test (or val), data.size")
    say(f"{'hf:NAME':<{width}}  a data set of the Hugging Face hub (pip install 'cafe-tui[hf]'), data.size")


def prepare(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set; see `cafe data ls`.")],
    path: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Of folder and imagenet: where train and test (or val) are.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Of folder, imagenet and hf:NAME: side of the images in pixels.")
    ] = None,
    config: Annotated[str | None, typer.Option(metavar="NAME", help="Of hf:NAME: which of its configurations.")] = None,
    image: Annotated[str | None, typer.Option(metavar="COLUMN", help="Of hf:NAME: the column of pictures.")] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Of hf:NAME: the column of classes.")] = None,
    test: Annotated[str | None, typer.Option(metavar="PART", help="Of hf:NAME: the part to test on.")] = None,
) -> None:
    """Fetch a data set, check it, and convert it once. Says first how much it fetches and how much disk it needs.

    Archives lie in $CAFE_DATA, or ~/.cache/cafe/data; one put there by hand is used as it is. What came of one before
    the line broke is kept beside it as NAME.part, and gone on from. On a data set that is ready its checksums are
    verified.
    """
    from msgspec import inspect

    from engine.contract.errors import UsageError
    from engine.contract.profile.checking import check
    from engine.contract.profile.schema import Data

    options = {"name": name, "path": path, "size": size, "config": config, "image": image, "label": label, "test": test}
    given = {key: value for key, value in options.items() if value is not None}
    problems: list[str] = []
    check(given, inspect.type_info(Data), "", problems)
    if problems:
        raise UsageError("\n".join(problems), "`cafe data ls` lists the data sets.")
    words = [f"--{key}={value}" for key, value in given.items() if key != "name"]
    raise typer.Exit(run_engine("data", name, *words))


verbs = typer.Typer(help="Data sets: what there is, and getting it.", rich_markup_mode=None, no_args_is_help=True)
verbs.command("ls", epilog="Example: cafe data ls")(list_data)
verbs.command("prepare", epilog="Example: cafe data prepare cifar10")(prepare)
