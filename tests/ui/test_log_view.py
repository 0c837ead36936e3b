"""The log pane: follows, wraps, filters, finds, and stays small."""

from __future__ import annotations

from textual.app import App, ComposeResult

from cafe_tui.ui.widgets.log_view import KEPT, LogView, levels_of

STAMP = "2026-11-23 07:38:19"
LINES = [
    f"{STAMP} info    train: started",
    f"{STAMP} warning loss rises",
    f"{STAMP} info    train: finished",
    "UserWarning: of a library",
    "Traceback (most recent call last):",
    '  File "x.py", line 1',
    f"{STAMP} error   it broke",
    f"{STAMP} info    last",
]


class LogApp(App[None]):
    """The log and nothing else."""

    def compose(self) -> ComposeResult:
        yield LogView()


def test_levels_of_lines_that_the_engine_did_not_stamp() -> None:
    assert levels_of(LINES) == ["info", "warning", "info", "warning", "error", "error", "error", "info"]
    assert levels_of(["  continued"], "error") == ["error"]


async def test_the_end_stays_in_view_unless_scrolled_away() -> None:
    async with LogApp().run_test(size=(40, 5)) as pilot:
        log = pilot.app.query_one(LogView)
        log.append([f"line {i}" for i in range(50)])
        await pilot.pause()
        assert log.text().splitlines()[-1] == "line 49"
        log.focus()
        await pilot.press("g")
        log.append(["line 50"])
        await pilot.pause()
        assert log.text().splitlines()[0] == "line 0"
        await pilot.press("G")
        log.append(["line 51"])
        await pilot.pause()
        assert log.text().splitlines()[-1] == "line 51"


async def test_the_scrollbar_covers_no_text() -> None:
    async with LogApp().run_test(size=(20, 4)) as pilot:
        log = pilot.app.query_one(LogView)
        log.append(["abcdefghijklmnopqrstuvwxyz" * 5])
        await pilot.pause()
        pane = log.scrollable_content_region
        rows = log.text().splitlines()
        assert log.show_vertical_scrollbar
        assert max(map(len, rows)) == pane.width < log.size.width


async def test_long_lines_are_wrapped_again_on_resize_and_nothing_is_lost() -> None:
    async with LogApp().run_test(size=(20, 30)) as pilot:
        log = pilot.app.query_one(LogView)
        text = "words  with   spaces and 全角 characters, far beyond the edge"
        log.append([text])
        for width in (20, 7, 50):
            await pilot.resize_terminal(width, 30)
            await pilot.pause()
            assert "".join(log.text().splitlines()).replace(" ", "") == text.replace(" ", "")


async def test_level_filter_and_search() -> None:
    async with LogApp().run_test(size=(60, 20)) as pilot:
        log = pilot.app.query_one(LogView)
        log.append(LINES)
        log.focus()
        await pilot.press("v")
        assert log.text().splitlines() == [LINES[i] for i in (1, 3, 4, 5, 6)]
        await pilot.press("v")
        assert log.text().splitlines() == LINES[4:7]
        await pilot.press("v")
        assert len(log.text().splitlines()) == len(LINES)


async def test_finding_goes_from_match_to_match() -> None:
    async with LogApp().run_test(size=(60, 5)) as pilot:
        log = pilot.app.query_one(LogView)
        log.append([f"{'Needle' if i in (10, 40) else 'hay'} {i}" for i in range(100)])
        log.focus()
        log.find("needle")
        await pilot.pause()
        assert "Needle 40" in log.text()
        await pilot.press("n")
        assert "Needle 10" in log.text()
        await pilot.press("n", "N")
        assert "Needle 40" in log.text()
        log.find("[not a pattern")
        await pilot.press("n")


async def test_memory_is_bounded_and_control_characters_are_replaced() -> None:
    async with LogApp().run_test(size=(60, 5)) as pilot:
        log = pilot.app.query_one(LogView)
        for _ in range(3):
            log.append([f"\x1b[31m{i}" for i in range(KEPT)])
        assert len(log.lines) == KEPT
        assert not any("\x1b" in line for line in log.lines)
        await pilot.pause()
        assert log.text().splitlines()[-1].endswith(f"{KEPT - 1}")
