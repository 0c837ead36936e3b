"""One run, live: stages, the game's curves, the four accuracies, the robust-accuracy table, the log."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widget import Widget

from cafe_tui.messages import LogGrew, RunChanged
from cafe_tui.screens.polling import PollingScreen
from cafe_tui.widgets.accuracies import Accuracies
from cafe_tui.widgets.game_curves import GameCurves
from cafe_tui.widgets.key_bar import KeyBar
from cafe_tui.widgets.lines import Line, Lines, Piece
from cafe_tui.widgets.log_view import LogView
from cafe_tui.widgets.robust_table import RobustData, RobustTable
from cafe_tui.widgets.run_header import RunHeader
from cafe_tui.widgets.scrolling import ScrollPane
from cafe_tui.widgets.stage_bar import StageBar
from engine.contract.rundir import RunDir

if TYPE_CHECKING:
    from cafe_tui.watch import LogFollower, RunFollower, RunView, StageView

PANES: Final = ("curves", "results", "log")
"""What `tab` goes through; on a low terminal one of them is shown at a time."""
HEIGHTS: Final = [(0, "-low"), (34, "-high")]
WIDTHS: Final = [(0, "-narrow"), (150, "-wide")]


class PaneTabs(Lines):
    """Names of the panes, for terminals that show one at a time."""

    _shown = PANES[0]

    def show(self, pane: str) -> None:
        """Mark `pane` as the one on screen."""
        self._shown = pane
        self.show_changes()

    def compose_lines(self, cells: int) -> list[Line]:
        """One line."""
        pieces: list[Piece] = []
        for number, name in enumerate(PANES, 1):
            shown = name == self._shown
            pieces += [(f"[{number} {name}]" if shown else f" {number} {name} ", "accent" if shown else "dim")]
        return [tuple(pieces)]


W = TypeVar("W", bound=Widget)


def titled(widget: W, title: str) -> W:
    """The widget with a title in its top border."""
    widget.border_title = title
    return widget


def stage_to_show(stages: Sequence[StageView], with_curves: Container[str]) -> str:
    """Id of the stage whose curves say most: the one running, else the latest game, else the latest with any."""
    drawable = [stage for stage in stages if stage.id in with_curves]
    running = [stage for stage in drawable if stage.state == "running"]
    games = [stage for stage in drawable if stage.kind == "game"]
    best = running or games or drawable
    return best[-1].id if best else ""


class RunScreen(PollingScreen):
    """Follows `run` with the two followers it is given."""

    PERIOD = 0.25
    VERTICAL_BREAKPOINTS = HEIGHTS
    HORIZONTAL_BREAKPOINTS = WIDTHS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,escape", "app.pop_screen", "Back"),
        Binding("tab", "turn_pane(1)", "Next pane", key_display="tab"),
        Binding("shift+tab", "turn_pane(-1)", "Previous pane", show=False),
        *(Binding(str(i), f"pane('{pane}')", pane.title(), show=False) for i, pane in enumerate(PANES, 1)),
        Binding("h,left", "stage(-1)", "Curves of an earlier stage", show=False),
        Binding("l,right", "stage(1)", "Curves of a later stage", show=False),
        Binding("z", "zoom", "Zoom"),
        Binding("p", "samples", "Samples"),
        Binding("s", "stop", "Stop"),
    ]

    def __init__(self, run: RunDir, follower: RunFollower, log: LogFollower) -> None:
        super().__init__()
        self._run = run
        self._follower = follower
        self._log = log
        self._view: RunView | None = None
        self._stage = ""  # chosen by key; empty while the screen follows the run
        self._pane = PANES[0]

    def compose(self) -> ComposeResult:
        yield RunHeader(id="header")
        yield StageBar(id="stages")
        yield PaneTabs(id="tabs")
        with Vertical(id="panes"):
            yield GameCurves(id="curves")
            yield titled(Accuracies(id="accuracies"), "accuracy %: what the game found")
            with titled(ScrollPane(id="results"), "robust accuracy %, 95% intervals"):
                yield RobustTable()
            yield titled(LogView(id="log"), "log")
        yield KeyBar()

    def on_mount(self) -> None:
        self.action_pane(self._pane)

    def read(self) -> bool:
        """Look at the run directory (reader thread)."""
        if view := self._follower.poll():
            self.post_message(RunChanged(view))
        if lines := self._log.poll():
            self.post_message(LogGrew(lines))
        return self._follower.behind

    def on_run_changed(self, message: RunChanged) -> None:
        before, self._view = self._view, message.view
        if before is None and self._view.status.state == "finished":
            self.action_pane("results")
        if before is None or before.status.final != self._view.status.final:
            self.refresh_bindings()  # there is something, or no longer anything, to stop
        self._draw()

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
        self._pane = pane
        for name in PANES:
            self.set_class(name == pane, f"-{name}")
        self.query_one(PaneTabs).show(pane)
        self.query_one(f"#{pane}").focus()

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

    def action_zoom(self) -> None:
        """Show the curves full screen, to be read and measured."""
        from cafe_tui.screens.curves import CurvesScreen
        from cafe_tui.watch import RunFollower

        # A follower of its own: this screen's may still be read, and would later lack what the other one has taken.
        self.app.push_screen(CurvesScreen(RunFollower(self._run), self._stage))

    def action_samples(self) -> None:
        """Show the pictures of this run."""
        from cafe_tui.screens.samples import SamplesScreen

        self.app.push_screen(SamplesScreen(self._run))

    def action_stop(self) -> None:
        """Ask whether to stop this run."""
        from cafe_tui.screens import manage
        from cafe_tui.watch import row_of

        manage.stop(self.app, [row_of(self._run)], lambda _: self._run)
