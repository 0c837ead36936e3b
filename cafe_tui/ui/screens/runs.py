"""Home: every run of the folder, live."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from cafe_tui import format as fmt
from cafe_tui.reading.ordering import ORDERS, Group, grouped, ordered
from cafe_tui.reading.runs import rows_of
from cafe_tui.ui.messages import RunsChanged
from cafe_tui.ui.preferences import Preferences
from cafe_tui.ui.screens.opening import OpeningScreen, Selection
from cafe_tui.ui.screens.polling import BREATH, PollingScreen
from cafe_tui.ui.widgets.key_bar import KeyBar
from cafe_tui.ui.widgets.run_table import GroupToggled, RunTable, SortAsked
from engine.contract.errors import CafeError
from engine.contract.run.listing import complaint
from engine.contract.run.rundir import FINAL, RunDir

if TYPE_CHECKING:
    from textual.widgets import Input

    from cafe_tui.reading.runs import RunRow, RunsFollower

AGES_EVERY = 10.0
"""Seconds between looks at whether an age has become another text."""
REMARK_SECONDS = 15.0
"""For how long it is shown which entries of the folder cannot be read."""
A_SCREENFUL = 60
"""Rows read and shown before the rest of a long list, which on a slow disk takes a while."""
LULL = 0.2
"""Seconds after the first complete list in which it is painted, before the reader imports what comes next."""
OF_A_RUN = (
    "cafe_tui.charts.raster",
    "cafe_tui.ui.widgets.game_curves",
    "cafe_tui.ui.widgets.log_view",
    "cafe_tui.ui.widgets.robust_table",
    "cafe_tui.ui.screens.run",
    "engine.contract.profile.schema",
    "engine.contract.profile.files",
    "engine.contract.plan",
    "cafe_tui.profiles.forms",
    "cafe_tui.profiles.parent",
)
"""What opening a run imports, what others need first."""
PAUSE = 0.25
"""Seconds for which the rows in view have to stay before their trends are read: not between the keys of a filter."""
PATIENCE = 0.05
"""Seconds that the first painting waits for them."""


def newest_rows(runs: Path, count: int, now: float) -> tuple[RunRow, ...]:
    """The newest runs of a folder, at most `count`. Raises UsageError when the folder is unreadable."""
    return tuple(rows_of(runs, now, at_most=count)[0])


def preload() -> None:
    """Import what an opened run needs while nobody waits for it: a tenth of a second that opening it then lacks.

    In pieces, between which a key can be answered.
    """
    for module in OF_A_RUN:
        import_module(module)
        time.sleep(BREATH)
    import_module("engine.contract.profile.schema").keys()


def matching(rows: Sequence[RunRow], words: Sequence[str]) -> list[RunRow]:
    """The rows in which every word (lower case) occurs in the run's id, name, profile, state, stage or tags."""
    for word in words:
        rows = [row for row in rows if word in row.words]
    return list(rows)


class RunsScreen(OpeningScreen, PollingScreen):
    """The table of runs.

    `follower` reads the folder, `clock` gives unix seconds, `preferences` keep order and grouping.
    """

    PERIOD = 2.0
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "app.quit", "Quit"),
        Binding("N", "show('launch')", "New run", key_display="N"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("o", "sort", "Sort"),
        Binding("O", "reverse", "Sort the other way round", key_display="O", show=False),
        Binding("p", "group", "Group by profile", show=False),
        Binding("space", "mark", "Mark"),
        Binding("asterisk", "mark_shown", "Mark all that are shown", key_display="*", show=False),
        Binding("c", "show('compare')", "Compare"),
        Binding("s", "manage('stop')", "Stop"),
        Binding("r", "manage('resume')", "Resume"),
        Binding("t", "manage('tag')", "Tag"),
        Binding("n", "manage('note')", "Note", show=False),
        Binding("d", "manage('delete')", "Delete"),
        Binding("S", "show('system')", "System", key_display="S"),
        Binding("escape", "clear_filter", "Clear filter"),
        Binding("escape", "clear_marks", "Clear marks"),
    ]

    def __init__(
        self, runs: Path, follower: RunsFollower, clock: Callable[[], float], preferences: Preferences
    ) -> None:
        super().__init__()
        self._runs = runs
        self._follower = follower
        self._clock = clock
        self._rows: Sequence[RunRow] = ()
        self._sorted: tuple[Sequence[RunRow], tuple[str, bool], Sequence[RunRow]] = ((), ("", False), ())
        self._problem = self._remark = ""
        self._complete = False
        self._wanted = ""
        self._preferences = preferences
        if preferences.order not in ORDERS:
            preferences.order = "age"
        self._marked: frozenset[str] = frozenset()
        self._shown: Sequence[RunRow] = ()  # all in the list, also what has to be scrolled to
        self._any_marked = False  # when the bar of keys was last told
        self._comparing = False
        self._read_rows: Sequence[RunRow] = ()  # the reader thread's
        self._posted: RunsChanged | None = None
        self._preloaded = False
        self._look: Timer | None = None  # at the trends of what has come into view

    def compose(self) -> ComposeResult:
        yield Static(id="title")
        yield RunTable(id="runs")
        yield Static(id="empty")
        yield KeyBar()

    def on_mount(self) -> None:
        self.set_interval(AGES_EVERY, self._draw)
        # The first painting has the newest runs in it, unless the disk is slow, and comes before what focus restyles.
        reader = threading.Thread(target=self._read_newest, daemon=True)
        reader.start()
        reader.join(PATIENCE)
        self._draw()
        self.call_after_refresh(self.query_one(RunTable).focus)

    def _read_newest(self) -> None:
        with suppress(CafeError):  # `read` says what is wrong
            self._rows = newest_rows(self._runs, A_SCREENFUL, self._clock())

    def read(self) -> bool:
        """Look at the folder (reader thread)."""
        try:
            rows = self._follower.poll()
        except CafeError as error:
            self._post_news(RunsChanged((), str(error)))
            return False
        if rows is not None:
            self._read_rows = rows
            for row in rows:
                row.words  # noqa: B018 - is worked out here, so that the first key of a filter need not
        self._post_news(RunsChanged(self._read_rows, remark=complaint(self._runs, self._follower.troubles)))
        if not (self._preloaded or self._follower.behind or self._covered.wait(LULL)):
            self._preloaded = True
            preload()
        return self._follower.behind

    def _post_news(self, news: RunsChanged) -> None:
        if news != self._posted:
            self._posted = news
            self.post_message(news)

    def on_runs_changed(self, message: RunsChanged) -> None:
        self._rows, self._problem, self._complete = message.rows, message.problem, message.complete
        if message.remark not in ("", self._remark):
            self.notify(fmt.printable(message.remark), severity="warning", timeout=REMARK_SECONDS, markup=False)
        self._remark = message.remark or self._remark
        self._draw()

    def on_idle(self) -> None:
        """Let the reader look at the trends of what is in view now."""
        visible = self.query_one(RunTable).on_screen
        if visible != self._follower.visible:
            self._follower.visible = visible
            if self._look is not None:
                self._look.stop()
            self._look = self.set_timer(PAUSE, self.wake)

    def _draw(self) -> None:
        rows = matching(self._in_order(), self._wanted.lower().split())
        if self._marked:
            self._marked &= {row.id for row in self._rows}
        sorting = (self._preferences.order, self._preferences.backwards)
        listed: Sequence[RunRow | Group] = (
            grouped(rows, self._preferences.folded) if self._preferences.grouped else rows
        )
        self._shown = [row for row in listed if not isinstance(row, Group)]
        table = self.query_one(RunTable)
        table.show(listed, self._clock(), self._marked, sorting if sorting != ("age", False) else ("", False))
        self._say("#title", self._title(len(rows)))
        if bool(self._marked) != self._any_marked:
            self._any_marked = bool(self._marked)
            self.refresh_bindings()
        if not rows:
            self._say("#empty", self._why_empty())
        self.set_class(not rows and self._complete, "-empty")

    def _in_order(self) -> Sequence[RunRow]:
        """All rows as they are to be listed, sorted once for all keys of a filter."""
        sorting = (self._preferences.order, self._preferences.backwards)
        if self._sorted[0] is not self._rows or self._sorted[1] != sorting:
            self._sorted = (self._rows, sorting, ordered(self._rows, sorting[0], backwards=sorting[1]))
        return self._sorted[2]

    def _say(self, selector: str, text: str) -> None:
        static, content = self.query_one(selector, Static), Content(text)
        if static.content != content:
            static.update(content, layout=False)  # both have a size that does not depend on what they say

    def _title(self, shown: int) -> str:
        if not self._complete:
            return fmt.printable(f"cafe  {self._runs}  reading …")
        total = len(self._rows)
        going = sum(row.state not in FINAL for row in self._rows)
        count = f"{shown} of {total} runs" if self._wanted.strip() else f"{total} run{'s' * (total != 1)}"
        extras = [f"{going} going on"] * bool(going)
        extras += [f"by {self._preferences.order}"] * (self._preferences.order != "age")
        extras += ["backwards"] * self._preferences.backwards
        extras += [f"{len(self._marked)} marked"] * bool(self._marked)
        hidden = len(self._marked) - len(self._marked_and_shown()) if self._marked else 0
        extras += [f"{hidden} of them not shown"] * bool(hidden)
        return fmt.printable(", ".join([f"cafe  {self._runs}  {count}", *extras]))

    def _why_empty(self) -> str:
        if self._problem:
            return fmt.printable(self._problem)
        if self._rows:
            return fmt.printable(f"No run matches “{self._wanted.strip()}”. Escape clears the filter.")
        folder = fmt.printable(str(self._runs))
        return f"No runs in {folder} yet. N starts one here; a shell does with\n\n    cafe run quickstart"

    # --- keys --------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Without a filter there is none to clear, and marks are cleared once there is none."""
        if action == "clear_marks":
            return bool(self._marked) and not self.has_class("-filtering")
        return action != "clear_filter" or self.has_class("-filtering")

    async def action_filter(self) -> None:
        """Open the filter line."""
        from textual.widgets import Input  # 10 ms that the first list of runs need not wait for

        if not self.query("#filter"):
            hint = "words of name, state, stage or tag; enter keeps, escape clears"
            line = Input(id="filter", placeholder=hint, compact=True)
            line.cursor_blink = False
            await self.mount(line, after="#title")
        self.add_class("-filtering")
        self.query_one("#filter").focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._wanted = event.value
        self._draw()

    def on_input_submitted(self) -> None:
        self.query_one(RunTable).focus()
        self.set_class(bool(self._wanted), "-filtering")

    async def action_clear_filter(self) -> None:
        """Show all runs again."""
        await self.query("#filter").remove()
        self.remove_class("-filtering")
        self.query_one(RunTable).focus()
        self._wanted = ""
        self._draw()

    def action_sort(self) -> None:
        """Sort by the next thing that can be sorted by."""
        names = list(ORDERS)
        self._preferences.order = names[(names.index(self._preferences.order) + 1) % len(names)]
        self._draw()

    def action_reverse(self) -> None:
        """Turn the order round."""
        self._preferences.backwards = not self._preferences.backwards
        self._draw()

    def on_sort_asked(self, message: SortAsked) -> None:
        if message.order == self._preferences.order:
            self.action_reverse()
        else:
            self._preferences.order, self._preferences.backwards = message.order, False
            self._draw()

    def action_group(self) -> None:
        """Put the runs under their profiles, or all in one list again."""
        self._preferences.grouped = not self._preferences.grouped
        self._draw()

    def on_group_toggled(self, message: GroupToggled) -> None:
        self._preferences.folded = sorted({message.profile} ^ set(self._preferences.folded))
        self._draw()

    def selection(self) -> Selection:
        """The marked runs in the order of the list, and the one under the cursor."""
        chosen = self.query_one(RunTable).selected
        return Selection(
            self._runs,
            run=RunDir(self._runs / chosen.id) if chosen else None,
            marked=[RunDir(self._runs / row.id) for row in self._rows if row.id in self._marked],
            preferences=self._preferences,
        )

    def action_mark(self) -> None:
        """Mark the run under the cursor, or take its mark away, and go on to the next."""
        table = self.query_one(RunTable)
        if row := table.selected:
            self._marked ^= {row.id}
            self._draw()
            table.action_move(1)

    def action_mark_shown(self) -> None:
        """Mark all runs of the list: those that the filter and folded groups leave."""
        self._marked |= {row.id for row in self._shown}
        self._draw()

    def action_clear_marks(self) -> None:
        """Take all marks away, also those of runs that are not shown."""
        self._marked = frozenset()
        self._draw()

    def action_show(self, name: str) -> None:
        """Open the screen of the file with this name."""
        before = self.app.screen
        super().action_show(name)
        self._comparing = name == "compare" and self.app.screen is not before

    def on_screen_resume(self) -> None:
        if self._comparing:  # what was marked for it has served
            self._comparing = False
            self.action_clear_marks()

    def _marked_and_shown(self) -> list[RunRow]:
        return [row for row in self._shown if row.id in self._marked]

    def action_manage(self, what: str) -> None:
        """Stop, resume, tag, note or delete the marked runs that are shown or, without any, the one under the cursor.

        Marked runs that the filter or a folded group hides stay as they are, which the dialog says.
        """
        from cafe_tui.ui.screens import manage  # dialogs are not needed for the first paint

        chosen, marked = self.query_one(RunTable).selected, self._marked_and_shown()
        rows = marked or ([chosen] if chosen else [])
        if rows:
            hidden = len(self._marked) - len(marked)
            manage.VERBS[what](self.app, manage.Choice(self._runs, rows, hidden))
