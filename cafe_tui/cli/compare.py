"""cafe compare: two runs on the same examples."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cafe_tui.cli.options import Json, Runs, find_run, print_json
from engine.contract.printing import say

if TYPE_CHECKING:
    from cafe_tui.results.outcomes import Evaluated, Verdict
    from engine.contract.errors import UsageError
    from engine.contract.run.results import Paired
    from engine.contract.run.rundir import RunDir


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A run id, a unique prefix of one, or `last`.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The run that is compared with A.")],
    attack: Annotated[list[str] | None, typer.Option(help="Only this attack (repeatable).")] = None,
    model: Annotated[
        str | None, typer.Option(help="The network to compare in both. [default: the last of each table]")
    ] = None,
    json: Json = False,
    runs: Runs = None,
) -> None:
    """Compare two runs on the same examples: difference B - A in points, 95% interval, exact McNemar p."""
    from cafe_tui.results import outcomes
    from engine.contract.errors import UsageError

    sides = [_tested(find_run(runs, name)) for name in (a, b)]
    if sides[0].id == sides[1].id:
        raise UsageError(f"{sides[0].id} cannot be compared with itself", "`cafe show` compares the networks of a run.")
    first, second = (_model(side, model) for side in sides)
    files = outcomes.OutcomeFiles()
    wanted = _attacks(sides, (first, second), attack)
    verdicts = [outcomes.judge(sides[0], sides[1], (first, second), name, files) for name in wanted]
    unequal = outcomes.different_tests(sides[0].settings, sides[1].settings, wanted)
    _complain(verdicts, all_needed=bool(attack), unequal=unequal)
    rows = [verdict.result for verdict in verdicts if verdict.result]
    if json:
        import msgspec

        print_json({"rows": [msgspec.to_builtins(row) for row in rows]})
    else:
        _print(rows)


def _tested(run: RunDir) -> Evaluated:
    """The run with its outcomes. Raises UsageError when it has none or its profile cannot be read."""
    from cafe_tui.results import outcomes
    from cafe_tui.results.settings import read_settings
    from engine.contract.errors import UsageError

    settings = read_settings(run)
    if settings.problem:
        raise UsageError(f"{run.id}: {settings.problem}", "The profile tells which outcomes belong to which network.")
    tested = outcomes.evaluated(run, settings)
    if not tested.files:
        hint = "They are written cell by cell by a stage of kind evaluate; `cafe show` tells how far a run has come."
        raise UsageError(f"{run.id} has no per-example outcomes", hint)
    return tested


def _model(side: Evaluated, wanted: str | None) -> str:
    """The network asked for, or the last of the table. Raises UsageError where there are no outcomes of it."""
    from engine.contract.errors import UsageError

    name = wanted or side.settings.tables[-1][1][-1]  # not the last that has outcomes: the table may not be finished
    if name not in side.models:
        yet = "" if wanted else " yet"
        hint = f"There are: {', '.join(side.models)}. Choose one with --model."
        raise UsageError(f"{side.id} has no outcomes of a network {name!r}{yet}", hint)
    return name


def _attacks(sides: list[Evaluated], models: tuple[str, str], wanted: list[str] | None) -> list[str]:
    """The attacks to compare, in the order of A's table. Raises UsageError for one that not both were tested with."""
    from engine.contract.errors import UsageError

    tested = {
        side.id: [attack for name, attack in side.files if name == model]
        for side, model in zip(sides, models, strict=True)
    }
    a, b = tested.values()
    shared = [attack for attack in a if attack in b]
    for name in wanted or ():
        if name not in shared:
            raise _lacking(name, tested, shared)
    if not shared:
        each = "; ".join(f"{run}: {', '.join(attacks)}" for run, attacks in tested.items())
        raise UsageError("the runs have no attack in common", each)
    return [name for name in shared if name in wanted] if wanted else shared


def _lacking(attack: str, tested: dict[str, list[str]], shared: list[str]) -> UsageError:
    """What to say of an attack that not both runs were tested with."""
    from engine.contract.errors import UsageError

    lacking = ", ".join(run for run, attacks in tested.items() if attack not in attacks)
    both = f"Both have: {', '.join(shared)}" if shared else "They have no attack in common."
    return UsageError(f"no outcomes under {attack!r} in {lacking}", both)


def _complain(verdicts: list[Verdict], *, all_needed: bool, unequal: list[str]) -> None:
    """Say what could not be compared and what makes it unequal. Raises UsageError if nothing, or not all, is left."""
    from engine.contract.errors import UsageError

    refused = [verdict for verdict in verdicts if verdict.problem]
    if refused and (all_needed or len(refused) == len(verdicts)):
        first = refused[0]
        raise UsageError(
            f"{first.attack}: not compared, {first.problem}",
            "It takes intact outcomes of the same data set and `limit`; `cafe table` shows both tables as they are.",
        )
    for verdict in refused:
        say(f"cafe: {verdict.attack}: not compared, {verdict.problem}", file=sys.stderr)
    if unequal:
        say(f"cafe: not the same attack in both runs: different {', '.join(unequal)}", file=sys.stderr)


def _print(rows: list[Paired]) -> None:
    from cafe_tui import format as fmt

    say(f"A  {rows[0].a}", f"B  {rows[0].b}")
    cells = max(len("attack"), *(len(row.attack) for row in rows))
    say(f"{'attack':<{cells}}   B - A  {'95% interval':<16}  {'p':<7}  {'n':>6}")
    for row in rows:
        interval, p = fmt.interval(row.low, row.high), fmt.p_value(row.p).removeprefix("p ").removeprefix("= ")
        say(f"{row.attack:<{cells}}  {fmt.signed(row.difference):>6}  {interval:<16}  {p:<7}  {row.n:>6}")
