"""A working directory with modules of our names and of our libraries' names: nothing in it is imported by mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from cafe_tui.launch import costs, host, spawn
from engine.contract.profile import files as profiles
from engine.contract.run import listing, rundir
from tests.patience import PATIENCE, wait_until

NAMES = ("engine/__init__", "cafe_tui/__init__", "torch", "numpy", "scipy", "PIL", "json", "psutil", "timm")
SAFE = ("PYTHONSAFEPATH", "PYTHONPATH")
FOREIGN = """
from pathlib import Path
Path({marks!r}, __name__).touch()
"""
TINY = """
name = "tiny"
[data]
validation = 0.9
[compute]
threads = 1
device = "cpu"
[[stage]]
kind = "train"
defence = "standard"
epochs = 1
[[stage]]
kind = "evaluate"
attacks = ["clean"]
limit = 20
samples = 0
"""
NETWORK = """
import layers

def linear(classes):
    import scipy, PIL
    assert scipy.__version__ and PIL.__version__
    return layers.linear(classes)
"""
LAYERS = """
from torch import nn

def linear(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory. Each of its modules that must not be imported leaves a mark where it is."""
    here, marks = tmp_path / "here", tmp_path / "marks"
    marks.mkdir()
    for name in NAMES:
        file = here / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(FOREIGN.format(marks=str(marks)))
    (here / "tiny.toml").write_text(TINY)
    (here / "two.toml").write_text(TINY + "[sweep]\nseed = [0, 1]\n")
    (here / "mine.py").write_text(NETWORK)
    (here / "layers.py").write_text(LAYERS)
    monkeypatch.chdir(here)
    monkeypatch.delenv("CAFE_RUNS", raising=False)
    yield here
    assert sorted(mark.name for mark in marks.iterdir()) == []


def cafe(*arguments: str) -> str:
    """What the installed command says; it succeeds."""
    done = subprocess.run(
        [Path(sys.executable).with_name("cafe"), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_modules_of_this_folder_do_leave_marks(folder: Path) -> None:
    names = sorted(name.partition("/")[0] for name in NAMES)
    subprocess.run([sys.executable, "-c", f"import {', '.join(names)}"], check=True)
    marks = sorted((folder.parent / "marks").iterdir())
    assert [mark.name for mark in marks] == sorted(names)
    for mark in marks:
        mark.unlink()


def test_what_happens_at_once(folder: Path) -> None:
    assert "digits" in cafe("data", "prepare", "digits")
    assert str(torch.__version__) in cafe("doctor")
    assert cafe("ls").startswith("No runs in")
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).state_dict(), "linear.pt")
    assert "next: cafe attack" in cafe("import", "linear.pt", "--model", "mine:linear", "--data", "digits")


def test_a_run_in_two_processes(folder: Path) -> None:
    assert "finished" in cafe("run", "tiny", "--devices", "cpu:2", "--plain")


def test_a_queue_and_its_engines(folder: Path) -> None:
    tag = cafe("run", "two", "--detach").strip()
    runs = listing.tagged(folder / "runs", tag)
    assert len(runs) == 2
    wait_until(lambda: all(run.status().final for run in runs))
    assert [run.state().state for run in runs] == ["finished"] * 2


def test_a_network_of_the_user_finds_its_own_modules_and_the_libraries(folder: Path) -> None:
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).state_dict(), "linear.pt")
    wanted = ("--model", "mine:linear", "--attacks", "clean", "--limit", "20", "--set", "compute.threads=1")
    assert "finished" in cafe("attack", "linear.pt", *wanted, "--plain")


def test_the_processes_that_help_a_screen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "MEASURE_SECONDS", PATIENCE)
    sweep = profiles.load_sweep("two")
    assert sweep is not None
    said = list(costs.announcement(costs.offer(folder / "runs", sweep)))
    assert said[-1].endswith("by a measurement on this host just now")
    assert host.look(folder, PATIENCE) is not None
    (folder / "records.jsonl").touch()
    with spawn.talking(spawn.python("-m", "cafe_tui.reading.parallel", "records.jsonl")) as helper:
        assert helper.communicate(timeout=PATIENCE)[0] == bytes(8), "that it is there"


def test_the_ui_that_is_served(folder: Path) -> None:
    from cafe_tui.ui.serving import UiServer

    command = f"{UiServer('127.0.0.1', 8000).command} --version"
    done = subprocess.run(command, shell=True, env=spawn.environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cafe ")


def test_python_m_where_no_folder_has_the_name(folder: Path) -> None:
    """Without the safe path, all else that lies there is left alone."""
    environment = {key: value for key, value in os.environ.items() if key not in SAFE}
    for name, arguments in (("cafe_tui", ["ls"]), ("engine", ["data", "digits"])):
        (folder / name / "__init__.py").unlink()
        subprocess.run([sys.executable, "-m", name, *arguments], env=environment, timeout=PATIENCE, check=True)


@pytest.mark.parametrize("devices", ["cpu", "cpu:2"])
def test_an_engine_by_hand(folder: Path, devices: str) -> None:
    """By torchrun as the README says, and by Python with its safe path, whose ranks have it too."""
    profile = profiles.load("tiny", [f"compute.devices={devices}"] if ":" in devices else []).profile
    run = rundir.create(folder / "runs", "tiny", profiles.dumps(profile))
    environment = {key: value for key, value in os.environ.items() if key not in SAFE} | {"OMP_NUM_THREADS": "1"}
    command: list[str | Path] = [sys.executable, "-P"]
    if devices == "cpu":
        environment["PYTHONSAFEPATH"] = "1"
        command = [Path(sys.executable).with_name("torchrun"), "--local-addr", "127.0.0.1"]
    done = subprocess.run(
        [*command, "-m", "engine", "run", run.path],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert run.state().state == "finished"
