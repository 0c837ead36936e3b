"""What of two profiles differs, and what is said of one that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cafe_tui.results import grids
from cafe_tui.results.groups import Compared
from cafe_tui.results.settings import read_settings
from engine.contract.profile import files as profiles
from engine.contract.run.results import table
from tests.recorded import record_run
from tests.ui.compared import change_profile, run_id, texts


def test_profiles_show_only_what_differs(tmp_path: Path) -> None:
    one, two = record_run(tmp_path, run_id=run_id("aaaa")), record_run(tmp_path, run_id=run_id("bbbb"))
    change_profile(two, seed=3, name="other", description="other words", stage__game__epochs=7, threat__eps=0.3)
    runs = [Compared(run.id, run.id[-4:], read_settings(run), table([])) for run in (one, two)]
    grid = grids.profile_grid(runs)
    assert grid.head == ("key", "aaaa", "bbbb")
    found = {row[0]: row[1:] for row in texts(grid)}
    assert found["seed"] == ["0", "3"]
    assert found["threat.eps"] == ["0.15", "0.3"]
    assert found["stage.game.epochs"] == ["10", "7"]
    assert not {"name", "description", "stages"} & found.keys()
    same = grids.profile_grid([runs[0], runs[0]])
    assert not same.sections
    assert "All settings are the same" in same.notes[0]


def test_stages_are_told_apart_by_their_ids_not_their_places(tmp_path: Path) -> None:
    one, two = record_run(tmp_path, run_id=run_id("aaaa")), record_run(tmp_path, run_id=run_id("bbbb"))
    tables = profiles.read_toml(two.profile_file)
    tables["stage"] = [tables["stage"][0], *tables["stage"][3:]]
    tables["stage"][1]["models"] = ["train"]
    two.profile_file.write_text(profiles.dumps(profiles.from_tables(tables)), encoding="utf-8")
    runs = [Compared(run.id, run.id[-4:], read_settings(run), table([])) for run in (one, two)]
    found = {row[0]: row[1:] for row in texts(grids.profile_grid(runs))}
    assert found["stages"] == ["train, game, inoculate, evaluate", "train, evaluate"]
    assert found["stage.game.epochs"] == ["10", "-"]
    assert not any(key.startswith("stage.train.") for key in found)


@pytest.mark.parametrize("text", ["", "seed = ", "name = 'x'\n[[stage]]\nkind = 'nonsense'", None])
def test_a_profile_that_cannot_be_read_is_said_in_one_line(tmp_path: Path, text: str | None) -> None:
    one, two = record_run(tmp_path, run_id=run_id("aaaa")), record_run(tmp_path, run_id=run_id("bbbb"))
    two.profile_file.unlink()
    if text is not None:
        two.profile_file.write_text(text)
    runs = [Compared(run.id, run.id[-4:], read_settings(run), table([])) for run in (one, two)]
    grid = grids.profile_grid(runs)
    assert not grid.sections
    [problem] = grid.remarks
    assert problem.startswith("bbbb: ")
    assert "profile.toml" in problem
    assert "\n" not in problem
