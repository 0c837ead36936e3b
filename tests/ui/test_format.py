"""Numbers and states as text."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafe_tui import format as fmt
from engine.contract.run.rundir import StateName


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m 00s"),
        (72, "1m 12s"),
        (3600, "1h 00m"),
        (11_100, "3h 05m"),
        (187_500, "2d 04h"),
        (float("inf"), "-"),
        (float("nan"), "-"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert fmt.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86400, "1d"), (1e7, "115d")]
)
def test_ages(seconds: float, text: str) -> None:
    assert fmt.age(seconds) == text


def test_numbers() -> None:
    assert fmt.percent(63.14) == "63.1"
    assert fmt.percent(None) == fmt.percent(float("nan")) == "-"
    assert fmt.interval(58.55, 67.44) == "[58.5, 67.4]"
    assert (fmt.signed(3.11), fmt.signed(-0.04), fmt.signed(None)) == ("+3.1", "-0.0", "-")
    assert (fmt.p_value(0.0243), fmt.p_value(1e-9)) == ("p = 0.024", "p < 0.001")
    assert (fmt.size(512), fmt.size(1536), fmt.size(3 << 40)) == ("512 B", "1.5 KiB", "3.0 TiB")


@given(st.floats(-1, 2), st.integers(0, 200), st.booleans())
def test_a_bar_is_as_long_as_asked(share: float, cells: int, plain: bool) -> None:
    drawn = fmt.bar(share, cells, ascii_only=plain)
    assert len(drawn) == cells
    assert not plain or drawn.isascii()


def test_a_bar_of_an_unknown_share_is_empty() -> None:
    assert fmt.bar(float("nan"), 4, ascii_only=True) == "----"


@given(st.text())
def test_printable_text_cannot_drive_a_terminal(text: str) -> None:
    shown = fmt.printable(text)
    assert len(shown) == len(text)
    assert shown.isprintable()


def test_every_state_has_a_sign_of_its_own_shape() -> None:
    for signs in (fmt.SYMBOLS, fmt.ASCII_SYMBOLS):
        assert set(signs) == set(get_args(StateName))
        assert all(len(sign) == 1 for sign in signs.values())
    assert all(sign.isascii() for sign in fmt.ASCII_SYMBOLS.values())
