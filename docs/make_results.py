"""Runs the sweeps below, as far as that was not done before, and writes what came out to docs/results.md, as it is.

python docs/make_results.py [--runs DIR] [--as-is]
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cafe_tui import format as fmt
from cafe_tui.launch import queue
from cafe_tui.reading.run import RunView, whole_view
from cafe_tui.results import exporting, seeds
from cafe_tui.results.seeds import Repeated
from engine.contract.profile import files as profiles
from engine.contract.run.results import OverSeeds
from engine.contract.run.rundir import RunDir

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Part:
    """A sweep whose results are a part of the page; `about` says what it is."""

    profile: str
    overrides: tuple[str, ...]
    about: str

    @property
    def command(self) -> list[str]:
        """The words after `cafe` that run it, or go on with it."""
        return ["run", self.profile, *(word for text in self.overrides for word in ("--set", text))]


PARTS = (
    Part(
        "reproduction",
        (),
        "Does causal inoculation (CAFE) help over what the same extra epochs do without it? Five defences go on from "
        "one adversarially trained network, each plain and with CAFE: the same images, epochs, batches, learning rates "
        "and adversary. Attacked are all 450 test images of digits (Linf, eps 0.15) and 500 of mnist5k (eps 0.2). "
        "apgd-ce and apgd-dlr make 50 steps, and aa is AutoAttack with a ninth of its standard budget, so that the "
        "whole fits two cores; both networks of a pair meet the same attack. profiles/reproduction.toml has it all.",
    ),
    Part(
        "quickstart",
        ("sweep.seed=[0,1,2]",),
        "The whole method in a minute. Here the inoculated network has had five epochs more than what it is compared "
        "with; the comparison at equal training is that above.",
    ),
)
READING = """\
How to read it. Robust accuracy is in percent of the test images, mean ± sample standard deviation over the seeds. A
seed stands for a whole run of its own: held-out images, weights, order of the images, game. The test images are the
same in all runs, so nothing here speaks of other test images. `difference` is with CAFE minus without, in points, with
the 95% interval and p of the paired t test over the seeds; it takes the differences of the seeds as draws from a normal
distribution. Beside it stands, for each seed, the difference on the same images and its exact McNemar p, which speaks
of those two networks alone. The McNemar tests of several seeds are not pooled: they share their images, and so are not
independent.

What three seeds cannot show. The t test has two degrees of freedom; its interval is 2.5 standard deviations wide to
either side, so that only differences far larger than their spread can be told from none, and whether they are normal
cannot be told at all. No p is corrected: of {rows} rows, about {chance:.0f} would have p < 0.05 over the seeds if CAFE
changed nothing. The defences of a run share their start and their game, and the attacks share their images, so the
rows are not independent either."""


def report(parts: Sequence[tuple[Part, Sequence[RunDir | None]]]) -> str:
    """The page."""
    lines = ["# Results", "", "Written by `python docs/make_results.py`; as measured, nothing left out.", ""]
    for part, runs in parts:
        lines += [
            f"## {part.profile}",
            "",
            f"    {shlex.join(['cafe', *part.command])}",
            "",
            *textwrap.wrap(part.about, 120),
            "",
        ]
        made = [run for run in runs if run is not None]
        lines += _facts(made, len(runs))
        found = seeds.repeated([run for run in made if run.results() is not None])
        rows = sum(len(one.effects) for one in found)
        if part is PARTS[0]:
            lines += [READING.format(rows=rows, chance=0.05 * rows), ""]
            lines += [*_summary(found), ""]
        for one in found:
            lines += _group(one, made)
    return "\n".join(lines).rstrip() + "\n"


def _facts(runs: Sequence[RunDir], wanted: int) -> Iterator[str]:
    """Where, when, with what, for how long, and what is missing."""
    views = [whole_view(run) for run in runs]
    done = [view for view in views if view.status.state == "finished"]
    for versions, devices in dict.fromkeys((_versions(view), ", ".join(view.info.devices)) for view in done):
        yield f"{versions}; {devices}."
    if done:
        first = min(view.info.created for view in done)
        each = ", ".join(f"{view.info.name} {fmt.duration(view.elapsed)}" for view in done)
        date = time.strftime("%Y-%m-%d", time.localtime(first))
        yield f"{date}. Time of the runs, on a machine that was doing other work as well: {each}."
    if len(done) < wanted:
        yield f"**{len(done)} of {wanted} runs are finished; the others are not in these tables.**"
    yield ""


def _versions(view: RunView) -> str:
    known = view.info.versions
    return f"commit {known.get('git', 'unknown')[:12]}, " + ", ".join(
        f"{name} {known[name]}" for name in ("cafe", "python", "torch", "numpy", "platform") if name in known
    )


def _summary(found: Sequence[Repeated]) -> Iterator[str]:
    """Under the last attack of each group: how many pairs gained and lost, and of how many the interval tells which."""
    for one in found:
        attack = one.effects[-1].attack
        effects = [effect for effect in one.effects if effect.attack == attack]
        gained = sum(effect.over_seeds.mean > 0 for effect in effects)
        lost = sum(effect.over_seeds.mean < 0 for effect in effects)
        clear = [f"{e.pair.inoculated} {fmt.signed(e.over_seeds.mean)}" for e in effects if _clear(e.over_seeds)]
        yield (
            f"- {one.group.name} under {attack}: of {len(effects)} pairs CAFE is ahead in {gained} and behind in "
            f"{lost}, by the means of {len(one.seeds)} seeds. Intervals that leave out 0: {', '.join(clear) or 'none'}."
        )


def _clear(found: OverSeeds) -> bool:
    return found.low is not None and found.high is not None and (found.low > 0 or found.high < 0)


def _group(one: Repeated, runs: Sequence[RunDir]) -> Iterator[str]:
    yield from (f"### {one.group.name}", "")
    yield from (*_game(one, {run.id: run for run in runs}), "")
    yield from (*exporting.markdown(seeds.mean_grid(one)), "")
    if one.effects:
        grid = seeds.effect_grid(one)
        yield from (*exporting.markdown(grid), "", *grid.remarks, "")


def _game(one: Repeated, runs: dict[str, RunDir]) -> Iterator[str]:
    """What the features of the game say of the test images, seed by seed."""
    heads = {run.settings.values["seed"]: runs[run.id].results() for run in one.group.runs}
    names = ("adv", "cf", "cc", "ac")
    yield "Accuracy of the features of the game, in percent:"
    yield ""
    yield "| seed | Adv | CF | CC | AC | AC - Adv |"
    yield "|--:|--:|--:|--:|--:|--:|"
    for seed, results in sorted(heads.items()):
        assert results is not None, "only runs with results are grouped"
        values = [float(results.headline.get(f"accuracy_{name}") or 0) for name in names]
        yield f"| {seed} | " + " | ".join(f"{value:.1f}" for value in values) + f" | {values[3] - values[0]:+.1f} |"


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--as-is", action="store_true", help="run nothing; write what is finished")
    arguments = parser.parse_args()
    parts = []
    for part in PARTS:
        if not arguments.as_is:
            command = [sys.executable, "-m", "cafe_tui", *part.command, "--plain", "--runs", str(arguments.runs)]
            subprocess.run(command, check=True, cwd=ROOT)
        sweep = profiles.load_sweep(part.profile, part.overrides)
        assert sweep is not None, "each part is a sweep"
        parts.append((part, queue.runs_of(arguments.runs, sweep)))
    (ROOT / "docs" / "results.md").write_text(report(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
