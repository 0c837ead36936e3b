"""cafe data: the data sets, and getting those that must be fetched."""

from __future__ import annotations

from typing import Annotated

import typer

from cafe_tui.cli.options import Json, check_known, print_json, run_engine


def register(app: typer.Typer) -> None:
    """Add the verb, which has verbs of its own, to `cafe`."""
    group = typer.Typer(help="Data sets: what there is, and getting it.", rich_markup_mode=None, no_args_is_help=True)
    group.command("ls", epilog="Example: cafe data ls")(list_data)
    group.command("prepare", epilog="Example: cafe data prepare cifar10")(prepare)
    app.add_typer(group, name="data", epilog="Example: cafe data prepare cifar10")


def list_data(json: Json = False) -> None:
    """List the data sets that a profile can name: classes, image shape, sizes."""
    from engine.contract.catalogue import DATA_FACTS

    if json:
        print_json({"data": [{"name": name, **vars(facts)} for name, facts in DATA_FACTS.items()]})
        return
    print(f"{'name':<10}  {'classes':>7}  {'image':<8}  {'train':>7}  {'test':>7}")
    for name, facts in DATA_FACTS.items():
        shape = f"{facts.channels}x{facts.size}x{facts.size}"
        print(f"{name:<10}  {facts.classes:>7}  {shape:<8}  {facts.pool:>7,}  {facts.test:>7,}")


def prepare(name: Annotated[str, typer.Argument(metavar="NAME", help="A data set; see `cafe data ls`.")]) -> None:
    """Fetch a data set, check it, and convert it once. Says first how much it fetches and how much disk it needs.

    Archives lie in $CAFE_DATA, or ~/.cache/cafe/data; one put there by hand is used as it is.
    """
    from engine.contract.catalogue import DATA_FACTS

    check_known("data set", name, DATA_FACTS)
    raise typer.Exit(run_engine("data", name))
