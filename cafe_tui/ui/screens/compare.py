"""Runs side by side, live: a series of all of them in one chart, tables, settings that differ, paired outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical

from cafe_tui import format as fmt
from cafe_tui.charts.raster import FAINT, Curve
from cafe_tui.charts.svg import to_svg
from cafe_tui.reading.run import RunFollower
from cafe_tui.results import exporting, grids, names, outcomes, settings
from cafe_tui.results.exporting import Document, Grid
from cafe_tui.results.groups import MOST_RUNS, Compared
from cafe_tui.results.outcomes import OutcomeFiles, Verdict
from cafe_tui.results.settings import Settings
from cafe_tui.ui.messages import Newest
from cafe_tui.ui.screens.curve_actions import CHART_ACTIONS, VALUE_BINDINGS, CurveActions, step_bindings
from cafe_tui.ui.screens.curves import defaults
from cafe_tui.ui.screens.opening import NotSelected, Selection
from cafe_tui.ui.screens.polling import PollingScreen
from cafe_tui.ui.widgets.compare.curves import OverlaidCurves, SeriesBar
from cafe_tui.ui.widgets.compare.export import ExportDialog
from cafe_tui.ui.widgets.compare.grid import GridPane
from cafe_tui.ui.widgets.key_bar import KeyBar
from cafe_tui.ui.widgets.lines import Line, Lines, Piece, width
from cafe_tui.ui.widgets.pane_tabs import PaneTabs
from cafe_tui.ui.widgets.pieces import ROLE_OF_STATE
from cafe_tui.ui.widgets.series_list import Key
from engine.contract.run.rundir import RunDir

if TYPE_CHECKING:
    from cafe_tui.reading.run import RunView

READING_SECONDS: Final = 0.1
"""For how long the records of each run are read before the next one's."""
KEPT_BUCKETS: Final = 2048
"""Of each series: four for each dot column of a wide chart. Twenty runs with all their series take memory."""
PANES: Final = ("curves", "tables", "profiles", "paired")
CURVE_ACTIONS: Final = CHART_ACTIONS | {"stage", "single_out", "read_at"}
"""What only the curves can do."""
HEADER_LINES: Final = 2
LETTER_PIXELS, LEGEND_GAP = 7, 5
"""Of the legend of a picture: width of a letter, and letters that the mark and the space of an entry take."""
SEVERAL_NEEDED: Final = Grid(notes=("The first run is compared with each other one: mark two runs at least.",))


@dataclass
class RunsRead(Newest, bubble=False):
    """The runs were read and at least one has changed: their pictures, and what follows from them."""

    runs: Sequence[Compared]
    views: Sequence[RunView]
    tables: Grid
    profiles: Grid


@dataclass
class OutcomesRead(Newest, bubble=False):
    """There are new outcomes, and these are all verdicts that follow from them."""

    verdicts: Sequence[Verdict]
    paired: Grid


class RunsLine(Lines):
    """Names and states of the runs in at most two lines."""

    _runs: Sequence[tuple[str, str]] = ()
    _all = 0

    def show(self, runs: Sequence[tuple[str, str]], there: int) -> None:
        """Show these (name, state) pairs, of so many runs that were to be compared."""
        self._runs, self._all = runs, there
        self.show_changes()

    def compose_lines(self, cells: int) -> list[Line]:
        """How many runs, then each of them."""
        count = f"{len(self._runs)} runs" if len(self._runs) == self._all else f"the first {MOST_RUNS} of {self._all}"
        lines: list[list[Piece]] = [[(count, "dim")]]
        for number, (name, state) in enumerate(self._runs):
            sign = fmt.SYMBOLS.get(state, "?")
            piece = [("  ", ""), (f"{sign} ", ROLE_OF_STATE.get(state, "dim")), (fmt.printable(name), "strong")]
            remaining = len(self._runs) - number
            if width((*lines[-1], *piece)) + (len(f"  +{remaining} more") if len(lines) == HEADER_LINES else 0) > cells:
                if len(lines) == HEADER_LINES:
                    lines[-1].append((f"  +{remaining} more", "dim"))
                    break
                lines.append([])
            lines[-1] += piece
        return [*map(tuple, lines)]


def opened(selection: Selection) -> CompareScreen:
    """The marked runs or, with one or none marked, the one under the cursor with it."""
    runs = list(selection.marked)
    if len(runs) < 2 and selection.run and selection.run.id not in [run.id for run in runs]:
        runs.append(selection.run)
    if len(runs) < 2:
        raise NotSelected("mark the runs to compare with space, two at least")
    return CompareScreen(runs)


class CompareScreen(CurveActions, PollingScreen):
    """Compares the first 20 of these runs, each once; paired outcomes are those of the first against each other one."""

    PERIOD = 0.5
    AUTO_FOCUS = ""  # the panes out of sight would take it
    DEFAULT_CSS = """
    CompareScreen {
        & RunsLine, & PaneTabs { margin: 0 1; }
        & #panes { height: 1fr; padding: 0 1; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,escape", "app.pop_screen", "Back"),
        Binding("tab", "turn_pane(1)", "Next pane", key_display="tab"),
        Binding("shift+tab", "turn_pane(-1)", "Previous pane", show=False),
        *(Binding(str(i), f"pane('{pane}')", pane.title(), show=False) for i, pane in enumerate(PANES, 1)),
        Binding("left,h", "sideways(-1)", "Previous series or column", show=False),
        Binding("right,l", "sideways(1)", "Series", key_display="←→"),
        Binding("pageup", "stage(-1)", "Series of the stage before", show=False),
        Binding("pagedown", "stage(1)", "Series of the next stage", show=False),
        Binding("e", "export", "Export"),
        Binding("up,k", "single_out(-1)", "One run", key_display="↑↓"),
        Binding("down,j", "single_out(1)", "Bring out the next run", show=False),
        *VALUE_BINDINGS,
        Binding("shift+left,H", "read_at(-1)", "Read values at a cursor", show=False),
        Binding("shift+right,L", "read_at(1)", "Cursor to the right", show=False),
        *step_bindings("+-", "Freeze or follow the steps"),
    ]

    def __init__(self, runs: Sequence[RunDir]) -> None:
        super().__init__()
        there = {run.id: run for run in runs}
        self._there = len(there)
        self._runs = list(there.values())[:MOST_RUNS]
        self._names = names.short_names([run.id for run in self._runs])
        self._pane = PANES[0]
        self._key: Key | None = None  # the series on screen
        self._singled: str | None = None  # id of the run that is brought out
        self._compared: Sequence[Compared] = ()
        self._views: Sequence[RunView] = ()
        self._grids: dict[str, Grid] = {}
        self._verdicts: Sequence[Verdict] = ()
        # What follows belongs to the reader thread.
        self._followers = [RunFollower(run, capacity=KEPT_BUCKETS) for run in self._runs]
        self._settings: list[Settings] = []
        self._files = OutcomeFiles()
        self._outcomes_seen: list[int] | None = None

    def compose(self) -> ComposeResult:
        yield RunsLine()
        yield PaneTabs(PANES)
        with Vertical(id="panes"):
            with Vertical(id="curves"):
                yield SeriesBar()
                yield OverlaidCurves()
            for pane in PANES[1:]:
                yield GridPane(id=pane)
        yield KeyBar()

    def on_mount(self) -> None:
        self.action_pane(self._pane)

    # --- reading (on the reader thread) ------------------------------------------------------------------------------

    def read(self) -> bool:
        """Look at the run directories (reader thread); whether there is more to read at once."""
        if not self._settings:
            self._settings = [settings.read_settings(run) for run in self._runs]
        news = [follower.poll(READING_SECONDS) for follower in self._followers]
        if any(news):
            views = tuple(follower.view for follower in self._followers)
            runs = tuple(
                Compared(view.id, self._names[view.id], settings, view.table)
                for view, settings in zip(views, self._settings, strict=True)
            )
            tables, profiles = grids.table_grid(runs), grids.profile_grid(runs)
            self.post_message(RunsRead(runs, views, tables, profiles))
        self._read_outcomes()
        return any(follower.behind for follower in self._followers)

    def _read_outcomes(self) -> None:
        seen = [_changed_at(run) for run in self._runs]
        if seen == self._outcomes_seen:
            return
        self._outcomes_seen = seen
        tested = [outcomes.evaluated(run, settings) for run, settings in zip(self._runs, self._settings, strict=True)]
        verdicts = outcomes.verdicts(tested, self._files)
        grid = grids.paired_grid(tested, verdicts, self._names) if len(tested) > 1 else SEVERAL_NEEDED
        self.post_message(OutcomesRead(verdicts, grid))

    def on_runs_read(self, message: RunsRead) -> None:
        self._compared, self._views = message.runs, message.views
        self._show_grid("tables", message.tables)
        self._show_grid("profiles", message.profiles)
        states = [(self._names[view.id], view.status.state) for view in self._views]
        self.query_one(RunsLine).show(states, self._there)
        self._draw_curves()

    def on_outcomes_read(self, message: OutcomesRead) -> None:
        self._verdicts = message.verdicts
        self._show_grid("paired", message.paired)

    def _show_grid(self, pane: str, grid: Grid) -> None:
        self._grids[pane] = grid
        self.query_one(f"#{pane}", GridPane).show(grid)

    # --- curves ------------------------------------------------------------------------------------------------------

    def _keys(self) -> list[Key]:
        """All series that any run has, in the order of the stages."""
        stages = dict.fromkeys(stage.id for view in self._views for stage in view.stages)
        places = {stage: place for place, stage in enumerate(stages)}
        keys = dict.fromkeys(key for view in self._views for key in view.series)
        return sorted(keys, key=lambda key: (places.get(key[0], len(places)), key[0]))

    def _curves(self, key: Key) -> list[Curve]:
        """This series of all runs, the one that is brought out on top and the others faint."""
        curves = [
            Curve(self._names[view.id], view.series[key], number)
            for number, view in enumerate(self._views, 1)
            if key in view.series
        ]
        if self._singled is None:
            return curves
        name = self._names[self._singled]
        others = [curve._replace(colour=FAINT) for curve in curves if curve.name != name]
        return others + [curve for curve in curves if curve.name == name]

    def _draw_curves(self, *, turned: bool = False) -> None:
        keys = self._keys()
        if not keys:
            self.query_one(SeriesBar).show("", 0, 0, ())
            return
        if self._key is None:
            self._key = next((key for view in self._views for key in defaults(view, "")), keys[0])
        key = self._key
        missing = [self._names[view.id] for view in self._views if key not in view.series]
        place = keys.index(key) + 1 if key in keys else 0  # a records file that began anew may lack it for a while
        self.query_one(SeriesBar).show("/".join(key), place, len(keys), missing)
        chart = self.query_one(OverlaidCurves)
        if turned:
            chart.turn_to(self._curves(key))
        else:
            chart.update(self._curves(key))

    # --- keys --------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The keys of the curves work where the curves are."""
        return action not in CURVE_ACTIONS or self._pane == PANES[0]

    def action_turn_pane(self, steps: int) -> None:
        """Go to the next or the previous pane."""
        self.action_pane(PANES[(PANES.index(self._pane) + steps) % len(PANES)])

    def action_pane(self, pane: str) -> None:
        """Show a pane."""
        self._pane = pane
        for name in PANES:
            self.query_one(f"#{name}").display = name == pane
        self.query_one(PaneTabs).show(pane)
        if pane == PANES[0]:
            self.set_focus(None)
        else:
            self.query_one(f"#{pane}", GridPane).take_focus()
        self.refresh_bindings()

    def action_sideways(self, step: int) -> None:
        """Go to the next series, or move the columns of a table."""
        if self._pane != PANES[0]:
            self.query_one(f"#{self._pane}", GridPane).move(step)
            return
        keys = self._keys()
        if self._key in keys:
            self._key = keys[(keys.index(self._key) + step) % len(keys)]
            self._draw_curves(turned=True)

    def action_stage(self, step: int) -> None:
        """Go to the first series of the next stage."""
        firsts: dict[str, Key] = {}
        for key in self._keys():
            firsts.setdefault(key[0], key)
        if self._key and self._key[0] in firsts:
            stages = list(firsts)
            self._key = firsts[stages[(stages.index(self._key[0]) + step) % len(stages)]]
            self._draw_curves(turned=True)

    def action_single_out(self, step: int) -> None:
        """Bring out the next run, or none again after the last."""
        choices: list[str | None] = [None, *(view.id for view in self._views)]
        self._singled = choices[(choices.index(self._singled) + step) % len(choices)]
        self._draw_curves(turned=True)

    def action_read_at(self, direction: int) -> None:
        """Move the cursor to the next column with values; the arrows that do so elsewhere turn the series here."""
        self.action_cursor(direction)

    # --- exporting ---------------------------------------------------------------------------------------------------

    def action_export(self) -> None:
        """Ask what to write of this pane and where to."""
        documents = self._documents()
        if documents:
            self.app.push_screen(ExportDialog(documents))
        else:
            self.notify("There is nothing to export here yet.")

    def _documents(self) -> list[Document]:
        if self._pane == "curves":
            return self._curve_documents(self._key) if self._key else []
        grid = self._grids.get(self._pane, Grid())
        if not grid.sections:
            return []
        stem = f"compare-{self._pane}"
        return [
            *self._csv_documents(grid, stem),
            Document("Markdown table", f"{stem}.md", partial(_text, exporting.markdown, grid)),
            Document("LaTeX tabular (booktabs)", f"{stem}.tex", partial(_text, exporting.latex, grid)),
        ]

    def _csv_documents(self, grid: Grid, stem: str) -> list[Document]:
        runs = self._compared
        if self._pane == "profiles":
            rows: list[tuple[object, ...]] = [tuple(entry.text for entry in row) for row in grid.sections[0]]
            return [_csv("CSV, a line a key", f"{stem}.csv", grid.head, rows)]
        if self._pane == "paired":
            records = grids.paired_records(self._verdicts)
            return [_csv("CSV, a line a comparison", f"{stem}.csv", grids.PAIRED_COLUMNS, records)]
        head = ("run", "seed", *exporting.CELL_COLUMNS)
        documents = [_csv("CSV, a line a cell", f"{stem}.csv", head, grids.cell_records(runs))]
        if means := grids.mean_records(runs):
            documents.append(_csv("CSV of the means over seeds", "compare-means.csv", grids.MEAN_COLUMNS, means))
        return documents

    def _curve_documents(self, key: Key) -> list[Document]:
        stem = f"compare-{'-'.join(key)}".replace("/", "-")
        curves = [curve for curve in self._curves(key) if curve.colour != FAINT]
        log = self.query_one(OverlaidCurves).logarithmic
        runs = [run for run, view in zip(self._runs, self._views, strict=True) if key in view.series]
        return [
            Document("SVG picture of all steps", f"{stem}.svg", partial(_svg, key, curves, log)),
            Document("CSV, every value: step, run, value", f"{stem}.csv", partial(_points, runs, key)),
        ]


def _changed_at(run: RunDir) -> int:
    """When outcomes were last added, in nanoseconds; 0 where there are none."""
    try:
        return run.outcomes.stat().st_mtime_ns
    except OSError:
        return 0


def _svg(key: Key, curves: Sequence[Curve], log: bool) -> str:
    """A picture wide enough for its legend, which is one line."""
    legend = sum(len(curve.name) + LEGEND_GAP for curve in curves) * LETTER_PIXELS
    return to_svg("/".join(key), curves, max(960, legend + 120), log=log)


def _text(write: Callable[[Grid], list[str]], grid: Grid) -> str:
    return "\n".join([*write(grid), ""])


def _csv(label: str, name: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> Document:
    return Document(label, name, lambda: "\n".join([*exporting.csv_lines(head, rows), ""]))


def _points(runs: Sequence[RunDir], key: Key) -> str:
    rows = ((step, run.id, value) for run in runs for step, value in exporting.points(run, *key))
    return "\n".join([*exporting.csv_lines(("step", "run", "value"), rows), ""])
