"""The curves of a run as an instrument: any of its series in one big chart, to be read, zoomed and smoothed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message

from cafe_tui import format as fmt
from cafe_tui.charts.raster import Curve
from cafe_tui.charts.series import Series
from cafe_tui.reading.run import RunFollower, stage_to_show
from cafe_tui.reading.zoom import ZoomReader
from cafe_tui.ui.messages import RunChanged
from cafe_tui.ui.preferences import Preferences
from cafe_tui.ui.screens.curve_actions import CHART_ACTIONS, VALUE_BINDINGS, CurveActions, step_bindings
from cafe_tui.ui.screens.opening import NotSelected, Selection
from cafe_tui.ui.screens.polling import PollingScreen
from cafe_tui.ui.widgets.chart import COLOURS
from cafe_tui.ui.widgets.curve_view import CurveView
from cafe_tui.ui.widgets.game_curves import CHARTS, TRAINING
from cafe_tui.ui.widgets.key_bar import KeyBar
from cafe_tui.ui.widgets.phase_view import PhaseView
from cafe_tui.ui.widgets.series_list import Key, SeriesList, SeriesToggled

if TYPE_CHECKING:
    from cafe_tui.reading.run import RunView

LOSSES: Final = ("hypothesis_loss", "test_function_loss")
OVER_STEPS: Final = CHART_ACTIONS | {"cursor", "time"}
"""Actions that mean nothing in the phase plot."""
WIDTHS: Final = [(0, "-narrow"), (76, "-broad")]


@dataclass
class DetailRead(Message, bubble=False):
    """Every point of some series at the steps [low, high)."""

    low: int
    high: int
    series: Mapping[Key, Series]


class ListPane(VerticalScroll, can_focus=False, inherit_bindings=False):
    """Scrolls the list; has no keys, which belong to the list and the chart."""


def free_colour(taken: Iterable[int]) -> int:
    """The lowest colour number that the fewest curves have."""
    used = list(taken)
    return min(range(1, COLOURS + 1), key=used.count)


def defaults(view: RunView, stage: str) -> dict[Key, int]:
    """The curves of the first chart of the run screen, with their colours; `stage` is empty to follow the run."""
    shown = stage or stage_to_show(view.stages, {stage for stage, _ in view.series})
    kind = next((stage.kind for stage in view.stages if stage.id == shown), "")
    keys = [(shown, name) for name, _ in CHARTS.get(kind, TRAINING).first]
    return {key: number for number, key in enumerate([key for key in keys if key in view.series], 1)}


def names_of(keys: Iterable[Key]) -> dict[Key, str]:
    """What the curves of these series are called: by name, and by stage too where there are several stages."""
    known = list(keys)
    several = len({stage for stage, _ in known}) > 1
    return {key: fmt.printable(f"{key[0]}/{key[1]}" if several else key[1]) for key in known}


def curves_of(view: RunView, colours: Mapping[Key, int]) -> list[Curve]:
    """The chosen series that there are."""
    names = names_of(key for key in colours if key in view.series)
    return [Curve(name, view.series[key], colours[key]) for key, name in names.items()]


def phase_pair(view: RunView, shown: Iterable[Key]) -> list[Key]:
    """The players' losses of the first shown stage that is a game; else the first two shown series of one stage."""
    stages: dict[str, list[Key]] = {}
    for key in shown:
        if key in view.series:
            stages.setdefault(key[0], []).append(key)
    for stage in view.stages:
        losses = [(stage.id, name) for name in LOSSES]
        if stage.kind == "game" and stage.id in stages and all(key in view.series for key in losses):
            return losses
    return next((keys[:2] for keys in stages.values() if len(keys) > 1), [])


def opened(selection: Selection) -> CurvesScreen:
    """The curves of the selected run and stage."""
    if selection.run is None:
        raise NotSelected("select a run to see its curves")
    # A follower of its own: another screen's may still be read, and would later lack what this one has taken.
    follower = RunFollower(selection.run, parallel=True)
    return CurvesScreen(follower, selection.stage, selection.preferences)


class CurvesScreen(CurveActions, PollingScreen):
    """Shows the series of the run that `follower` follows, at first those of `stage` (empty: whatever the run is at).

    The follower must be this screen's alone.
    """

    PERIOD = 0.25
    DEFAULT_CSS = """
    CurvesScreen {
        & ListPane { width: 26; height: 1fr; margin-right: 1; scrollbar-size: 1 1; }
        & Horizontal { height: 1fr; padding: 0 1; }
        & CurveView, & PhaseView { width: 1fr; }
        & PhaseView { display: none; }
        &.-phase CurveView { display: none; }
        &.-phase PhaseView { display: block; }
        &.-narrow ListPane { width: 19; }
    }
    """
    HORIZONTAL_BREAKPOINTS = WIDTHS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,escape", "app.pop_screen", "Back"),
        Binding("left,h", "cursor(-1)", "Read", key_display="←→"),
        Binding("right,l", "cursor(1)", "Cursor to the right", show=False),
        *step_bindings("+-<>", "Freeze the axis, or follow"),
        *VALUE_BINDINGS,
        Binding("t", "time", "Time"),
        Binding("x", "phase", "Phase"),
    ]

    def __init__(self, follower: RunFollower, stage: str = "", preferences: Preferences | None = None) -> None:
        super().__init__()
        self._preferences = preferences or Preferences()
        self._zoom_reader = ZoomReader(follower.run.records_file)
        self._wanted: tuple[int, int] | None = None  # steps of which every point is wanted; for the reader thread
        self._given: object = None  # what the points that were read last were read for; for the reader thread
        self._follower = follower
        self._stage = stage
        self._view: RunView | None = None
        self._chosen: dict[Key, int] | None = None  # None until the first choice: what the run screen shows

    def compose(self) -> ComposeResult:
        with Horizontal():
            with ListPane():
                yield SeriesList()
            yield CurveView()
            yield PhaseView()
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(SeriesList).focus()
        self.chart.set_modes(self._preferences.log_axis, self._preferences.smoothing, self._preferences.time_axis)

    def read(self) -> bool:
        """Look at the run directory, and for points that are wanted one by one (reader thread)."""
        if view := self._follower.poll():
            self.post_message(RunChanged(view, complete=not self._follower.behind))
        wanted, picture = self._wanted, view or self._follower.view
        if wanted:
            self._read_detail(*wanted, picture)
        return self._follower.behind

    def rest(self) -> None:
        self._follower.close()

    def _read_detail(self, first: int, end: int, view: RunView) -> None:
        """Read every point in view, and half as much on either side for panning, unless nothing new is there."""
        margin = (end - first) // 2
        low, high = max(first - margin, 0), end + margin
        shown = {key: view.series[key] for key in self._colours(view) if key in view.series}
        # What is appended behind these steps changes nothing here; a resume that overwrote some leaves its seam.
        ends = [(key, series.seams, min(series.x_range[1], high)) for key, series in shown.items() if series.x_range]
        if (low, high, ends) == self._given:
            return
        self._given = low, high, ends
        if series := self._zoom_reader.read(shown, low, high):
            self.post_message(DetailRead(low, high, series))

    def on_detail_read(self, message: DetailRead) -> None:
        if self._view is None:
            return
        names = names_of(message.series)
        detail = {names[key]: series for key, series in message.series.items()}
        self.chart.set_detail(message.low, message.high, detail)

    def on_idle(self) -> None:
        """Ask for every point of what is in view, where buckets are too coarse for it."""
        wanted = self.chart.wanted_detail()
        if wanted != self._wanted:
            self._wanted = wanted
            self.wake()

    def on_run_changed(self, message: RunChanged) -> None:
        self._view = message.view
        self.calm = self._view.status.final
        self._draw()

    def on_curve_view_name_clicked(self, message: CurveView.NameClicked) -> None:
        if self._view is not None:
            colours = self._colours(self._view)
            names = names_of(key for key in colours if key in self._view.series)
            for key, name in names.items():
                if name == message.name:
                    self.post_message(SeriesToggled(key))

    def on_series_toggled(self, message: SeriesToggled) -> None:
        if self._view is None:
            return
        chosen = dict(self._colours(self._view))
        if chosen.pop(message.key, None) is None:
            chosen[message.key] = free_colour(chosen.values())
        self._chosen = chosen
        self._draw()

    def _colours(self, view: RunView) -> dict[Key, int]:
        return defaults(view, self._stage) if self._chosen is None else self._chosen

    def _draw(self) -> None:
        view = self._view
        if view is None:
            return
        colours = self._colours(view)
        places = {stage.id: place for place, stage in enumerate(view.stages)}
        keys = sorted(view.series, key=lambda key: (places.get(key[0], len(places)), key[0]))
        self.query_one(SeriesList).show(keys, colours)
        curves = curves_of(view, colours)
        self.chart.update(curves, [view.info.created] * len(curves))
        pair = dict.fromkeys(phase_pair(view, colours), 1)
        self.query_one(PhaseView).update(curves_of(view, pair))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The keys of the step axis work where it is."""
        return action not in OVER_STEPS or not self.has_class("-phase")

    # --- keys --------------------------------------------------------------------------------------------------------

    def action_time(self) -> None:
        """Count steps, or the time since the run began."""
        self.chart.toggle_time()
        self.modes_changed()

    def action_phase(self) -> None:
        """Show the losses of the players, or the first two curves, against each other, or all over the steps again."""
        self.toggle_class("-phase")
        self.refresh_bindings()

    def modes_changed(self) -> None:
        """Draw the curves of other runs in the same way, now and after the next start."""
        preferences = self._preferences
        preferences.log_axis, preferences.smoothing, preferences.time_axis = self.chart.modes
