"""The commands as a user or a script meets them: exit codes, streams, documents, imports. Real processes."""

from __future__ import annotations

import csv
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cafe_tui import cli
from cafe_tui.cli import app
from engine.contract.profile import files as profiles
from tests.patience import PATIENCE
from tests.recorded import record_run

VERBS = [verb.name for verb in cli.VERBS if not isinstance(verb.action, typer.Typer)]
OF_OLD = {"run", "watch", "stop", "resume", "attack", "import", "profiles", "profile", "ls", "show", "logs", "plot"}
OF_OLD |= {"table", "compare", "rm", "tag", "note", "serve", "doctor"}
"""Verbs that people and scripts use: a new one needs no row here."""
RUN = "20260921-144000-quickstart-k3f9"


def cafe(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `cafe` in a folder, over pipes."""
    clean = {key: value for key, value in os.environ.items() if key not in ("CAFE_RUNS", "NO_COLOR", "CAFE_DEBUG")}
    return subprocess.run(
        [sys.executable, "-m", "cafe_tui", *arguments],
        cwd=cwd,
        env={**clean, "PYTHONIOENCODING": "utf-8", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with two runs of the same second."""
    record_run(tmp_path / "runs")
    record_run(tmp_path / "runs", run_id="20260921-144000-quickstart-zzzz", upto="game", tags=("slow", "a"))
    return tmp_path


def refused(*arguments: str, cwd: Path, says: list[str], code: int = 2) -> None:
    """One clear message on stderr, nothing on stdout, no traceback, nothing half-made."""
    before = sorted(cwd.rglob("*"))
    answer = cafe(*arguments, cwd=cwd)
    assert answer.returncode == code, answer.stderr
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr
    for text in says:
        assert text in answer.stderr
    assert sorted(cwd.rglob("*")) == before


def test_every_row_is_a_command_and_none_of_old_is_gone() -> None:
    known = [command.name for command in app.registered_commands]
    assert known == VERBS
    assert set(known) >= OF_OLD


def test_every_file_of_a_verb_has_its_row() -> None:
    files = {module.name for module in pkgutil.iter_modules(cli.__path__)} - {"options"}
    actions = [verb.action for verb in cli.VERBS]
    commands = [
        command.callback
        for action in actions
        for command in (action.registered_commands if isinstance(action, typer.Typer) else ())
    ]
    modules = {function.__module__.rpartition(".")[2] for function in filter(callable, [*actions, *commands])}
    assert modules - {"main"} == files
    assert len({verb.name for verb in cli.VERBS}) == len(cli.VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, tmp_path: Path) -> None:
    answer = cafe(verb, "-h", cwd=tmp_path)
    assert answer.returncode == 0
    assert f"Example: cafe {verb}" in answer.stdout
    assert answer.stderr == ""


def test_cafe_on_a_pipe_prints_help_and_exits_2(tmp_path: Path) -> None:
    answer = cafe(cwd=tmp_path)
    assert answer.returncode == 2
    assert "Commands:" in answer.stdout
    assert cafe("--version", cwd=tmp_path).stdout.startswith("cafe ")


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (["--help"], ["torch", "textual", "textual_image", "numpy", "msgspec", "rich"]),
        (["--version"], ["torch", "textual", "numpy", "msgspec", "rich"]),
        (["run", "--help"], ["torch", "textual", "numpy", "msgspec", "rich"]),
        (["run", "quickstart", "--dry-run"], ["torch", "textual", "numpy", "rich"]),
        (["profiles"], ["torch", "textual", "numpy", "rich"]),
        (["ls"], ["torch", "textual", "numpy", "rich"]),
        (["show", "last"], ["torch", "textual", "numpy"]),
        (["table", "last"], ["torch", "textual", "numpy"]),
        (["plot", "last"], ["torch", "textual", "numpy"]),
    ],
)
def test_no_command_imports_what_it_does_not_need(arguments: list[str], forbidden: list[str], folder: Path) -> None:
    script = (
        "import sys; sys.argv = ['cafe', *sys.argv[1:]]\n"
        "from cafe_tui.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print([name for name in {forbidden!r} if name in sys.modules], file=sys.stderr)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.splitlines()[-1] == "[]"


def test_completion_imports_nothing_heavy(tmp_path: Path) -> None:
    environment = {**os.environ, "_CAFE_COMPLETE": "complete_bash", "COMP_WORDS": "cafe pro", "COMP_CWORD": "1"}
    script = (
        "import sys, atexit; sys.argv = ['cafe']\n"
        "heavy = lambda: [n for n in ('torch', 'textual', 'numpy', 'msgspec', 'rich') if n in sys.modules]\n"
        "atexit.register(lambda: print(heavy(), file=sys.stderr))\n"
        "from cafe_tui.__main__ import main; main()"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert {"profile", "profiles"} <= set(answer.stdout.split())
    assert answer.stderr.strip() == "[]"


def test_ls_lists_filters_and_sorts(folder: Path) -> None:
    text = cafe("ls", cwd=folder).stdout
    assert "✓ finished" in text
    assert "? lost" in text
    assert "69.6 pgd (+3.1)" in text
    document = json.loads(cafe("ls", "--json", cwd=folder).stdout)
    assert [run["state"] for run in document["runs"]] == ["lost", "finished"]
    assert document["runs"][1]["progress"] == 1.0
    assert document["runs"][1]["headline"]["robust"] == pytest.approx(69.5556, abs=1e-3)
    for option, wanted in ((("--state", "finished"), ["k3f9"]), (("--tag", "slow"), ["zzzz"]), (("--tag", "x"), [])):
        rows = json.loads(cafe("ls", "--json", *option, cwd=folder).stdout)["runs"]
        assert [row["id"][-4:] for row in rows] == wanted
    rows = json.loads(cafe("ls", "--json", "--sort", "robust", cwd=folder).stdout)["runs"]
    assert [row["id"][-4:] for row in rows] == ["k3f9", "zzzz"]
    assert "No runs in" in cafe("ls", "--runs", "elsewhere", cwd=folder).stdout
    assert cafe("ls", cwd=folder, CAFE_RUNS="elsewhere").stdout.startswith("No runs in elsewhere")
    before = cafe("--runs", "nowhere", "ls", cwd=folder, CAFE_RUNS="elsewhere")
    assert before.stdout.startswith("No runs in nowhere"), "an option before the verb counts as well"
    assert cafe("--runs", "nowhere", "ls", "--runs", "here", cwd=folder).stdout.startswith("No runs in here")


def test_ls_works_where_the_locale_is_ascii(folder: Path) -> None:
    answer = cafe("ls", cwd=folder, PYTHONIOENCODING="ascii")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.isascii()


def test_a_folder_whose_name_is_not_utf8_can_be_listed_and_shown(tmp_path: Path) -> None:
    runs = tmp_path / os.fsdecode(b"runs-\xff")
    try:
        record_run(runs)
    except OSError:
        pytest.skip("this file system only takes UTF-8 names")
    for arguments in (("ls",), ("show", "last"), ("doctor",)):
        answer = cafe(*arguments, "--json", "--runs", str(runs), cwd=tmp_path)
        assert answer.returncode == 0, answer.stderr
        json.loads(answer.stdout)
    assert cafe("show", "last", "--runs", str(runs), cwd=tmp_path).returncode == 0
    refused("show", "nope", "--runs", str(runs), cwd=tmp_path, says=["no run 'nope' in"])


def test_show_tells_everything(folder: Path) -> None:
    text = cafe("show", RUN, cwd=folder).stdout
    for part in (RUN, "finished", "stages", "inoculate", "96.2", "McNemar", "records.jsonl", "torch"):
        assert part in text
    document = json.loads(cafe("show", RUN, "--json", cwd=folder).stdout)
    assert document["profile"]["name"] == "quickstart"
    assert document["path"] == str(folder / "runs" / RUN)
    assert len(document["results"]["cells"]) == 6
    assert "no sign of life" in cafe("show", "20260921-144000-quickstart-z", cwd=folder).stdout


def test_table_in_every_format(folder: Path) -> None:
    text = cafe("table", RUN, cwd=folder).stdout
    assert "inoculate - train" in text
    assert "66.4 [62.0, 70.7]" in text
    markdown = cafe("table", RUN, "--format", "markdown", cwd=folder).stdout.splitlines()
    assert markdown[0] == "| accuracy % | clean | fgsm | pgd |"
    assert markdown[2].startswith("| train | 96.2 [94.0, 97.6] |")
    latex = cafe("table", RUN, "--format", "latex", cwd=folder).stdout.splitlines()
    assert latex[0] == r"\begin{tabular}{lrrr}"
    assert latex[4] == (
        r"train & 96.2 {\scriptsize [94.0, 97.6]} & 74.4 {\scriptsize [70.2, 78.3]} "
        r"& 66.4 {\scriptsize [62.0, 70.7]} \\"
    )
    rows = list(csv.DictReader(cafe("table", RUN, "--format", "csv", cwd=folder).stdout.splitlines()))
    assert [(row["model"], row["attack"], row["correct"]) for row in rows[:2]] == [
        ("train", "clean", "433"),
        ("train", "fgsm", "335"),
    ]
    assert float(rows[0]["accuracy"]) == 100 * 433 / 450
    document = json.loads(cafe("table", RUN, "--json", cwd=folder).stdout)
    wanted = {"model", "attack", "correct", "total", "accuracy", "low", "high", "seconds", "gradient_steps", "warnings"}
    assert wanted <= document["cells"][0].keys()
    both = cafe("table", RUN, "20260921-144000-quickstart-zzzz", cwd=folder)
    assert f"{RUN}/train" in both.stdout
    assert "no finished cell" in both.stderr


def test_plot_in_the_terminal_and_as_a_file(folder: Path) -> None:
    text = cafe("plot", RUN, cwd=folder).stdout
    assert "hypothesis loss" in text
    chosen = cafe("plot", RUN, "--series", "psi,game/regulariser", "--width", "60", "--height", "12", cwd=folder).stdout
    assert "psi" in chosen
    assert all(len(line) <= 60 for line in chosen.splitlines())
    answer = cafe("plot", RUN, "--svg", "curves.svg", cwd=folder)
    assert answer.stdout == "curves.svg\n"
    assert (folder / "curves.svg").read_text().startswith("<svg")
    refused("plot", RUN, "--series", "pssi", cwd=folder, says=["no series 'pssi'", "psi"])


def test_logs_print_and_follow_to_the_end(folder: Path) -> None:
    log = folder / "runs" / RUN / "engine.log"
    log.write_bytes(b"one\n\x1b[2Jtwo\nthree\n")
    assert cafe("logs", RUN, cwd=folder).stdout == "one\n�[2Jtwo\nthree\n"
    assert cafe("logs", RUN, "-n", "1", cwd=folder).stdout == "three\n"
    assert cafe("logs", RUN, "-f", cwd=folder).stdout.endswith("three\n"), "a finished run is not waited for"


def test_watch_of_a_finished_run_prints_its_summary(folder: Path) -> None:
    text = cafe("watch", RUN, cwd=folder).stdout
    assert "inoculate - train" in text
    assert "\x1b" not in text


def test_stop_tells_what_it_did(folder: Path) -> None:
    assert "is finished already" in cafe("stop", RUN, cwd=folder).stdout
    assert json.loads(cafe("stop", RUN, "--json", cwd=folder).stdout)["runs"][0]["asked"] is False


def test_profiles_and_profile(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "quickstart"\nname = "mine"\ndescription = "[b]x[/b]"\n')
    text = cafe("profiles", cwd=tmp_path).stdout
    rows = [line.split(maxsplit=2) for line in text.splitlines()]
    assert rows[0] == ["mine", "local", "[b]x[/b]"]
    assert rows[1][:2] == ["quickstart", "shipped"], "before the grids, which are many"
    listed = json.loads(cafe("profiles", "--json", cwd=tmp_path).stdout)["profiles"]
    assert {row["name"] for row in listed if "/" not in row["name"]} == {"mine", "quickstart", "reproduction"}
    lines = cafe("profile", "mine", "--set", "seed=3", cwd=tmp_path).stdout.splitlines()
    assert any(line.startswith("seed = 3") and line.endswith("# --set") for line in lines)
    assert any(line.startswith('name = "mine"') and line.endswith("mine.toml") for line in lines)
    assert any(line.startswith("lambda = 1.0") and line.endswith("# default") for line in lines)
    document = json.loads(cafe("profile", "mine", "--json", cwd=tmp_path).stdout)
    assert document["profile"]["name"] == "mine"
    assert "$defs" in json.loads(cafe("profile", "--schema", cwd=tmp_path).stdout)


def test_profile_shows_that_of_a_run_too(folder: Path) -> None:
    document = json.loads(cafe("profile", RUN, "--json", cwd=folder).stdout)
    assert document["profile"]["name"] == "quickstart"
    assert document["path"].endswith(f"{RUN}/profile.toml")
    refused("profile", "nope", cwd=folder, says=["unknown profile: nope"])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_the_runs_folder(verb: str, tmp_path: Path) -> None:
    assert "--runs DIR" in cafe(verb, "--help", cwd=tmp_path).stdout


def test_dry_run_prints_a_profile_that_can_be_run_and_makes_nothing(tmp_path: Path) -> None:
    answer = cafe("run", "quickstart", "--dry-run", "--set", "threat.eps=8/255", "--device", "cpu", cwd=tmp_path)
    assert answer.returncode == 0
    (tmp_path / "again.toml").write_text(answer.stdout)
    again = cafe("run", "again.toml", "--dry-run", cwd=tmp_path)
    assert again.stdout == answer.stdout
    profile = profiles.load(str(tmp_path / "again.toml")).profile
    assert (profile.threat.eps, profile.compute.device) == (8 / 255, "cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["again.toml"]


def test_bad_usage_is_one_message_and_exit_2(folder: Path) -> None:
    (folder / "broken.toml").write_text('name = "x"\n[threat\neps = 1\n')
    (folder / "wrong.toml").write_text(
        'name = "x"\n[threat]\neps = -1\nnrom = "l2"\n[[stage]]\nkind = "train"\nepochs = 0\n'
        '[[stage]]\nkind = "inoculate"\nlr = "fast"\n'
    )
    (folder / "order.toml").write_text('name = "x"\n[[stage]]\nkind = "inoculate"\n')
    refused("run", "quikstart", cwd=folder, says=["unknown profile: quikstart", "Did you mean `quickstart`?"])
    refused("run", "broken.toml", cwd=folder, says=["broken.toml", "line 2, column"])
    refused(
        "run",
        "wrong.toml",
        cwd=folder,
        says=[
            "threat.eps: found -1",
            "threat.nrom: unknown key; did you mean `norm`?",
            "stage.0.epochs: found 0; allowed: a whole number >= 1",
            'stage.1.lr: found "fast"; allowed: a number > 0',
        ],
    )
    refused("run", "order.toml", cwd=folder, says=["no earlier stage plays the game"])
    refused("run", "quickstart", "--set", "stage.train.epochs", cwd=folder, says=["KEY=VALUE"])
    refused("run", "quickstart", "--set", "stage.tain.epochs=3", cwd=folder, says=["stage.tain.epochs"])
    refused("run", "quickstart", "--device", "tpu", cwd=folder, says=["compute.device"])
    refused("run", "quickstart", "--name", "../up", cwd=folder, says=["name"])
    refused("show", "nope", cwd=folder, says=["no run 'nope'"])
    refused("show", "20260921", cwd=folder, says=["2 runs begin with '20260921'"])
    refused("show", "../runs", cwd=folder, says=["no run"])
    refused("show", "last", "--runs", "none", cwd=folder, says=["no runs in none"])
    refused("table", cwd=folder, says=["RUN"])
    refused("ls", "--state", "odd", cwd=folder, says=["odd"])
    refused("nonsense", cwd=folder, says=["nonsense"])


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/kfd"), reason="this host has a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    refused("run", "quickstart", "--device", "cuda", cwd=tmp_path, says=["compute.device: cuda is not there"])


def test_a_checkpoint_that_is_not_there_is_refused_with_the_whole_path_before_anything_is_made(tmp_path: Path) -> None:
    """A relative path is one from where the user is, not from where the engine works."""
    says = [f"model.checkpoint: there is no file {tmp_path / 'there' / 'it.pt'}"]
    refused("run", "quickstart", "--set", "model.checkpoint=there/it.pt", cwd=tmp_path, says=says)


def test_a_runs_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused("run", "quickstart", "--runs", "file/runs", cwd=tmp_path, says=["cannot create a run", "--runs DIR"])


def test_runs_are_tagged_noted_and_deleted(folder: Path) -> None:
    assert cafe("tag", RUN, "good", "paper", cwd=folder).stdout == f"{RUN} good paper\n"
    assert cafe("tag", RUN, "paper", "--drop", cwd=folder).stdout == f"{RUN} good\n"
    assert [run["id"] for run in json.loads(cafe("ls", "--tag", "good", "--json", cwd=folder).stdout)["runs"]] == [RUN]
    refused("tag", RUN, "two words", cwd=folder, says=["not a tag: 'two words'"])
    cafe("note", RUN, "eps was [b]too[/b] large", cwd=folder)
    assert "eps was [b]too[/b] large" in cafe("show", RUN, cwd=folder).stdout
    assert cafe("rm", RUN, cwd=folder).returncode == 2
    assert (folder / "runs" / RUN).is_dir(), "nobody could be asked"
    assert cafe("rm", RUN, "--yes", cwd=folder).stdout == f"{RUN} deleted\n"
    assert not (folder / "runs" / RUN).exists()
    assert len(list((folder / "runs").iterdir())) == 1


def test_a_run_that_may_be_alive_is_not_deleted(tmp_path: Path) -> None:
    run = record_run(tmp_path / "runs", upto="game", pid=os.getpid())
    refused("rm", "last", "--yes", cwd=tmp_path, says=["still going on", "nothing was deleted", "cafe stop"])
    assert run.records_file.is_file()


def test_a_reader_that_leaves_ends_the_command_quietly(folder: Path) -> None:
    command = f"{sys.executable} -m cafe_tui profile --schema | head -c 10"
    answer = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    assert answer.stderr == ""


def test_a_defect_is_told_without_a_traceback(tmp_path: Path) -> None:
    script = (
        "import sys; sys.argv = ['cafe', 'profiles']\n"
        "import engine.contract.profile.files as p\n"
        "p.available = lambda: 1 / 0\n"
        "from cafe_tui.__main__ import main; main()"
    )
    answer = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "internal error: ZeroDivisionError" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_doctor_reports_without_importing_torch_itself(tmp_path: Path) -> None:
    answer = cafe("doctor", "--json", cwd=tmp_path)
    found = json.loads(answer.stdout)
    assert answer.returncode == 0, answer.stderr
    assert found["engine"]["torch"]
    assert found["disk"]["writable"]
    assert "quickstart" in found["profiles"]
    text = cafe("doctor", cwd=tmp_path, TERM="xterm-kitty", CAFE_PICTURES="cells").stdout
    assert "torch" in text
    assert "terminal" in text
    assert "half cells: CAFE_PICTURES says so" in text


def test_doctor_tells_of_a_way_of_pictures_that_there_is_not(tmp_path: Path) -> None:
    answer = cafe("doctor", "--json", cwd=tmp_path, CAFE_PICTURES="sixels")
    assert answer.returncode == 0, answer.stderr
    assert "cells, kitty, sixel" in next(
        p["remedy"] for p in json.loads(answer.stdout)["problems"] if "sixels" in p["text"]
    )
