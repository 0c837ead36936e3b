"""Numbers and states as text. Pure, and all that any view uses to show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from engine.contract.printing import printable as printable

if TYPE_CHECKING:
    from engine.contract.run.records import Part, Progress
    from engine.contract.run.results import Table

SYMBOLS: Final = {
    "queued": "◌",
    "starting": "◌",
    "running": "▶",
    "stopping": "◧",
    "stopped": "■",
    "finished": "✓",
    "failed": "✗",
    "lost": "?",
}
"""One sign for each state, always shown beside its word."""
ASCII_SYMBOLS: Final = {
    "queued": ".",
    "starting": ".",
    "running": ">",
    "stopping": "-",
    "stopped": "#",
    "finished": "+",
    "failed": "x",
    "lost": "?",
}
"""The same for terminals that are not UTF-8."""

BLOCKS: Final = "▁▂▃▄▅▆▇█"
"""From low to high, for sparklines."""

MEANINGS: Final = {
    "Adv": "what the network says of the attacked image",
    "CF": "counterfactual features: the test function's worst case",
    "CC": "counterfactual causal features: that worst case, seen by the hypothesis model",
    "AC": "adversarial causal features: the attack, seen by the hypothesis model",
}
"""The four readings of a game, in one line each."""


def shared_beginning(names: Sequence[str]) -> str:
    """The words, each with its dash, with which all of several names begin; something is left of every name."""
    words = zip(*(name.split("-")[:-1] for name in names), strict=False)
    shared = takewhile(lambda column: len(set(column)) == 1, words)
    return "".join(f"{column[0]}-" for column in shared) if len(names) > 1 else ""


def bar(share: float, cells: int, *, ascii_only: bool = False) -> str:
    """A progress bar of `cells` cells for a share of 0-1, an empty one while that is unknown."""
    full, empty = ("#", "-") if ascii_only else ("━", "─")
    done = 0 if math.isnan(share) else round(min(max(share, 0.0), 1.0) * cells)
    return full * done + empty * (cells - done)


def sparkline(values: Sequence[float], cells: int) -> str:
    """The values in at most `cells` block characters, each the mean of an equal share; not finite ones are left out."""
    kept = [value for value in values if math.isfinite(value)]
    if not kept or cells < 1:
        return ""
    cells = min(cells, len(kept))
    means = []
    for i in range(cells):
        part = kept[i * len(kept) // cells : (i + 1) * len(kept) // cells]
        means.append(math.fsum(part) / len(part))
    low, span = min(means), max(means) - min(means)
    if not span:
        return BLOCKS[len(BLOCKS) // 2] * cells
    return "".join(BLOCKS[round((mean - low) / span * (len(BLOCKS) - 1))] for mean in means)


def duration(seconds: float) -> str:
    """A length of time in its two largest units: 8s, 1m 12s, 3h 05m, 2d 04h."""
    if not math.isfinite(seconds):
        return "-"
    s = max(0, int(seconds))
    if s < 60:
        return f"{s}s"
    if s < 3600:
        return f"{s // 60}m {s % 60:02}s"
    if s < 86400:
        return f"{s // 3600}h {s // 60 % 60:02}m"
    return f"{s // 86400}d {s // 3600 % 24:02}h"


def age(seconds: float) -> str:
    """How long ago, in one unit: 8s, 12m, 5h, 3d."""
    s = max(0, int(seconds))
    for limit, unit, size in ((60, "s", 1), (3600, "m", 60), (86400, "h", 3600)):
        if s < limit:
            return f"{s // size}{unit}"
    return f"{s // 86400}d"


def percent(value: float | None) -> str:
    """A percentage (0-100) with one decimal, without its sign; a dash while unknown."""
    return "-" if value is None or math.isnan(value) else f"{value:.1f}"


def interval(low: float, high: float) -> str:
    """An interval: [58.6, 67.4]."""
    return f"[{low:.1f}, {high:.1f}]"


def interval_role(low: float, high: float) -> str:
    """The role of a difference with this 95% interval: good or bad only where the interval leaves out zero."""
    return "good" if low > 0 else "bad" if high < 0 else ""


def signed(points: float | None) -> str:
    """A difference in points: +3.1; a dash while unknown."""
    return "-" if points is None or math.isnan(points) else f"{points:+.1f}"


def p_value(p: float) -> str:
    """A p-value: p = 0.024, p < 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def size(count: float) -> str:
    """Bytes in binary units: 512 B, 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def share_done(progress: Progress) -> float:
    """Share (0-1) of a cell that is done; engines that do not tell it tell examples."""
    return progress.share or progress.done / max(progress.total, 1)


def means_of(table: Table) -> str:
    """How the attacks of a table searched, in a sentence; empty where no engine told."""
    from engine.contract.run.records import OWN_FORMAT  # where there is a table, it has been read with this

    hows: dict[str, dict[str, None]] = {}
    for cell in table.cells.values():
        if cell.how and cell.attack != "clean":
            hows.setdefault(cell.how, {})[cell.attack] = None
    sources = dict.fromkeys(cell.source for cell in table.cells.values() if cell.source)
    crafted = f"crafted on {', '.join(sources)}; " if sources else ""
    ways = hows if len(hows) < 2 else (f"{how} ({', '.join(attacks)})" for how, attacks in hows.items())
    own = any(how.startswith(OWN_FORMAT) for how in hows)
    searched = "" if own else "searched in "
    confirmed = "by the network as it is" if own else "in fp32"
    return printable(f"{crafted}{searched}{'; '.join(ways)}; every break confirmed {confirmed}") if hows else ""


def waterfall(total: int, clean: int | None, parts: Sequence[Part], running: str = "", share: float = 0.0) -> str:
    """What each attack of an ensemble left in percent, and in brackets how many examples it still broke.

    `apgd-ce 63.1 (149), apgd-t 60.7 (11), fab-t 35% done`: the last one is at work, and so far done.
    """
    total = max(total, 1)  # a file may say anything
    texts, before = ([f"clean {percent(100 * clean / total)}"] if clean is not None else []), clean
    for part in parts:
        broke = f" ({before - part.correct})" if before is not None else ""
        texts.append(f"{part.attack} {percent(100 * part.correct / total)}{broke}")
        before = part.correct
    return ", ".join([*texts, *([f"{running} {share:.0%} done"] if running else [])])


def waterfalls(table: Table, progress: Progress | None) -> list[str]:
    """A line for each ensemble of the table that has begun: network, attack, and its waterfall."""
    lines = []
    for (model, attack), cell in table.cells.items():
        if cell.parts:
            clean = table.cell(model, "clean")
            fall = waterfall(cell.total, clean.correct if clean else None, cell.parts)
            lines.append(printable(f"{model}, {attack}: {fall}"))
    if progress is not None and (progress.parts or progress.part != progress.attack) and progress.part:
        clean = table.cell(progress.model, "clean")
        correct = clean.correct if clean else None
        fall = waterfall(progress.total, correct, progress.parts, progress.part, progress.done / max(progress.total, 1))
        lines.append(printable(f"{progress.model}, {progress.attack}: {fall}"))
    return lines
