"""The comparison screen through its keys, on recorded runs with outcomes made by the tests."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Input, Static

from cafe_tui.results.exporting import Entry, Grid
from cafe_tui.ui.app import CafeApp
from cafe_tui.ui.screens.compare import PANES, CompareScreen, RunsLine
from cafe_tui.ui.widgets.compare.curves import OverlaidCurves, SeriesBar
from cafe_tui.ui.widgets.compare.export import ExportDialog
from cafe_tui.ui.widgets.compare.grid import GridPane
from cafe_tui.ui.widgets.confirm import Confirm
from cafe_tui.ui.widgets.key_bar import KeyBar
from cafe_tui.ui.widgets.pane_tabs import PaneTabs
from engine.contract.run.records import Scalars, encode
from engine.contract.run.results import make_cell
from engine.contract.run.rundir import RunDir
from tests.recorded import record_run
from tests.ui.compared import change_profile, outcomes, run_id, run_with_outcomes, write_outcomes
from tests.ui.test_app import app_on
from tests.ui.waiting import quiet, until

SIZES = [(1, 1), (20, 5), (60, 20), (80, 24), (120, 40), (300, 100)]


@pytest.fixture(autouse=True)
def _quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompareScreen, "PERIOD", 0.05)


@pytest.fixture
def three(tmp_path: Path) -> list[RunDir]:
    """Three seeds of one experiment, in a folder of their own."""
    folder = tmp_path / "runs"
    runs = [run_with_outcomes(folder, end, seed) for seed, end in enumerate(("aaaa", "bbbb", "cccc"))]
    for seed, run in enumerate(runs):
        change_profile(run, seed=seed)
    return runs


async def open_comparison(pilot: Pilot[None], runs: Sequence[RunDir]) -> CompareScreen:
    """Push the screen and wait until it has read the runs and their outcomes; it then shows the curves."""
    screen = CompareScreen(runs)
    await pilot.app.push_screen(screen)
    await pilot.press("4")
    await until(pilot, lambda: "reading" not in pane(screen, "paired").text())
    await pilot.press("1")
    return screen


async def turn_to(pilot: Pilot[None], screen: CompareScreen, name: str, shows: str) -> str:
    """Show a pane and wait until it shows something; its text."""
    await pilot.press(str(PANES.index(name) + 1))
    wanted = shows.split()  # lines may be broken between any words
    await until(pilot, lambda: " ".join(wanted) in " ".join(pane(screen, name).text().split()))
    return pane(screen, name).text()


def pane(screen: CompareScreen, name: str) -> GridPane:
    return screen.query_one(f"#{name}", GridPane)


def chart(screen: CompareScreen) -> OverlaidCurves:
    return screen.query_one(OverlaidCurves)


def series(screen: CompareScreen) -> str:
    return screen.query_one(SeriesBar).text()


# --- curves ----------------------------------------------------------------------------------------------------------


async def test_one_series_of_all_runs_and_keys_that_turn_to_the_others(three: list[RunDir]) -> None:
    async with app_on(three[0].path.parent).run_test(size=(120, 40)) as pilot:
        screen = await open_comparison(pilot, three)
        await until(pilot, lambda: "aaaa" in chart(screen).text())
        assert "← game/hypothesis_loss →" in series(screen)
        assert all(name in chart(screen).text().splitlines()[1] for name in ("aaaa", "bbbb", "cccc"))
        before = chart(screen).text()
        await pilot.press("right")
        assert "← game/test_function_loss →" in series(screen)
        assert chart(screen).text() != before
        await pilot.press("h")
        assert chart(screen).text() == before
        count = int(series(screen).split(" of ")[1])
        seen = set()
        for _ in range(count):
            await pilot.press("l")
            seen.add(series(screen).split()[1])
        assert len(seen) == count
        assert {"train/loss", "inoculate/val_loss", "game/psi"} <= seen
        assert chart(screen).text() == before
        stages = []
        for _ in range(3):
            await pilot.press("pagedown")
            stages.append(series(screen).split()[1].split("/")[0])
        assert stages == ["inoculate", "train", "game"]
        await pilot.press("pageup")
        assert "← train/" in series(screen)


async def test_a_zoom_stays_from_series_to_series(three: list[RunDir]) -> None:
    async with app_on(three[0].path.parent).run_test(size=(120, 40)) as pilot:
        screen = await open_comparison(pilot, three)
        await until(pilot, lambda: "aaaa" in chart(screen).text())
        await pilot.press("plus", "f")
        assert "frozen" in chart(screen).text()
        steps = chart(screen).text().splitlines()[-1]
        await pilot.press("right", "right")
        assert chart(screen).text().splitlines()[-1] == steps
        await pilot.press("0", "y", "s", "H")
        head = chart(screen).text().splitlines()[0]
        assert head.startswith("step")
        assert "log" in head
        assert "mean" in head
        assert "frozen" not in head


async def test_a_run_can_be_brought_out(three: list[RunDir]) -> None:
    async with app_on(three[0].path.parent).run_test(size=(120, 40)) as pilot:
        screen = await open_comparison(pilot, three)
        await until(pilot, lambda: "aaaa" in chart(screen).text())
        names = []
        for _ in range(4):
            names.append(chart(screen).text().splitlines()[1].split()[::2])
            await pilot.press("down")
        assert names == [
            ["aaaa", "bbbb", "cccc"],
            ["bbbb", "cccc", "aaaa"],
            ["aaaa", "cccc", "bbbb"],
            ["aaaa", "bbbb", "cccc"],
        ]
        await pilot.press("up", "up", "up")
        assert chart(screen).text().splitlines()[1].split()[-2] == "aaaa"


async def test_a_series_that_a_run_does_not_have_is_said(three: list[RunDir]) -> None:
    record_run(three[0].path.parent, run_id=run_id("dddd"), upto="train")
    runs = [*three, RunDir(three[0].path.parent / run_id("dddd"))]
    async with app_on(three[0].path.parent).run_test(size=(120, 40)) as pilot:
        screen = await open_comparison(pilot, runs)
        await until(pilot, lambda: "not in dddd" in series(screen))
        assert "dddd" not in chart(screen).text().splitlines()[1]


async def test_it_grows_with_the_runs(three: list[RunDir]) -> None:
    folder = three[0].path.parent
    run = record_run(folder, run_id=run_id("live"), upto="evaluate", pid=os.getpid())
    async with app_on(folder).run_test(size=(120, 40)) as pilot:
        screen = await open_comparison(pilot, [three[0], run])
        assert "▶ live" in screen.query_one(RunsLine).text()
        await turn_to(pilot, screen, "paired", "live: no per-example outcomes")
        with run.records_file.open("ab") as file:
            file.write(encode(Scalars(stage="game", step=90_000, epoch=1.0, values={"brand[new]": 1.0})))
            file.write(encode(make_cell("inoculate", "pgd", 123, 450)))
        write_outcomes(run, "train", "pgd", outcomes(9))
        await turn_to(pilot, screen, "paired", "live  train  pgd")
        await turn_to(pilot, screen, "tables", "27.3")
        await pilot.press("1")
        for _ in range(60):
            await pilot.press("right")
            if "brand[new]" in series(screen):
                break
        assert "brand[new]" in series(screen)


# --- tables, profiles, paired ----------------------------------------------------------------------------------------


async def test_tables_profiles_and_pairs(three: list[RunDir]) -> None:
    async with app_on(three[0].path.parent).run_test(size=(160, 50)) as pilot:
        screen = await open_comparison(pilot, three)
        tables = await turn_to(pilot, screen, "tables", "run ")
        assert "66.4  [62.0, 70.7]" in tables
        assert "97.1* [95.1, 98.3]" in tables
        assert "mean of 3  train       96.2 ± 0.0" in tables
        await pilot.press("tab")
        await pilot.pause()
        assert pane(screen, "profiles").display
        rows = [line.split() for line in pane(screen, "profiles").text().splitlines()]
        assert rows[:2] == [["key", "aaaa", "bbbb", "cccc"], ["seed", "0", "1", "2"]]
        pairs = (await turn_to(pilot, screen, "paired", "minus that of aaaa")).splitlines()
        assert sum(line.startswith("bbbb") for line in pairs) == 6
        assert sum(line.startswith("cccc") for line in pairs) == 6
        await pilot.press("tab")
        assert screen.query_one("#curves").display
        tabs = screen.query_one(PaneTabs)
        assert tabs.text().startswith("[1 curves]")
        for number, name in enumerate(PANES, 1):
            await pilot.click(PaneTabs, offset=(tabs.text().index(name), 0))
            await until(pilot, lambda n=number, p=name: f"[{n} {p}]" in tabs.text())  # type: ignore[misc]
            assert [name for name in PANES if screen.query_one(f"#{name}").display] == [name]


async def test_columns_move_where_they_do_not_fit(three: list[RunDir]) -> None:
    async with app_on(three[0].path.parent).run_test(size=(40, 20)) as pilot:
        screen = await open_comparison(pilot, three)
        await pilot.press("2")
        await until(pilot, lambda: "columns 1-" in pane(screen, "tables").text())
        assert pane(screen, "tables").text().splitlines()[0].split()[2] == "clean"
        await pilot.press("right")
        assert pane(screen, "tables").text().splitlines()[0].split()[2] == "fgsm"
        for _ in range(5):
            await pilot.press("l")
        assert pane(screen, "tables").text().splitlines()[0].split()[-1] == "pgd"
        for _ in range(3):
            await pilot.press("h")
        assert pane(screen, "tables").text().splitlines()[0].split()[2] == "clean"


async def test_rows_scroll_under_their_heads() -> None:
    rows = tuple((Entry(f"row {i}"), Entry(str(i))) for i in range(100))
    app = CafeApp(Path("runs"))
    async with app.run_test(size=(60, 20)) as pilot:
        screen = CompareScreen([])
        await app.push_screen(screen)
        await pilot.press("2")
        pane(screen, "tables").show(Grid(("name", "value"), (rows,)))
        await until(pilot, lambda: any(body.region for body in pane(screen, "tables").query("_Body")))
        await pilot.press("G")
        body = pane(screen, "tables").query("_Body").first()
        await until(pilot, lambda: body.region.bottom <= 20)
        assert pane(screen, "tables").query("_Heads").first().region.y == 2


@pytest.mark.parametrize("size", SIZES)
async def test_every_pane_fits_every_size(three: list[RunDir], size: tuple[int, int]) -> None:
    folder = three[0].path.parent
    change_profile(three[1], stage__evaluate__attacks=["clean", "fgsm", "pgd", "cw", "apgd-ce", "apgd-dlr"])
    async with app_on(folder).run_test(size=size) as pilot:
        screen = await open_comparison(pilot, three)
        for key in ("1", "2", "3", "4"):
            await pilot.press(key, "right", "left", "e")
            await pilot.pause()
            assert isinstance(pilot.app.screen, ExportDialog)
            await pilot.press("down", "escape")
        if size[0] < 60:
            return
        for name, shows in (("tables", "mean of 2"), ("profiles", "seed"), ("paired", "McNemar")):
            text = await turn_to(pilot, screen, name, shows)
            assert max(len(line.rstrip()) for line in text.splitlines()) <= size[0] - 2
        header = f"{screen.query_one(RunsLine).text()}\n{screen.query_one(PaneTabs).text()}"
        assert max(len(line) for line in header.splitlines()) <= size[0]


async def test_at_most_twenty_runs_and_each_once(tmp_path: Path) -> None:
    runs = [record_run(tmp_path, run_id=run_id(f"{i:04}"), upto="train") for i in range(22)]
    async with app_on(tmp_path).run_test(size=(80, 24)) as pilot:
        screen = await open_comparison(pilot, [runs[0], *runs])
        await until(pilot, lambda: "0000" in screen.query_one(RunsLine).text())
        header = screen.query_one(RunsLine).text()
        assert "the first 20 of 22" in header
        assert "more" in header
        assert len(header.splitlines()) == 2
        await until(pilot, lambda: "0019" in chart(screen).text())
        assert "0020" not in chart(screen).text()


async def test_torn_foreign_and_vanished_runs_leave_the_others_shown(three: list[RunDir]) -> None:
    folder = three[0].path.parent
    evil = folder / "evil[red]\x1b[2J"
    evil.mkdir()
    (evil / "run.json").write_text("{")
    (evil / "profile.toml").write_bytes(b"\xff\x00")
    (evil / "records.jsonl").write_bytes(b"\x00\xff{]\n" * 9)
    (three[1].outcomes / "evaluate-train-pgd.npz").write_bytes(b"torn")
    async with app_on(folder).run_test(size=(120, 40)) as pilot:
        screen = await open_comparison(pilot, [*three, RunDir(evil), RunDir(folder / "never-there")])
        shutil.rmtree(three[2].path)
        (three[0].outcomes / "touched").touch()
        pairs = await turn_to(pilot, screen, "paired", "quickstart-cccc: no per-example")
        assert "quickstart-bbbb: not compared under pgd" in " ".join(pairs.split())
        await turn_to(pilot, screen, "tables", "66.4")
        profiles = await turn_to(pilot, screen, "profiles", "not UTF-8")
        await pilot.press("1", "right", "down", "s")
        assert "quickstart-aaaa" in chart(screen).text()
        shown = f"{profiles}\n{screen.query_one(RunsLine).text()}"
        assert "evil[red]" in shown
        assert "\x1b" not in shown


async def test_nothing_is_repainted_when_nothing_changed(three: list[RunDir], monkeypatch: pytest.MonkeyPatch) -> None:
    async with app_on(three[0].path.parent).run_test(size=(120, 40)) as pilot:
        screen = await open_comparison(pilot, three)
        painted: list[Widget] = []
        refresh = Widget.refresh

        def count(self: Widget, *regions: object, **options: bool) -> Widget:
            painted.append(self)
            return refresh(self, *regions, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(Widget, "refresh", count)
        await quiet(pilot, lambda: len(painted), 0.4)
        painted.clear()
        os.utime(three[0].outcomes)  # read again, with the same result
        with three[0].records_file.open("ab") as file:
            file.write(b'{"v":1,"t":1.0,"kind":"message","text":"all is well"}\n')
        await until(pilot, lambda: "all is well" in screen._views[0].messages)
        await pilot.pause(0.1)
        assert painted == []


async def test_keys_of_the_curves_are_shown_only_there(three: list[RunDir]) -> None:
    async with app_on(three[0].path.parent).run_test(size=(120, 40)) as pilot:
        screen = await open_comparison(pilot, three)
        assert "Log" in screen.query_one(KeyBar).text()
        assert "One run" in screen.query_one(KeyBar).text()
        await pilot.press("2")
        await until(pilot, lambda: "Log" not in screen.query_one(KeyBar).text())
        await pilot.press("q")
        assert not isinstance(pilot.app.screen, CompareScreen)


# --- exporting -------------------------------------------------------------------------------------------------------


async def export(pilot: Pilot[None], screen: CompareScreen, pane_key: str, downs: int, file: Path) -> str:
    """Write what a pane shows, in the format so many rows down; its text."""
    await pilot.press(pane_key, "e")
    await until(pilot, lambda: isinstance(pilot.app.screen, ExportDialog))
    await pilot.press(*["down"] * downs)
    pilot.app.screen.query_one(Input).value = str(file)
    await pilot.press("enter")
    await until(pilot, lambda: pilot.app.screen is screen)
    return file.read_text()


async def test_every_pane_exports_its_numbers(three: list[RunDir], tmp_path: Path) -> None:
    async with app_on(three[0].path.parent).run_test(size=(120, 40)) as pilot:
        screen = await open_comparison(pilot, three)
        await until(pilot, lambda: "aaaa" in chart(screen).text())
        svg = ElementTree.fromstring(await export(pilot, screen, "1", 0, tmp_path / "a.svg"))
        assert len(svg.findall("{*}polyline")) == 3
        points = list(csv.DictReader((await export(pilot, screen, "1", 1, tmp_path / "a.csv")).splitlines()))
        assert {row["run"] for row in points} == {run.id for run in three}
        assert points[0].keys() == {"step", "run", "value"}
        assert float(points[0]["value"]) > 0
        cells = list(csv.DictReader((await export(pilot, screen, "2", 0, tmp_path / "b.csv")).splitlines()))
        assert len(cells) == 18
        assert (cells[0]["run"], cells[0]["seed"], cells[0]["correct"]) == (three[0].id, "0", "433")
        means = list(csv.DictReader((await export(pilot, screen, "2", 1, tmp_path / "c.csv")).splitlines()))
        assert (means[0]["seeds"], means[0]["n"], float(means[0]["mean"])) == ("0 1 2", "3", 100 * 433 / 450)
        assert "**97.1** [95.1, 98.3]" in await export(pilot, screen, "2", 2, tmp_path / "b.md")
        latex = await export(pilot, screen, "2", 3, tmp_path / "b.tex")
        assert r"mean of 3 & train & 96.2 $\pm$ 0.0" in latex
        settings = list(csv.reader((await export(pilot, screen, "3", 0, tmp_path / "d.csv")).splitlines()))
        assert settings == [["key", "aaaa", "bbbb", "cccc"], ["seed", "0", "1", "2"]]
        pairs = list(csv.DictReader((await export(pilot, screen, "4", 0, tmp_path / "e.csv")).splitlines()))
        assert len(pairs) == 12
        assert pairs[0]["a"] == f"{three[0].id}/train"
        assert 0 <= float(pairs[0]["p"]) <= 1
        assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


async def test_the_name_follows_the_format_and_the_present_folder(
    three: list[RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with app_on(three[0].path.parent).run_test(size=(80, 24)) as pilot:
        screen = await open_comparison(pilot, three)
        await pilot.press("3", "e")
        await until(pilot, lambda: isinstance(pilot.app.screen, ExportDialog))
        line = pilot.app.screen.query_one(Input)
        names = []
        for _ in range(4):
            names.append(line.value)
            await pilot.press("down")
        assert names == [f"compare-profiles.{end}" for end in ("csv", "md", "tex", "csv")]
        line.value = "mine.md"
        await pilot.press("down")
        assert line.value == "mine.tex"
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is screen)
        assert (tmp_path / "mine.tex").read_text().startswith(r"\begin{tabular}")


async def test_a_file_is_replaced_only_after_asking(three: list[RunDir], tmp_path: Path) -> None:
    there = tmp_path / "there.csv"
    there.write_text("mine")
    async with app_on(three[0].path.parent).run_test(size=(80, 24)) as pilot:
        screen = await open_comparison(pilot, three)
        await pilot.press("3", "e")
        await until(pilot, lambda: isinstance(pilot.app.screen, ExportDialog))
        pilot.app.screen.query_one(Input).value = str(there)
        for answer in ("n", "enter", "escape"):
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
            await pilot.press(answer)
            await until(pilot, lambda: isinstance(pilot.app.screen, ExportDialog))
            assert there.read_text() == "mine"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: pilot.app.screen is screen)
        assert there.read_text().startswith("key,")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "file name"),
        (".", "file name"),
        ("~nobody-has-this-name/a.csv", "home"),
        ("no/such/folder/a.csv", "does not exist"),
    ],
)
async def test_what_cannot_be_written_is_said_and_can_be_mended(
    three: list[RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    async with app_on(three[0].path.parent).run_test(size=(80, 24)) as pilot:
        screen = await open_comparison(pilot, three)
        await pilot.press("3", "e")
        await until(pilot, lambda: isinstance(pilot.app.screen, ExportDialog))
        dialog = pilot.app.screen
        dialog.query_one(Input).value = name
        await pilot.pause()
        await pilot.press("enter")
        await until(pilot, lambda: says in str(dialog.query_one("#hint", Static).content))
        dialog.query_one(Input).value = "good.csv"
        await pilot.pause()
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is screen)
        assert (tmp_path / "good.csv").exists()


async def test_an_empty_pane_has_nothing_to_export(tmp_path: Path) -> None:
    runs = [record_run(tmp_path, run_id=run_id(end), upto="train") for end in ("aaaa", "bbbb")]
    async with app_on(tmp_path).run_test(size=(80, 24)) as pilot:
        screen = await open_comparison(pilot, runs)
        for key in ("3", "4"):
            await pilot.press(key, "e")
            await pilot.pause()
            assert pilot.app.screen is screen
