"""The list colours a difference to the base as the table does: only where the paired interval leaves out zero."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cafe_tui.reading.runs import row_of
from cafe_tui.ui.widgets.lines import role_styles
from engine.contract.run.rundir import RunDir, write_atomically
from tests.recorded import record_run, results
from tests.ui.test_app import GivenRows, app_with, row, table
from tests.ui.waiting import until


@pytest.mark.parametrize(
    ("points", "interval", "role"),
    [
        (3.1, (0.4, 5.8), "good"),
        (3.1, (-0.4, 6.6), ""),
        (-3.1, (-5.8, -0.4), "bad"),
        (-3.1, (-6.6, 0.4), ""),
        (3.1, None, "dim"),
    ],
)
async def test_a_difference_has_the_colour_of_its_interval(
    points: float, interval: tuple[float, float] | None, role: str
) -> None:
    head = {"clean": 97.1, "attack": "pgd", "robust": 61.2, "difference": points}
    given = GivenRows(row(0), row(1, headline=head, interval=interval))  # the cursor is on the first
    async with app_with(given).run_test(size=(160, 20)) as pilot:
        await until(pilot, lambda: f"{points:+.1f}" in table(pilot).text())
        shown = table(pilot)
        styles = {text.strip(): style for text, style, _ in shown.render_line(2)}
        expected = role_styles(shown)[role] if role else shown.rich_style
        assert styles[f"{points:+.1f}"] == expected


def test_the_interval_is_that_of_the_difference_in_the_headline(tmp_path: Path) -> None:
    run: RunDir = record_run(tmp_path)
    found = results()
    attack = found.headline["attack"]
    [expected] = [(each.low, each.high) for each in found.differences if each.attack == attack]
    assert row_of(run).interval == expected
    without = msgspec.structs.replace(found, differences=[each for each in found.differences if each.attack != attack])
    write_atomically(run.results_file, msgspec.json.encode(without))
    assert row_of(run).interval is None


async def test_the_scroll_bar_of_a_long_list_covers_no_digit() -> None:
    given = GivenRows(*(row(number) for number in range(60)))
    async with app_with(given).run_test(size=(120, 20)) as pilot:
        await until(pilot, lambda: table(pilot).show_vertical_scrollbar)
        shown = table(pilot)
        assert "+1.5" in shown.text().splitlines()[1]
        assert len(shown.text().splitlines()[1].rstrip()) <= shown.scrollable_content_region.width
