"""A new run through its keys: pick, edit, see what the loader says, start, save, leave."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from cafe_tui.launch import costs, host, local
from cafe_tui.launch.host import Gpu, Sample
from cafe_tui.profiles import forms
from cafe_tui.profiles.forms import Choice
from cafe_tui.ui.app import CafeApp
from cafe_tui.ui.screens.launch import LaunchScreen, Verdict
from cafe_tui.ui.screens.run import RunScreen
from cafe_tui.ui.screens.runs import RunsScreen
from cafe_tui.ui.widgets.confirm import Confirm
from cafe_tui.ui.widgets.profile_form import Editor, ProfileForm
from cafe_tui.ui.widgets.run_table import RunTable
from cafe_tui.ui.widgets.sweep_plan import SweepPlan
from engine.contract.errors import UsageError
from engine.contract.profile import files as profiles
from engine.contract.profile.files import Loaded
from engine.contract.run import listing
from engine.contract.run.rundir import RunDir
from tests.patience import PATIENCE, wait_until
from tests.recorded import record_run
from tests.ui.waiting import until


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(host, "look", lambda _: None)


def said(pilot: Pilot[None]) -> str:
    return pilot.app.screen.query_one(Verdict).text()


def line(pilot: Pilot[None], selector: str) -> str:
    return str(pilot.app.screen.query_one(selector, Static).content)


def form(pilot: Pilot[None]) -> ProfileForm:
    return pilot.app.screen.query_one(ProfileForm)


async def open_form(pilot: Pilot[None], name: str = "quickstart") -> LaunchScreen:
    """Open the form of a shipped profile with the keyboard."""
    await pilot.press("N")
    await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen))
    screen = pilot.app.screen
    assert isinstance(screen, LaunchScreen)
    options = screen.query_one(OptionList)
    await until(pilot, lambda: options.option_count > 0)
    titles = [str(option.prompt).split()[0] for option in options.options]
    options.highlighted = titles.index(name)
    await pilot.press("enter")
    await until(pilot, lambda: form(pilot).selected is not None)
    return screen


async def go_to(pilot: Pilot[None], key: str) -> None:
    """Move the cursor to a key, from the top."""
    await pilot.press("home")
    while (field := form(pilot).selected) and field.key != key:
        await pilot.press("down")
        await pilot.pause()
        assert form(pilot).selected != field, f"no key {key}"


async def type_value(pilot: Pilot[None], key: str, text: str) -> None:
    await go_to(pilot, key)
    await pilot.press("enter")
    await until(pilot, lambda: pilot.app.screen.query_one(Editor).has_focus)
    await pilot.press("ctrl+u", *text)


@pytest.mark.parametrize("size", [(60, 20), (120, 40)])
async def test_every_key_of_a_picked_profile_can_be_reached_and_is_explained(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    async with CafeApp(tmp_path).run_test(size=size) as pilot:
        await open_form(pilot)
        expected = [field.key for field in forms.fields(profiles.load("quickstart").profile)]
        for number, key in enumerate(expected):
            field = form(pilot).selected
            assert field is not None
            assert field.key == key
            assert field.label in form(pilot).text()
            if number % 10 == 0:
                await until(pilot, lambda key=key: line(pilot, "#meaning").startswith(f"{key}: "))  # type: ignore[misc]
            await pilot.press("tab")
        assert "image passes" in line(pilot, "#cost")


async def test_problems_are_told_while_typing_and_forbid_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Loaded] = []
    monkeypatch.setattr(local, "start", lambda runs, loaded, **_: started.append(loaded))
    async with CafeApp(tmp_path).run_test(size=(120, 40)) as pilot:
        await open_form(pilot)
        await type_value(pilot, "threat.eps", "-1")
        await until(pilot, lambda: "threat.eps: found -1; allowed: a number > 0" in said(pilot))
        await pilot.press("ctrl+s")
        await pilot.pause(0.1)
        assert not started
        await pilot.press("ctrl+u", *"8/255")
        await until(pilot, lambda: "threat.eps: 0.15 -> 0.0313" in said(pilot))
        assert "stage.2.gamma: 0.0375 -> " in said(pilot)  # follows
        await pilot.press("escape")
        await until(pilot, lambda: said(pilot) == "as in the profile")


async def test_words_are_turned_and_taken_back_without_typing(tmp_path: Path) -> None:
    async with CafeApp(tmp_path).run_test(size=(120, 40)) as pilot:
        await open_form(pilot)
        await go_to(pilot, "data.augment")
        await pilot.press("space")
        await until(pilot, lambda: "data.augment: true -> false" in said(pilot))
        assert "* augment" in form(pilot).text()
        await pilot.press("backspace")
        await until(pilot, lambda: said(pilot) == "as in the profile")


async def test_devices_are_offered_and_told_with_how_free_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = (Gpu(name="A100 [b]", use=90.0, memory_used=30 << 30, memory_total=40 << 30), Gpu(name="T4"))
    monkeypatch.setattr(host, "look", lambda _: Sample(t=0.0, cores=[0.0] * 8, load=(2.5, 0, 0), gpus=gpus))
    async with CafeApp(tmp_path).run_test(size=(120, 40)) as pilot:
        await open_form(pilot)
        await go_to(pilot, "compute.device")
        await until(pilot, lambda: "cuda:0: A100 [b], 90% busy, 10 of 40 GiB free" in line(pilot, "#meaning"))
        assert "cpu: 8 cores, load 2.5" in line(pilot, "#meaning")
        await pilot.press("right")
        await until(pilot, lambda: "compute.device: auto -> cuda:1" in said(pilot))


async def test_starts_what_the_form_says_and_opens_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Loaded, Sequence[str]]] = []

    def start(runs: Path, loaded: Loaded, *, command: Sequence[str]) -> tuple[RunDir, subprocess.Popen[bytes]]:
        calls.append((loaded, command))
        if len(calls) == 1:
            raise UsageError("cannot start the engine: no luck")
        engine = subprocess.Popen([sys.executable, "-c", ""])
        engine.wait(PATIENCE)
        return record_run(runs), engine

    monkeypatch.setattr(local, "start", start)
    async with CafeApp(tmp_path / "runs").run_test(size=(120, 40)) as pilot:
        await open_form(pilot)
        await type_value(pilot, "seed", "7")
        await pilot.press("enter")
        await until(pilot, lambda: "seed: 0 -> 7" in said(pilot))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "no luck" in said(pilot))
        assert "seed: 0 -> 7" in said(pilot)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
    loaded, command = calls[1]
    assert loaded.profile.seed == 7
    assert command == ["cafe", "run", "quickstart", "--set", "seed=7"]


SWEEP = """
name = "tiny"
description = "a tiny sweep"
[sweep]
seed = [0]
[compute]
device = "cpu"
threads = 1
[[stage]]
kind = "train"
epochs = 1
adversary.steps = 1
"""


async def test_a_sweep_tells_what_it_would_start_and_is_queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "_speeds", lambda wanted, _: [1e6] * len(wanted))
    (tmp_path / "tiny.toml").write_text(SWEEP, encoding="utf-8")
    runs = tmp_path / "runs"
    async with CafeApp(runs).run_test(size=(80, 24)) as pilot:
        await pilot.press("N")
        await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen))
        await until(pilot, lambda: pilot.app.screen.query_one(OptionList).option_count > 0)
        await pilot.press("enter")  # local profiles come first
        plan = pilot.app.screen.query_one(SweepPlan)
        await until(pilot, lambda: "by a measurement on this host" in plan.text())
        assert ": 1 run to do" in plan.text()
        await pilot.press("w")
        assert isinstance(pilot.app.screen, LaunchScreen), "there is no form to save"
        assert not runs.exists(), "nothing is written before the start"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        await until(pilot, lambda: len(pilot.app.screen.query_one(RunTable).on_screen) == 1)
    (run,) = listing.newest_first(runs)
    assert run.info().command == ["cafe", "run", "tiny"]
    wait_until(lambda: run.status().final)  # it goes on when the screen is gone
    assert run.status().state == "finished"
    async with CafeApp(runs).run_test(size=(80, 24)) as pilot:
        await pilot.press("N")
        await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen))
        await until(pilot, lambda: pilot.app.screen.query_one(OptionList).option_count > 0)
        await pilot.press("enter")
        plan = pilot.app.screen.query_one(SweepPlan)
        await until(pilot, lambda: "its run is finished" in plan.text())
        await pilot.press("ctrl+s", "escape")
        await until(pilot, lambda: pilot.app.screen.query_one(OptionList).has_focus)
    assert len(list(listing.newest_first(runs))) == 1


async def test_asks_before_edits_are_lost(tmp_path: Path) -> None:
    async with CafeApp(tmp_path).run_test(size=(80, 24)) as pilot:
        screen = await open_form(pilot)
        await type_value(pilot, "seed", "7")
        await pilot.press("enter", "escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("n")
        await until(pilot, lambda: "seed: 0 -> 7" in said(pilot))
        await pilot.press("escape", "y")
        await until(pilot, lambda: screen.query_one(OptionList).has_focus)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


async def test_saves_a_profile_that_loads_to_the_same(tmp_path: Path) -> None:
    async with CafeApp(tmp_path).run_test(size=(120, 40)) as pilot:
        await open_form(pilot)
        await type_value(pilot, "stage.0.epochs", "3")
        await pilot.press("enter")
        await until(pilot, lambda: "stage.0.epochs: 15 -> 3" in said(pilot))
        await pilot.press("w")
        await until(pilot, lambda: isinstance(pilot.app.focused, Input))
        await pilot.press(*"short", "enter")
        await until(pilot, lambda: (tmp_path / "profiles" / "short.toml").exists())
    text = (tmp_path / "profiles" / "short.toml").read_text()
    assert text == 'extends = "quickstart"\nname = "short"\n\n[set]\n"stage.train.epochs" = 3\n'
    assert profiles.load("short").profile.stage == profiles.load("quickstart", ["stage.0.epochs=3"]).profile.stage


@pytest.mark.parametrize("name", ["quickstart", "../up", ""])
def test_names_that_are_taken_or_not_allowed_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        forms.save(Choice("quickstart", "quickstart", "shipped", ""), name, {})


def test_profiles_of_earlier_runs_are_offered(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    titles = [choice.title for choice in forms.choices(tmp_path)]
    assert titles.index("quickstart") < titles.index(run.id) < titles.index("paper/base"), "before dozens of grids"


def test_every_value_of_every_shipped_profile_survives_the_form() -> None:
    for entry in profiles.available():
        if profiles.load_sweep(entry.name):
            assert forms.check(entry.name, {}).sweep is not None
            continue
        loaded = profiles.load(str(entry.path))
        edits = {field.key: (field, field.text) for field in forms.fields(loaded.profile) if field.text}
        assert profiles.load(str(entry.path), forms.overrides(edits)).profile == loaded.profile
