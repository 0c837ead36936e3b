"""Profiles in files: which are found, which cannot be read, and what is written reads back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given

from engine.contract.errors import UsageError
from engine.contract.profile import files as profiles
from engine.contract.profile.explain import explain
from tests.contract.written import METHOD, OVERRIDES, SAME_FOLDER, load, with_keys, write

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_broken_toml_is_told_with_line_and_column() -> None:
    with pytest.raises(UsageError, match=r"^it\.toml: not valid TOML: .*line 2, column 8"):
        load('name = "x"\nseed = = 3\n')


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'name = "\xff"', r"not UTF-8 text \(byte 8\)"),
        (b"seed = " + b"[" * 5000, "not readable as TOML: .*nested"),
        (b"seed = 1" + b"0" * 5000, "not readable as TOML: .*digits"),
        (b"\x00\x01\x02", "not valid TOML"),
    ],
)
def test_files_that_are_no_toml(content: bytes, told: str) -> None:
    Path("it.toml").write_bytes(content)
    with pytest.raises(UsageError, match=f"^it.toml: {told}"):
        profiles.load("it.toml")


def test_a_mark_of_the_encoding_at_the_start_is_no_part_of_a_profile() -> None:
    Path("it.toml").write_bytes(b"\xef\xbb\xbf" + METHOD.encode())
    assert profiles.load("it.toml").profile == load(METHOD).profile


@pytest.mark.parametrize("text", [METHOD, 'extends = "quickstart"\n[sweep]\nseed = [0, 1]\n'])
def test_a_profile_out_of_a_stream_is_read_once_and_as_often_as_wanted(text: str) -> None:
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    try:
        sweep = profiles.load_sweep(f"/dev/fd/{reader}")
        names = [point.profile.name for point in sweep.points] if sweep else []
        names = names or [profiles.load(f"/dev/fd/{reader}").profile.name]
    finally:
        os.close(reader)
    assert names in (["whole"], ["quickstart-seed0", "quickstart-seed1"])


def test_a_stream_that_is_closed_is_one_message() -> None:
    with pytest.raises(UsageError, match="/dev/fd/99999: cannot be read"):
        profiles.load("/dev/fd/99999")


def test_a_tilde_is_the_home_folder_in_arguments_and_in_extends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    Path("home").mkdir()
    Path("home/base.toml").write_text(METHOD)
    Path("it.toml").write_text('extends = "~/base.toml"\nname = "mine"\n')
    assert profiles.load("~/base.toml").profile.name == "whole"
    assert profiles.load("it.toml").profile.name == "mine"
    with pytest.raises(UsageError, match="profile file not found"):
        profiles.load("~nobody-of-this-name/it.toml")


def test_a_directory_is_no_profile() -> None:
    Path("it.toml").mkdir()
    with pytest.raises(UsageError, match=r"profile file not found: it\.toml"):
        profiles.load("it.toml")


@pytest.mark.parametrize("name", ["nothing", "no/such/file.toml", "x" * 5000, "nul\0", "", ".", "..", "/"])
def test_names_that_lead_nowhere(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        profiles.load(name)
    assert caught.value.hint


@SAME_FOLDER
@given(OVERRIDES)
def test_what_is_written_reads_back_equal_and_resolved(overrides: dict[str, Any]) -> None:
    first = with_keys(overrides)
    text = profiles.dumps(first)
    again = profiles.from_tables(tomli.loads(text))
    assert again == first
    assert profiles.dumps(again) == text


def test_a_resolved_profile_names_no_default() -> None:
    Path("again.toml").write_text(profiles.dumps(load(METHOD).profile), encoding="utf-8")
    again = profiles.load("again.toml")
    assert again.profile == load(METHOD).profile
    assert set(again.origins.values()) == {"again.toml"}


def test_every_shipped_profile_loads_and_is_listed_with_a_description() -> None:
    folder = profiles.shipped_folder()
    files = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml")}
    entries = {entry.name: entry for entry in profiles.available() if entry.shipped}
    assert set(entries) == files
    assert "quickstart" in files
    for name, entry in entries.items():
        assert entry.description, name
        sweep = profiles.load_sweep(name)
        assert {point.path for point in (sweep.points if sweep else [profiles.load(name)])} == {entry.path}


def test_a_local_profile_hides_the_shipped_one_of_its_name() -> None:
    write(Path("quickstart.toml"), METHOD)
    write(Path("pyproject.toml"), "[project]\nname = 'no profile'\n")
    write(Path("broken.toml"), "= = =")
    assert [entry.shipped for entry in profiles.available() if entry.name == "quickstart"] == [False]
    assert not {"pyproject", "broken"} & {entry.name for entry in profiles.available()}
    assert profiles.load("quickstart").profile.name == "whole"


def test_explain_shows_every_line_of_the_file_and_where_it_comes_from() -> None:
    loaded = load(METHOD, "stage.game.lr=0.5")
    lines = explain(loaded)
    assert profiles.from_tables(tomli.loads("\n".join(line for line, _ in lines))) == loaded.profile
    origins = dict(lines)
    assert origins["lr = 0.5"] == "--set"
    assert origins['name = "whole"'] == "it.toml"
    assert origins["seed = 0"] == "default"
