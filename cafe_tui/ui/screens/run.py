"""One run, live: stages, curves, the four accuracies of the game, the robust-accuracy table, log and profile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widget import Widget

from cafe_tui import format as fmt
from cafe_tui.reading.run import stage_to_show
from cafe_tui.ui.messages import LogGrew, ProfileResolved, RunChanged
from cafe_tui.ui.preferences import Preferences
from cafe_tui.ui.screens.opening import OpeningScreen, Selection
from cafe_tui.ui.screens.polling import PollingScreen
from cafe_tui.ui.widgets.accuracies import Accuracies
from cafe_tui.ui.widgets.game_curves import GameCurves
from cafe_tui.ui.widgets.key_bar import KeyBar
from cafe_tui.ui.widgets.log_view import LogView
from cafe_tui.ui.widgets.pane_tabs import PaneTabs
from cafe_tui.ui.widgets.profile_view import ProfileView
from cafe_tui.ui.widgets.robust_table import RobustData, RobustTable
from cafe_tui.ui.widgets.run_header import RunHeader
from cafe_tui.ui.widgets.scrolling import ScrollPane
from cafe_tui.ui.widgets.stage_bar import StageBar
from engine.contract.run.rundir import RunDir

if TYPE_CHECKING:
    from cafe_tui.reading.log import LogFollower
    from cafe_tui.reading.run import RunFollower, RunView

PANES: Final = ("curves", "results", "log", "profile")
"""What `tab` goes through; on a low terminal one of them is shown at a time, and the profile is always alone."""
HEIGHTS: Final = [(0, "-low"), (34, "-high")]
WIDTHS: Final = [(0, "-narrow"), (150, "-wide")]
PATIENCE: Final = 0.05
"""Seconds that the first painting waits for the first records."""
WARNINGS_AT_ONCE: Final = 3
"""Warnings that are shown one by one; more are counted."""
Severity = Literal["information", "warning", "error"]
Notice = tuple[str, Severity]
W = TypeVar("W", bound=Widget)


def titled(widget: W, title: str) -> W:
    """The widget with a title in its top border."""
    widget.border_title = title
    return widget


def news(before: RunView, after: RunView) -> list[Notice]:
    """What has happened between two pictures of a run that is worth interrupting somebody for."""
    notices = [*_finished_stages(before, after), *_new_warnings(before, after), *_new_state(before, after)]
    return [(fmt.printable(text), severity) for text, severity in notices]


def _finished_stages(before: RunView, after: RunView) -> Iterator[Notice]:
    running = {stage.id for stage in before.stages if stage.state == "running"}
    for stage in after.stages:
        if stage.state == "finished" and stage.id in running:
            spent = f" in {fmt.duration(stage.finished - stage.started)}" if stage.started and stage.finished else ""
            yield f"{stage.id} finished{spent}", "information"


def _new_warnings(before: RunView, after: RunView) -> Iterator[Notice]:
    warnings = after.warnings[len(before.warnings) :] if after.warnings != before.warnings else ()
    for text in warnings[:WARNINGS_AT_ONCE]:
        yield text, "warning"
    if len(warnings) > WARNINGS_AT_ONCE:
        yield f"and {len(warnings) - WARNINGS_AT_ONCE} more warnings", "warning"


def _new_state(before: RunView, after: RunView) -> Iterator[Notice]:
    state = after.status.state
    if state == before.status.state:
        return
    if state in ("failed", "lost"):
        yield f"{after.id} is {state}" + (f": {after.error}" if after.error else ""), "error"
    else:
        yield f"{after.id} is {state}", "information"


class RunScreen(OpeningScreen, PollingScreen):
    """Follows `run` with the two followers it is given; `preferences` keep the pane in which one watches live runs."""

    PERIOD = 0.25
    AUTO_FOCUS = ""
    VERTICAL_BREAKPOINTS = HEIGHTS
    HORIZONTAL_BREAKPOINTS = WIDTHS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,escape", "app.pop_screen", "Back"),
        Binding("tab", "turn_pane(1)", "Next pane", key_display="tab"),
        Binding("shift+tab", "turn_pane(-1)", "Previous pane", show=False),
        *(Binding(str(i), f"pane('{pane}')", pane.title(), show=False) for i, pane in enumerate(PANES, 1)),
        Binding("h,left", "stage(-1)", "Curves of an earlier stage", show=False),
        Binding("l,right", "stage(1)", "Curves of a later stage", show=False),
        Binding("z", "show('curves')", "Zoom"),
        Binding("p", "show('samples')", "Samples"),
        Binding("s", "stop", "Stop"),
        Binding("Y", "copy", "Copy", key_display="Y", show=False),
        Binding("S", "show('system')", "System", key_display="S", show=False),
    ]

    def __init__(
        self, run: RunDir, follower: RunFollower, log: LogFollower, preferences: Preferences | None = None
    ) -> None:
        super().__init__()
        self._preferences = preferences or Preferences()
        self._run = run
        self._follower = follower
        self._log = log
        self._view: RunView | None = None
        self._stage = ""  # chosen by key; empty while the screen follows the run
        self._pane = self._preferences.pane if self._preferences.pane in PANES else PANES[0]
        self.add_class(f"-{self._pane}")  # before anything is styled for the first time
        self.complete = False
        """Whether all that was there at first has been read."""
        self._resolved = False  # the reader thread's
        self._news: RunChanged | None = None  # what was read and has not been shown

    def compose(self) -> ComposeResult:
        yield RunHeader(id="header")
        yield StageBar(id="stages")
        yield PaneTabs(PANES, id="tabs")
        with Vertical(id="panes"):
            yield GameCurves(id="curves")
            yield titled(Accuracies(id="accuracies"), "accuracy %: what the game found")
            with titled(ScrollPane(id="results"), "robust accuracy %"):
                yield RobustTable()
            yield titled(LogView(id="log"), "log")
            with titled(ScrollPane(id="profile"), "profile as resolved"):
                yield ProfileView()
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(PaneTabs).show(self._pane)
        for points, cells in ((HEIGHTS, self.app.size.height), (WIDTHS, self.app.size.width)):
            # Textual does so after the first painting, which would then be one of many.
            fitting = [name for least, name in points if least <= cells][-1]
            self.update_classes({name: name == fitting for _, name in points}, update=False)
        # The first painting has the first curves in it, unless the disk is slow.
        reader = threading.Thread(target=self._read_first, daemon=True)
        reader.start()
        reader.join(PATIENCE)
        if news := self._take_news():
            self.on_run_changed(news)

    def _read_first(self) -> None:
        with self._reading:
            self._look()

    def _look(self) -> None:
        if view := self._follower.poll():
            self._news = RunChanged(view, complete=not self._follower.behind)

    def _take_news(self) -> RunChanged | None:
        news, self._news = self._news, None
        return news

    def read(self) -> bool:
        """Look at the run directory (reader thread)."""
        if self._news is None:  # else the first reading took longer than the first painting waited
            self._look()
        if news := self._take_news():
            self.post_message(news)
        if lines := self._log.poll():
            self.post_message(LogGrew(lines))
        if not self._resolved and not self._follower.behind and self._run.profile_file.exists():
            from cafe_tui.profiles.parent import resolved  # 20 ms that come after the first picture
            from cafe_tui.reading.runs import profile_reference

            self._resolved = True
            self.post_message(ProfileResolved(resolved(self._run.profile_file, profile_reference(self._run.info()))))
        return self._follower.behind

    def rest(self) -> None:
        self._follower.close()

    def on_run_changed(self, message: RunChanged) -> None:
        before, self._view = self._view, message.view
        self.calm = self._view.status.final
        if before is None:  # styling the focus takes longer than drawing the first curve, which comes first
            self.call_after_refresh(self._focus_pane)
        if self.complete and before:
            for text, severity in news(before, message.view):
                self.notify(text, severity=severity, markup=False)
        elif message.complete:
            self.complete = True
            state = message.view.status.state
            self._show_pane({"finished": "results", "failed": "log", "lost": "log"}.get(state, self._pane))
            if before:
                self._focus_pane()
        if before is None or before.status.final != self._view.status.final:
            self.refresh_bindings()  # there is something, or no longer anything, to stop
        self._draw()

    def on_profile_resolved(self, message: ProfileResolved) -> None:
        self.query_one(ProfileView).show(message.profile)

    def on_search_asked(self) -> None:
        from cafe_tui.ui.widgets.prompt import Prompt

        log = self.query_one(LogView)
        self.app.push_screen(
            Prompt("Find in the log", "Enter finds it; n goes to earlier ones, N to later ones."),
            lambda text: None if text is None else log.find(text),
        )

    def on_log_grew(self, message: LogGrew) -> None:
        self.query_one(LogView).append(message.lines)

    def _draw(self) -> None:
        view = self._view
        if view is None:
            return
        shown = self._stage or stage_to_show(view.stages, {stage for stage, _ in view.series})
        self.query_one(RunHeader).show(view)
        self.query_one(StageBar).show(view.stages, shown, view.status.state)
        kind = next((stage.kind for stage in view.stages if stage.id == shown), "")
        curves = {name: series for (stage, name), series in view.series.items() if stage == shown}
        self.query_one(GameCurves).show(shown, kind, curves)
        self.query_one(Accuracies).show(view.readings())
        self.query_one(RobustTable).show(RobustData(view.table, view.attack_progress, view.differences, view.warnings))

    # --- keys --------------------------------------------------------------------------------------------------------

    def action_turn_pane(self, steps: int) -> None:
        """Go to the next or the previous pane."""
        self.action_pane(PANES[(PANES.index(self._pane) + steps) % len(PANES)])

    def action_pane(self, pane: str) -> None:
        """Show and focus a pane."""
        self._show_pane(pane)
        self._focus_pane()

    def _show_pane(self, pane: str) -> None:
        self._pane = pane
        if self._view and not self._view.status.final:
            self._preferences.pane = pane
        shown = self.stack_updates > 0  # else Textual is about to style all of it
        self.update_classes({f"-{name}": name == pane for name in PANES}, update=shown)
        self.query_one(PaneTabs).show(pane)

    def _focus_pane(self) -> None:
        self.query_one(f"#{self._pane}").focus()

    def action_stage(self, steps: int) -> None:
        """Show the curves of an earlier or later stage; the running one follows the run again."""
        if self._view is None:
            return
        drawable = {stage for stage, _ in self._view.series}
        ids = [stage.id for stage in self._view.stages if stage.id in drawable]
        following = stage_to_show(self._view.stages, drawable)
        present = self._stage or following
        if present in ids:
            target = ids[max(min(ids.index(present) + steps, len(ids) - 1), 0)]
            self._stage = "" if target == following else target
            self._draw()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only a run that is going on can be stopped."""
        return action != "stop" or (self._view is not None and not self._view.status.final)

    def selection(self) -> Selection:
        """This run, at the stage whose curves were chosen."""
        return Selection(self._run.path.parent, run=self._run, stage=self._stage, preferences=self._preferences)

    def action_copy(self) -> None:
        """Copy the table as Markdown, the log in view, or the run's id, by what has the focus."""
        view = self._view
        if view is None:
            return
        if self._pane == "results" and view.table.cells:
            from cafe_tui.results.exporting import markdown, robust_grid

            what, text = "the table as Markdown", "\n".join(markdown(robust_grid(view.table)))
        elif self._pane == "log":
            what, text = "the log in view", self.query_one(LogView).text()
        else:
            what, text = view.id, view.id
        self.app.copy_to_clipboard(text)
        self.notify(f"copied {what}", markup=False)

    def action_stop(self) -> None:
        """Ask whether to stop this run."""
        from cafe_tui.reading.runs import row_of
        from cafe_tui.ui.screens import manage

        manage.act_on(self.app, manage.Choice(self._run.path.parent, [row_of(self._run)]), manage.STOP)
