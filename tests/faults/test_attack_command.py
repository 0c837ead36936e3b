"""cafe attack with real engines: checkpoints of ours, plain state dicts, networks of the user, and what cannot work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from cafe_tui import __main__ as cafe_tui
from cafe_tui.cli import importing
from cafe_tui.launch import local
from engine import __main__ as engine
from engine import process
from engine.checkpoints import own as checkpoints
from engine.contract.folders import counted
from engine.contract.profile import files as profiles
from engine.contract.run import rundir
from engine.contract.run.rundir import RunDir
from engine.contract.weights import read_facts
from engine.models import build
from engine.models.base import Inputs
from tests.patience import PATIENCE, kill
from tests.ui.test_cli import cafe

SHAPE = {"classes": 10, "channels": 1, "size": 8, "mean": [0.3], "std": [0.37]}
FACTS = SHAPE | {"model": "small", "data": "digits", "norm": "linf", "eps": 0.05}
NETWORKS = """
import torch
from torch import nn

def linear(classes):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

def two_classes():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))

def broken():
    raise ValueError("no weights today")

def none():
    return None
"""
Answer = subprocess.CompletedProcess[str]
Here = Callable[..., Answer]
QUICK = ("--limit", "40", "--set", "compute.threads=1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a module of networks, and with the weights of one of ours in several forms."""
    (tmp_path / "mine.py").write_text(NETWORKS)
    model = build("small", Inputs(10, 1, 8, (0.3,), (0.37,)), seed=0)
    checkpoints.save_weights(tmp_path / "ours.safetensors", {"classifier": model}, FACTS)
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    wrapped = {
        f"module.{'classifier' if key.startswith('head') else 'sequence'}.{key.split('.', 1)[1]}": value
        for key, value in model.state_dict().items()
        if not key.endswith((".mean", ".std"))
    }
    torch.save({"net": wrapped, "epoch": 3, "args": Namespace(depth=4)}, tmp_path / "wrapped.t7")
    return tmp_path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """`cafe` with its engine in this process, which spares the start of two; the other tests have real ones."""

    def spawn(run: RunDir) -> SimpleNamespace:
        code = process.run(run)
        return SimpleNamespace(pid=os.getpid(), poll=lambda: code)

    def run_engine(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["engine", *arguments])
        return engine.main()

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["cafe", *arguments])
        with pytest.raises(SystemExit) as ended:
            cafe_tui.main()
        return Answer(arguments, int(ended.value.code or 0), *capsys.readouterr())

    monkeypatch.setattr(local, "spawn", spawn)
    monkeypatch.setattr(importing, "run_engine", run_engine)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.chdir(folder)
    return run


def cells(answer: Answer) -> list[dict[str, object]]:
    assert answer.returncode == 0, answer.stdout + answer.stderr
    document = json.loads(answer.stdout)
    found: list[dict[str, object]] = document["cells"]
    return found


def test_a_checkpoint_of_ours_needs_no_option(folder: Path, here: Here) -> None:
    wanted = ("--attacks", "clean,pgd", *QUICK, "--json")
    found = cells(cafe("attack", "ours.safetensors", *wanted, cwd=folder))
    assert [(cell["model"], cell["attack"], cell["total"]) for cell in found] == [
        ("checkpoint", "clean", 40),
        ("checkpoint", "pgd", 40),
    ]
    assert found[1]["eps"] == 0.05
    run = RunDir(next((folder / "runs").iterdir()))
    assert run.status().state == "finished"
    assert run.info().command[:2] == ["cafe", "attack"]
    with_prefix = cells(here("attack", "wrapped.t7", "--model", "small", "--data", "digits", *wanted))
    plain = cells(here("attack", "plain.pt", "--eps", "0.05", *wanted))
    assert [cell["correct"] for cell in plain] == [cell["correct"] for cell in found]
    assert with_prefix[0]["correct"] == found[0]["correct"]


def test_a_network_of_the_user_is_found_where_the_command_was_given(folder: Path) -> None:
    wanted = ("--model", "mine:linear", "--attacks", "clean,fgsm", "--eps", "4/255,8/255", *QUICK, "--json")
    found = cells(cafe("attack", "-", *wanted, cwd=folder))
    assert [cell["attack"] for cell in found] == ["clean", "fgsm@0.01569", "fgsm@0.03137"]
    torch.manual_seed(0)
    torch.save(nn.Linear(64, 10).state_dict(), folder / "linear.pt")
    answer = cafe("attack", "linear.pt", "--model", "mine:linear", *QUICK, "--plain", cwd=folder)
    assert answer.returncode == 1
    assert "holds the weights of another network" in answer.stdout
    assert "Traceback" not in answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-", "--model", "mine:two_classes"), "needed: logits of shape (N, 10)"),
        (("-", "--model", "mine:broken"), "mine:broken failed: ValueError: no weights today"),
        (("-", "--model", "mine:none"), "returned NoneType; needed: a torch.nn.Module"),
        (("-", "--model", "mine:absent"), "mine has no function absent"),
        (("-", "--model", "nowhere.at_all:make"), "nowhere.at_all cannot be imported"),
        (("-", "--model", "timm:resnet18"), "needs the library timm"),
        (("mine.py",), "neither a safetensors file nor a state dict"),
    ],
)
def test_what_cannot_be_attacked_is_one_message(here: Here, arguments: tuple[str, ...], said: str) -> None:
    answer = here("attack", *arguments, "--plain", *QUICK)
    assert answer.returncode == 1
    assert said in answer.stdout
    assert "Traceback" not in answer.stdout


def test_a_foreign_checkpoint_is_imported_with_all_that_an_attack_must_know(folder: Path, here: Here) -> None:
    answer = here("import", "wrapped.t7", "--model", "small", "--data", "digits", "--mean", "0.3")
    assert answer.returncode == 2
    assert "--mean and --std go together" in answer.stderr
    command = ("import", "wrapped.t7", "--model", "small", "--data", "digits", "--mean", "0.3", "--std", "0.37")
    answer = cafe(*command, cwd=folder)
    assert answer.returncode == 0, answer.stderr
    assert "9 layers with weights, the same as those of the network, in order, from module.sequence.1" in answer.stdout
    assert "next: cafe attack wrapped.safetensors" in answer.stdout
    found, ours = (load_file(folder / name) for name in ("wrapped.safetensors", "ours.safetensors"))
    assert found.keys() == ours.keys()
    assert all(torch.equal(value, ours[name]) for name, value in found.items())
    assert (read_facts(folder / "wrapped.safetensors") or {})["data"] == "digits", "which `cafe attack` then knows"
    again = here(*command)
    assert again.returncode == 2
    assert "wrapped.safetensors exists" in again.stderr
    for arguments, said in (
        (("mine.py", "--model", "small", "--data", "digits"), "without running code"),
        (("wrapped.t7", "--model", "smal", "--data", "digits"), "Did you mean `small`?"),
        (("wrapped.t7", "--model", "small", "--data", "digts"), "Did you mean `digits`?"),
        (("wrapped.t7", "--model", "small", "--data", "digits", "--mean", "a"), "separated by commas"),
    ):
        answer = here("import", *arguments)
        assert answer.returncode == 2
        assert said in answer.stderr
        assert "Traceback" not in answer.stderr


def test_options_that_cannot_work_start_nothing(folder: Path, here: Here) -> None:
    for arguments, said in (
        (("nothing.pt",), "checkpoint not found: nothing.pt"),
        (("ours.safetensors", "--attacks", "pdg"), 'did you mean "pgd"?'),
        (("ours.safetensors", "--eps", "2"), "allowed: at most 1 for linf"),
        (("ours.safetensors", "--norm", "l2", "--attacks", "cw"), "cw is an Linf attack"),
        (("ours.safetensors", "--model", "smal"), 'did you mean "small"?'),
    ):
        answer = here("attack", *arguments)
        assert answer.returncode == 2
        assert said in answer.stderr
    assert not (folder / "runs").exists()


def test_outcomes_are_the_same_in_one_process_and_in_two(folder: Path, here: Here) -> None:
    """Two runs at the same time, each with its own half of the threads, against one run alone."""
    command = ["attack", "ours.safetensors", "--attacks", "pgd,apgd-t", "--set", "stage.evaluate.apgd_steps=5", *QUICK]
    alone = cells(here(*command, "--json"))
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "cafe_tui", *command, "--json"], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        found = [json.loads(each.communicate(timeout=PATIENCE)[0])["cells"] for each in both]
    finally:
        for each in both:
            kill(each)
    for other in found:
        assert [cell["correct"] for cell in other] == [cell["correct"] for cell in alone]


# --- a network that was trained on pictures of a folder --------------------------------------------------------------


@pytest.fixture
def trained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run on a folder of 9x9 pictures of three classes, each of one brightness."""
    monkeypatch.setenv("CAFE_DATA", str(folder / "cache"))
    counted.cache_clear()
    for part, count in (("train", 20), ("test", 4)):
        for level, name in enumerate(("cat", "dog", "eel")):
            (folder / "pets" / part / name).mkdir(parents=True)
            for i in range(count):
                shade = np.full((9, 9, 3), 20 + 100 * level + i + 30 * (part == "test"), np.uint8)
                Image.fromarray(shade).save(folder / "pets" / part / name / f"{i}.png")
    profile = profiles.from_tables(
        {
            "name": "pets",
            "data": {"name": "folder", "path": str(folder / "pets"), "size": 9},
            "threat": {"eps": 0.02, "eps_l2": 0.4},
            "compute": {"threads": 1, "device": "cpu"},
            "stage": [{"kind": "train", "defence": "standard", "epochs": 3, "batch_size": 8, "select": "last"}],
        }
    )
    run = rundir.create(folder / "trained", "pets", profiles.dumps(profile))
    assert process.run(run) == 0
    return run.checkpoints / "train.safetensors"


def test_a_checkpoint_of_a_folder_needs_no_option(trained: Path, here: Here, folder: Path) -> None:
    wanted = ("--attacks", "clean,fgsm-l2", "--set", "compute.threads=1", "--json")
    clean, l2 = cells(here("attack", str(trained), *wanted))
    assert (clean["total"], l2["eps"]) == (12, 0.4)
    assert clean["warnings"] == []
    (folder / "pets").rename(folder / "moved")
    again, _ = cells(here("attack", str(trained), *wanted))
    assert (again["correct"], again["images"]) == (clean["correct"], clean["images"]), "from the arrays of the run"


def test_classes_of_other_names_are_told_and_more_of_them_refused(trained: Path, here: Here, folder: Path) -> None:
    wanted = ("--attacks", "clean", "--set", "compute.threads=1")
    before = cells(here("attack", str(trained), *wanted, "--json"))[0]
    for part in ("train", "test"):
        (folder / "pets" / part / "cat").rename(folder / "pets" / part / "zebra")
    counted.cache_clear()
    after = cells(here("attack", str(trained), *wanted, "--json"))[0]
    assert after["images"] != before["images"]
    assert "class 0 was cat and is dog" in " ".join(after["warnings"])  # type: ignore[arg-type]
    sides = sorted(path.name for path in (folder / "runs").iterdir() if path.name[0] != ".")
    answer = here("compare", *sides)
    assert answer.returncode == 2
    assert "different images" in answer.stderr
    for part in ("train", "test"):
        shutil.copytree(folder / "pets" / part / "dog", folder / "pets" / part / "fox")
    counted.cache_clear()
    answer = here("attack", str(trained), *wanted)
    assert answer.returncode == 2
    assert "trained on images of 3 classes" in answer.stderr
