"""Where the module of a network of the user comes from, and what its folder must not hide."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import nn

from engine.contract.errors import UsageError
from engine.models import build
from engine.models.base import Inputs

NETWORK = "from torch import nn\ndef make(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], nn.Module]]:
    """Builds a network from the folder; what was imported for it is forgotten."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)

    def make(name: str) -> nn.Module:
        importlib.invalidate_caches()
        return build(name, Inputs(10, 1, 8, (0.5,), (0.5,)), seed=0, folder=str(tmp_path))

    yield make
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        if str(tmp_path) in (getattr(module, "__file__", None) or str(getattr(module, "__path__", ""))):
            del sys.modules[name]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_the_folder_comes_first_for_the_module_and_last_for_all_else(
    tmp_path: Path, made: Callable[[str], nn.Module]
) -> None:
    write(tmp_path / "antigravity.py", NETWORK + "import neighbour, nturl2path\n")  # also in the standard library
    write(tmp_path / "neighbour.py", "")
    write(tmp_path / "nturl2path.py", "")
    assert isinstance(made("antigravity:make"), nn.Module)
    assert Path(sys.modules["antigravity"].__file__ or "").parent == tmp_path
    assert Path(sys.modules["neighbour"].__file__ or "").parent == tmp_path
    assert Path(sys.modules["nturl2path"].__file__ or "").parent != tmp_path
    assert sys.path[-1] == str(tmp_path)


@pytest.mark.parametrize("with_init", [True, False])
def test_modules_in_folders(tmp_path: Path, made: Callable[[str], nn.Module], with_init: bool) -> None:
    write(tmp_path / "my_nets" / "deep.py", "from my_nets import parts\nmake = parts.make\n")
    write(tmp_path / "my_nets" / "parts.py", NETWORK)
    if with_init:
        write(tmp_path / "my_nets" / "__init__.py", "")
    assert isinstance(made("my_nets.deep:make"), nn.Module)


def test_a_module_that_fails_can_be_mended(tmp_path: Path, made: Callable[[str], nn.Module]) -> None:
    write(tmp_path / "half_done.py", "x = 1 / 0  # not yet\n")
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        made("half_done:make")
    write(tmp_path / "half_done.py", NETWORK)
    assert isinstance(made("half_done:make"), nn.Module)


def test_a_name_that_is_taken_stays_with_its_owner(tmp_path: Path, made: Callable[[str], nn.Module]) -> None:
    write(tmp_path / "engine" / "__init__.py", NETWORK)
    with pytest.raises(UsageError, match="engine has no function make"):
        made("engine:make")
