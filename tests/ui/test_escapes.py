"""Control characters in files and arguments reach no terminal, whichever command prints them."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafe_tui.results import exporting
from cafe_tui.ui.app import CafeApp
from cafe_tui.ui.screens.run import RunScreen
from cafe_tui.ui.screens.runs import RunsScreen
from engine.contract.printing import printable_lines
from engine.contract.run.records import ErrorNote, Message, StageChange, WarningNote, encode, to_json
from engine.contract.run.results import Results, make_cell
from engine.contract.run.rundir import RunDir, State, write_atomically
from tests.recorded import START, record_run
from tests.ui.waiting import until

EVIL = "ε\x1b]0;t\x07\x1b[7;9H\x9b5n\x85\u202e\u2066\u200f\x7f\x00\r日"
"""Sets a title, moves the cursor, asks the terminal for an answer, turns the direction of writing; ours never do."""
OURS = re.compile(r"\x1b\[\??[\d;]*[A-Za-z]")
"""What our own painter writes: colours, moves, its cursor hidden and shown."""


def hostile_run(runs: Path, run_id: str, tag: str) -> RunDir:
    """A finished run with control characters in all that has room for some."""
    run = record_run(runs, run_id=run_id, tags=(tag, EVIL))
    stage = StageChange(stage=f"s\n{EVIL}", stage_kind="train", total_steps=3)
    cells = [make_cell(f"m\n{EVIL}", f"a\n{EVIL}", 3, 9, warnings=[EVIL]), make_cell("train", "pgd", 5, 9)]
    notes = [WarningNote(text=f"w\n{EVIL}"), ErrorNote(text=EVIL, hint=EVIL), Message(text=f"x\n{EVIL}")]
    with run.records_file.open("ab") as file:
        for record in (stage, *cells, *notes):
            file.write(encode(record))
    info = msgspec.structs.replace(
        run.info(), name=f"n{EVIL}", note=f"one\n{EVIL}", description=EVIL, host=EVIL, versions={f"v{EVIL}": EVIL}
    )
    write_atomically(run.info_file, to_json(info))
    headline = {"robust": 1.0, "attack": f"a\n{EVIL}"}
    write_atomically(run.results_file, to_json(Results(cells=cells, headline=headline)))
    failed = State(state="failed", stage=f"s\n{EVIL}", error=f"e\n{EVIL}", hint=EVIL, heartbeat=START + 9)
    run.write_state(failed)
    run.log_file.write_text(f"log\t{EVIL}\nend\n", encoding="utf-8")
    for attack in ("clean", "pgd"):
        outcomes = run.outcomes / f"evaluate-train-{attack}.npz"
        np.savez_compressed(outcomes, right=np.ones(8, dtype=bool), labels=np.arange(8))
    return run


TYPED = """
import json, os, sys
from cafe_tui.__main__ import main
for command in json.loads(os.environ["COMMANDS"]):
    sys.argv[1:] = command
    try:
        main()
    except SystemExit:
        pass
    sys.stdout.flush(), sys.stderr.flush()
    os.write(1, b"\\x1e")
"""
"""A process that does one command after the other: each of its own would load everything anew."""


def on_a_terminal(*commands: list[str], cwd: Path) -> list[str]:
    """What each command writes to a terminal that is both its output and its error output."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", TYPED],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", "COMMANDS": json.dumps(commands)},
    )
    os.close(theirs)
    said = b""
    with suppress(OSError):  # Linux: the other end is closed
        while piece := os.read(ours, 1 << 16):
            said += piece
    child.wait()
    os.close(ours)
    return said.decode().split("\x1e")[:-1]


def assert_tame(said: str, what: object) -> None:
    """Nothing but characters to see, ends of lines, and codes of our own."""
    assert "\x1b[7;9H" not in said, what
    for line in OURS.sub("", said).replace("\r\n", "\n").replace("\r", "").split("\n"):
        assert line.isprintable(), (what, line)


def test_no_command_prints_control_characters(tmp_path: Path) -> None:
    runs, odd = tmp_path / "runs", f"20260921-144000-q{EVIL.replace(chr(0), '')}-k3f9"
    one = hostile_run(runs, odd, "both")
    hostile_run(runs, f"{odd}2", "both")
    folder = tmp_path / "profiles"
    folder.mkdir()
    text = one.profile_file.read_text(encoding="utf-8")
    escaped = EVIL.encode("unicode_escape").decode().replace("\\x", "\\u00")
    (folder / f"p{EVIL.replace(chr(0), '')}.toml").write_text(text.replace("quickstart", f"q{escaped}", 1))
    (folder / "described.toml").write_text(f'extends = "quickstart"\ndescription = "{escaped}"\n', encoding="utf-8")
    name = one.id
    commands = [
        ["ls"],
        ["show", name],
        ["watch", name],
        ["watch", name, "--plain"],
        ["watch", "both"],
        ["watch", "both", "--plain"],
        ["logs", name],
        ["plot", name],
        ["plot", name, "--series", EVIL],
        ["plot", name, "--svg", str(tmp_path / f"{EVIL.replace(chr(0), '')}.svg")],
        ["table", name],
        ["table", "both", "--format", "csv"],
        ["table", "both", "--format", "markdown"],
        ["table", "both", "--format", "latex"],
        ["table", "both", "--seeds"],
        ["compare", name, f"{name}2"],
        ["compare", name, f"{name}2", "--attack", EVIL],
        ["profiles"],
        ["profile", "described"],
        ["profile", f"p{EVIL}"],
        ["run", "described", "--dry-run"],
        ["run", f"p{EVIL}", "--set", f"{EVIL}={EVIL}"],
        ["tag", name, "more"],
        ["tag", name, EVIL],
        ["note", name, EVIL],
        ["stop", name],
        ["stop", EVIL],
        ["resume", name],
        ["ls", f"--{EVIL}"],
        ["ls", "--state", EVIL],
        [EVIL],
        ["rm", name],
        ["rm", name, "--yes"],
    ]
    lines: dict[str, str] = {}
    for command, said in zip(commands, on_a_terminal(*commands, cwd=tmp_path), strict=True):
        assert said, command
        assert_tame(said, command)
        lines[command[0]] = lines.get(command[0], "") + said
    for verb in ("ls", "show", "watch", "logs", "table", "tag", "note", "stop", "rm", "compare", "profiles"):
        assert "ε" in lines[verb], f"{verb} lost a letter"
    assert not one.path.exists()


def test_a_name_with_a_newline_makes_no_line_of_its_own(tmp_path: Path) -> None:
    record_run(tmp_path / "runs", run_id="20260921-144000-q\nfaked-k3f9")
    (said,) = on_a_terminal(["ls"], cwd=tmp_path)
    assert len(said.splitlines()) == 2
    assert "q�faked" in said


@pytest.mark.parametrize("sign", ["\x1b", "\x7f", "\x85", "\x9b", "\u061c", "\u200e", "\u202e", "\u2069", "\U000e0001"])
def test_json_escapes_what_a_terminal_would_obey(sign: str) -> None:
    written = to_json({"a": f"ε日{sign}é"})
    assert written.decode().isprintable()
    assert "ε日" in written.decode()
    assert json.loads(written) == {"a": f"ε日{sign}é"}


@given(st.text())
def test_json_reads_back_as_it_was(text: str) -> None:
    assert json.loads(to_json([text])) == [text]
    assert to_json([text]).decode().isprintable()


@given(st.text())
def test_printed_lines_are_as_many_and_as_long(text: str) -> None:
    shown = printable_lines(text)
    assert len(shown) == len(text)
    assert shown.replace("\n", "").isprintable()
    assert shown.count("\n") == text.count("\n")


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@a", "\ta", "\ra", "  =1", "-", "=", "-1+2", "+1;2"])
def test_csv_fields_are_no_formulas(text: str) -> None:
    ((field,),) = csv.reader(exporting.csv_lines([text], []))
    assert field.startswith("'")


@pytest.mark.parametrize("value", [-1.5, -3, "-1.5", "+2", "-1e-05", "-inf", ".5", "a=b", "ε", "m-1", "", None])
def test_csv_numbers_and_words_stay(value: object) -> None:
    (row,) = csv.reader([*exporting.csv_lines(["x", "y"], [(value, "end")])][1:])
    assert row[0] == ("" if value is None else str(value))


def test_a_csv_field_is_one_line() -> None:
    assert len(exporting.csv_lines(("a",), [("x\ny\x1b\u2028",)])) == 2


async def test_no_screen_shows_control_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Panes and dialogs of two hostile runs, as they would be drawn."""
    monkeypatch.setattr(RunsScreen, "PERIOD", 0.05)
    monkeypatch.setattr(RunScreen, "PERIOD", 0.05)
    for end in ("k3f9", "k3fa"):
        hostile_run(tmp_path, f"20260921-144000-q{EVIL.replace(chr(0), '')}-{end}", "both")
    app = CafeApp(tmp_path, clock=lambda: START + 60)
    seen = ""

    def look() -> None:
        nonlocal seen
        for strip in app.screen._compositor.render_strips():
            assert strip.text.isprintable(), strip.text
            seen += strip.text

    async with app.run_test(size=(150, 50)) as pilot:
        await until(pilot, lambda: "ε" in "".join(s.text for s in app.screen._compositor.render_strips()))
        look()
        for keys in (["d"], ["escape", "t"], ["escape", "n"], ["escape", "space", "down", "space", "c"], ["2"], ["3"]):
            await pilot.press(*keys)
            await pilot.pause()
            look()
        await pilot.press("escape", "escape", "enter")
        await until(pilot, lambda: isinstance(app.screen, RunScreen))
        for key in "1234567":
            await pilot.press(key)
            await pilot.pause()
            look()
    assert "�]0;t" in seen
