"""Lines of styled text: widths, and that repainting only what changed gives the new picture."""

from __future__ import annotations

import inspect
from importlib import import_module
from pkgutil import walk_packages

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style

from cafe_tui.ui import widgets
from cafe_tui.ui.widgets.lines import Line, Lines, changes, fit, fit_name, paint, plain, width, wrap

TEXTS = st.text(alphabet="ab é日本…━", max_size=12)
LINES = st.lists(st.tuples(TEXTS, st.sampled_from(["", "good"])), max_size=5).map(tuple)
STYLES = {"good": Style(bold=True)}


@given(TEXTS, st.integers(0, 30))
def test_fit_gives_exactly_the_cells_asked_for(text: str, cells: int) -> None:
    assert cell_len(fit(text, cells)) == cells
    assert cell_len(fit_name(3 * text, cells)) == cells


def test_fit_marks_what_was_cut() -> None:
    assert fit("quickstart", 6) == "quick…"
    assert fit("quickstart", 10) == "quickstart"
    names = [f"reproduction-{data}-seed{seed} k3f9" for data in ("digits", "mnist5k") for seed in range(3)]
    assert fit_name(names[1], 18) == "rep…its-seed1 k3f9"
    assert len({fit_name(name, 18) for name in names}) == 6


@given(TEXTS, st.integers(2, 30))
def test_wrap_keeps_every_word_within_the_width(text: str, cells: int) -> None:
    lines = wrap(text, cells)
    assert all(cell_len(line) <= cells for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_wrap_breaks_at_spaces_first() -> None:
    assert wrap("the engine process is gone", 12) == ["the engine", "process is", "gone"]
    assert wrap("", 12) == [""]


@given(st.lists(LINES, max_size=4), st.lists(LINES, max_size=4), st.integers(1, 40))
def test_repainting_the_changed_runs_alone_gives_the_new_picture(old: list[Line], new: list[Line], cells: int) -> None:
    height = max(len(old), len(new))
    screen, wanted = _cells(old, height, cells), _cells(new, height, cells)
    for region in changes(old, new, cells):
        for y in range(region.y, region.bottom):
            screen[y][region.x : region.right] = wanted[y][region.x : region.right]
    assert screen == wanted


def test_a_changed_number_repaints_only_itself() -> None:
    before: Line = (("AC ", "good"), ("63.1", ""), (" meaning", "good"))
    after: Line = (("AC ", "good"), ("64.0", ""), (" meaning", "good"))
    assert [tuple(region) for region in changes([before], [after], 40)] == [(3, 0, 4, 1)]
    assert changes([before], [before], 40) == []


def test_plain_and_width_agree() -> None:
    line: Line = (("日本", "good"), ("ab", ""))
    assert plain(line) == "日本ab"
    assert width(line) == 6


def _cells(lines: list[Line], height: int, cells: int) -> list[list[tuple[str, str]]]:
    picture = []
    for line in [*lines, *[()] * (height - len(lines))]:
        painted = []
        for segment in paint(line, cells, Style(), STYLES):
            for character in segment.text:
                painted += [(character, str(segment.style))] * max(cell_len(character), 1)
        picture.append(painted)
    return picture


SHOWING = [
    kind
    for module in walk_packages(widgets.__path__, f"{widgets.__name__}.")
    for kind in vars(import_module(module.name)).values()
    if inspect.isclass(kind) and issubclass(kind, Lines) and "show" in vars(kind) and kind.__module__ == module.name
]
"""Lines that wait for what they show."""
NEEDY = {"PaneTabs"}
"""Those that cannot be made without it."""


@pytest.mark.parametrize("kind", [kind for kind in SHOWING if kind.__name__ not in NEEDY])
def test_lines_that_have_nothing_to_show_yet_can_be_laid_out(kind: type[Lines]) -> None:
    assert kind().compose_lines(40) is not None
