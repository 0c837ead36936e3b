"""A toy of every kind, added to a copy of the checkout by what the table of README.md says and nothing else."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.contract.profile import catalogue
from engine.contract.run.records import RecordReader, StageChange
from engine.contract.run.rundir import RunDir

ROOT = Path(catalogue.__file__).parents[3]
COPIED = ("engine", "cafe_tui", "profiles", "docs", "tests", "README.md", "pyproject.toml", "Makefile")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "__snapshots__")

ATTACK = '''"""Random points of the ball."""

from __future__ import annotations

from dataclasses import dataclass

from engine import keyed_random
from engine.attacks.queries import Oracle
from engine.attacks.search import Search, State, rows, wrong
from engine.attacks.setting import Setting


@dataclass(frozen=True, kw_only=True)
class Points(Search):
    """`steps` of them."""

    def begin(self, state: State) -> State:
        """At the clean image."""
        state = state | {"key": self.key(state, "toy")}
        return self.fresh(state, state["x"])

    def advance(self, state: State, oracle: Oracle) -> State:
        """Ask about the point, and take another if the answer was right."""
        broken, step = wrong(oracle.logits(state["point"]), state["y"]), state["step"] + 1
        another = self.ball.random_point(state["x"], keyed_random.further(state["key"], step))
        made = {"best": state["point"], "broken": broken, "step": step, "done": broken | (step > self.steps)}
        return state | made | {"point": rows(broken, state["point"], another)}


def toy(s: Setting) -> Search:
    """Of the evaluate stage's pgd_steps."""
    return Points(s.ball, s.seed, s.stage.pgd_steps, stops=s.stops)
'''
DEFENCE = '''"""The mean of both cross-entropies."""

from __future__ import annotations

from torch import Tensor

from engine.attacks.losses import cross_entropy


def toy(z_nat: Tensor, z_adv: Tensor, y: Tensor, beta: float) -> Tensor:
    """Of logits (N,K): (N,)."""
    return (cross_entropy(z_nat, y) + beta * cross_entropy(z_adv, y)) / (1 + beta)
'''
MODEL = '''"""One convolution."""

from __future__ import annotations

from torch import nn

from engine.models.base import Classifier, GlobalAveragePool, Inputs, conv3x3


def toy(inputs: Inputs, *, width: int) -> Classifier:
    """Of `width` channels, cut before its ReLU."""
    head = nn.Sequential(nn.ReLU(), GlobalAveragePool(), nn.Linear(width, inputs.classes))
    return Classifier(inputs, [conv3x3(inputs.channels, width, 2), nn.BatchNorm2d(width)], head)
'''
DATA = '''"""Noise."""

from __future__ import annotations

import numpy as np

from engine.contract.profile.schema import Data
from engine.data.source import Source


def load(data: Data) -> Source:
    """80 images to train on and 20 to test on, of 3 classes."""
    images = np.random.default_rng(0).integers(0, 256, (100, 2, 12, 12), dtype=np.uint8)
    labels = np.arange(100) % 3
    return Source(images[:80], labels[:80], images[80:], labels[80:], (0.5, 0.5), (0.3, 0.3))
'''
TOYS = {
    "an attack": (
        "engine/attacks/toy.py",
        ATTACK,
        "ATTACKS",
        'Attack("random points", "engine.attacks.toy:toy", lambda steps: steps / 2, ("pgd_steps",), gradients=False)',
    ),
    "a defence": (
        "engine/defences/toy.py",
        DEFENCE,
        "DEFENCES",
        'Defence("both cross-entropies", "engine.defences.toy:toy", 2.0, 1.0, clean_logits=True)',
    ),
    "a model": (
        "engine/models/toy.py",
        MODEL,
        "MODELS",
        'Model("one convolution", "engine.models.toy:toy", {"width": 4})',
    ),
    "a data set": (
        "engine/data/toy.py",
        DATA,
        "DATA_SETS",
        'DataSet("noise", "comes along", DataFacts(3, 2, 12, 80, 20, flip=False), "engine.data.toy:load")',
    ),
}
"""What README.md calls it -> the file to write, its content, the table for a row, and the row."""
PYTHON = shlex.quote(sys.executable)
SUITES = (
    "tests/engine/test_registries.py",
    "tests/engine/test_losses.py",
    "tests/engine/test_data.py",
    "tests/contract/test_schema.py",
    "tests/contract/test_walls.py",
)
PINNED = (
    "toy or list_of_names or have_the_names or refers or readme or test_losses or current or fits_the_schema or stand"
)
"""The tests of each toy, and those that hold one list of names against another."""
PROFILE = """
name = "toys"
data = { name = "toy", validation = 0.2 }
model = { name = "toy" }
threat = { eps = 0.1, eps_l2 = 0.5 }
compute = { device = "cpu", threads = 1 }

[[stage]]
kind = "train"
defence = "toy"
epochs = 1
adversary = { steps = 1 }

[[stage]]
kind = "game"
epochs = 1
adversary = { steps = 1 }

[[stage]]
kind = "inoculate"
defence = "toy"
epochs = 1
inversion_steps = 1
adversary = { steps = 1 }

[[stage]]
kind = "evaluate"
attacks = ["clean", "toy", "toy-l2"]
pgd_steps = 2
"""


def run(copy: Path, command: str) -> str:
    """What a command of a shell says that finds the packages of the copy before those that are installed."""
    environment = os.environ | {"PYTHONPATH": str(copy)}
    done = subprocess.run(command, shell=True, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commands(makefile: str, target: str) -> list[str]:
    """Those of a target of the Makefile, with this interpreter."""
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    return [line.strip().replace("$(BIN)/python", PYTHON) for line in recipe[1].splitlines()]


@pytest.mark.slow
def test_a_toy_of_every_kind_is_one_file_and_one_row(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=LEFT_OUT)
        else:
            shutil.copy(ROOT / name, copy / name)
    table = (copy / "README.md").read_text(encoding="utf-8").partition("| to add |")[2]
    rows = copy / Path(catalogue.__file__).relative_to(ROOT)
    for kind, (path, content, name, row) in TOYS.items():
        told = next(line for line in table.splitlines() if line.startswith(f"| {kind} |"))
        assert f"`{Path(path).parent}/`" in told
        assert f"`{name}`" in told
        (copy / path).write_text(content, encoding="utf-8")
        before, head, after = rows.read_text(encoding="utf-8").partition(f"\n{name}: dict[str, ")
        first, brace, rest = after.partition("{\n")
        rows.write_text(f'{before}{head}{first}{brace}    "toy": {row},\n{rest}', encoding="utf-8")
    for command in commands((copy / "Makefile").read_text(encoding="utf-8"), "schema"):
        run(copy, command)
    (copy / "toys.toml").write_text(PROFILE, encoding="utf-8")
    said = run(copy, f"{PYTHON} -m cafe_tui run toys.toml --plain --runs runs")
    assert "toy-l2" in said
    (directory,) = (RunDir(path) for path in (copy / "runs").iterdir() if path.is_dir() and path.name[0] != ".")
    changes = [r for r in RecordReader(directory.records_file).read() if isinstance(r, StageChange)]
    finished = [change.stage for change in changes if change.state == "finished"]
    assert finished == ["train", "game", "inoculate", "evaluate"]
    results = directory.results()
    assert results is not None
    assert {cell.attack for cell in results.cells} == {"clean", "toy", "toy-l2"}
    tested = run(copy, f"{PYTHON} -m pytest -q -p no:cacheprovider -k '{PINNED}' {' '.join(SUITES)}")
    assert " passed" in tested
    assert "skipped" not in tested
