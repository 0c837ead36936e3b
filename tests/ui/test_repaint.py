"""What is left of the output must paint what all of it would have painted, seen through a terminal emulator."""

from __future__ import annotations

import unicodedata
from io import StringIO

import pyte
from hypothesis import given, settings
from hypothesis import strategies as st

from cafe_tui.terminal.driver import Output
from cafe_tui.terminal.frame_rate import LONGEST, PATIENCE, STUCK, USUAL, FrameRate
from cafe_tui.terminal.repaint import Repaint

COLUMNS, LINES = 12, 4
STYLES = ["", "1", "31", "38;2;1;2;3", "1;34;49"]
TEXTS = st.text(st.sampled_from("abc ⣿│─"), min_size=1, max_size=COLUMNS)


def picture(screen: pyte.Screen) -> list[list[tuple[object, ...]]]:
    """Every cell with all its attributes; spaces of one colour look the same however they came there."""
    return [[tuple(screen.buffer[y][x]) for x in range(COLUMNS)] for y in range(LINES)]


@st.composite
def pieces(draw: st.DrawFn) -> str:
    """One thing that a program may write: a styled text somewhere, which ends at the right edge at most."""
    row, column = draw(st.integers(1, LINES)), draw(st.integers(1, COLUMNS))
    text = draw(TEXTS)[: COLUMNS + 1 - column]
    style = draw(st.sampled_from(STYLES))
    styled = f"\x1b[{style}m{text}\x1b[0m" if style else text
    return f"\x1b[{row};{column}H{styled}" + draw(st.sampled_from(["", "", "\r\n" if row < LINES else ""]))


EXTRAS = st.sampled_from(
    ["\x1b[?25l", "\x1b[?25h", "\x1b]2;title\x07", "\x1b[2J", "\x1b[?1049h", "\x1b[1;1H\x1b[K", "\x07"]
)
FRAMES = st.lists(st.lists(pieces() | pieces() | pieces() | EXTRAS, max_size=8).map("".join), max_size=8)


@settings(deadline=None, max_examples=300)
@given(frames=FRAMES, cuts=st.lists(st.integers(0, 200), max_size=6))
def test_the_screen_is_the_same_and_no_more_is_sent(frames: list[str], cuts: list[int]) -> None:
    plain, spared = (pyte.Screen(COLUMNS, LINES) for _ in range(2))
    all_of_it, rest = pyte.Stream(plain), pyte.Stream(spared)
    repaint = Repaint()
    for frame in frames:
        all_of_it.feed(frame)
        end = 0
        for cut in sorted(cuts):  # sequences may come in parts
            repaint.feed(frame[end : max(cut, end)])
            end = max(cut, end)
        repaint.feed(frame[end:])
        rest.feed(repaint.take())
        assert picture(spared) == picture(plain)
        assert spared.cursor.hidden == plain.cursor.hidden
        if not plain.cursor.hidden:
            shown, wanted = spared.cursor, plain.cursor
            assert (shown.y, min(shown.x, COLUMNS - 1)) == (wanted.y, min(wanted.x, COLUMNS - 1))
        assert repaint.take() == ""


def test_what_is_shown_already_is_not_sent_again() -> None:
    repaint = Repaint()
    repaint.feed("\x1b[?25l\x1b[2;3H\x1b[31mloss 0.412\x1b[0m\r\n")
    repaint.take()
    repaint.feed("\x1b[?2026h\x1b[2;3H\x1b[31mloss 0.413\x1b[0m\x1b[?2026l")
    assert repaint.take() == "\x1b[?2026h\x1b[2;12H\x1b[0;31m3\x1b[0m\x1b[?2026l"
    repaint.feed("\x1b[?2026h\x1b[2;3H\x1b[31mloss 0.413\x1b[0m\x1b[?2026l")
    assert repaint.take() == ""


def test_the_cursor_of_the_shell_stays_where_it_is() -> None:
    repaint = Repaint()
    repaint.feed("\x1b[?1049h\x1b[?25l")
    assert repaint.take() == "\x1b[?1049h\x1b[?25l"
    repaint.feed("\x1b[2;3Habc")
    repaint.take()
    repaint.feed("\x1b[?1049l\x1b[?25h\x1b[?1004l")
    assert repaint.take().endswith("\x1b[?1049l\x1b[?25h\x1b[?1004l")
    repaint.feed("\x1b[?1049h\x1b[?25l")  # after a suspension
    assert repaint.take() == "\x1b[?1049h\x1b[?25l"


def test_after_a_loss_everything_that_is_fed_is_sent() -> None:
    repaint = Repaint()
    repaint.feed("\x1b[1;1Habc")
    first = repaint.take()
    repaint.forget()
    repaint.feed("\x1b[1;1Habc")
    assert "abc" in first
    assert "abc" in repaint.take()


def test_lines_with_wide_characters_are_sent_whole() -> None:
    repaint, screen = Repaint(), pyte.Screen(COLUMNS, LINES)
    stream = pyte.Stream(screen)
    for text in ("全角 ab", "全角 ac", "x角 ac", "e\u0301 x", "全全全全"):
        repaint.feed(f"\x1b[1;1H{text}")
        stream.feed(repaint.take())
        assert screen.display[0].startswith(unicodedata.normalize("NFC", text))


def test_what_nobody_knows_passes_through_untouched() -> None:
    repaint = Repaint()
    picture_bytes = "\x1bPq#0;2;0;0;0~~@@vv\x1b\\"
    repaint.feed(picture_bytes[:9])
    assert repaint.take() == ""
    repaint.feed(picture_bytes[9:])
    assert picture_bytes in repaint.take()


def test_the_frame_rate_falls_when_frames_get_stuck_and_recovers() -> None:
    rate = FrameRate()
    assert rate.interval == USUAL
    for _ in range(10):
        rate.drained(2 * STUCK)
    assert rate.interval == LONGEST
    for _ in range(10 * PATIENCE):
        rate.drained(0.0)
    assert rate.interval == USUAL
    rate.drained(2 * STUCK)
    rate.set_base(1.0)
    assert rate.interval == 1.0


def test_the_output_times_what_it_sends() -> None:
    times = iter([0.0, 0.5, 1.0, 1.01])
    rate, file = FrameRate(), StringIO()
    output = Output(file, rate, lambda: next(times))
    output.write("\x1b[1;1Habc")
    assert file.getvalue() == ""
    output.flush()
    assert "abc" in file.getvalue()
    assert rate.interval == 2 * USUAL
    sent = len(file.getvalue())
    output.flush()
    assert len(file.getvalue()) == sent, "nothing new, nothing sent, nothing timed"
    output.forget()
    output.write("\x1b[1;1Habc")
    output.flush()
    assert len(file.getvalue()) > sent
