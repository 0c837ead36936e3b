"""How child processes are started: by one file, and with what environment."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cafe_tui
from cafe_tui.launch import spawn
from tests.patience import PATIENCE, wait_until

PACKAGE = Path(cafe_tui.__file__).parent
STARTERS = {
    "subprocess": {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "os": {"system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp", "startfile"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "pty": {"fork", "spawn"},
}
POOLS = {"multiprocessing", "ProcessPoolExecutor"}


def starts(source: str) -> list[str]:
    """What a module does that starts a process, or would let it do so under another name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=name)):
                begins = module == "os" and name.startswith(("exec", "spawn"))
                if begins or name in STARTERS.get(module, ()):
                    found.append(f"{module}.{name}")
            case ast.Import(names=names):
                found += [each.name for each in names if each.name.partition(".")[0] in POOLS]
                found += [each.name for each in names if each.name in STARTERS and each.asname]
            case ast.ImportFrom(module=str(module), names=names):
                known = STARTERS.get(module, set())
                found += [f"{module}.{each.name}" for each in names if each.name in known or each.name in POOLS]
                if module.partition(".")[0] in POOLS:
                    found.append(module)
    return found


def test_one_file_starts_processes() -> None:
    starting = [path for path in PACKAGE.rglob("*.py") if starts(path.read_text(encoding="utf-8"))]
    assert [path.relative_to(PACKAGE) for path in starting] == [Path("launch/spawn.py")]


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess\nsubprocess.run(['ls'])",
        "from subprocess import Popen",
        "import subprocess as sp",
        "import os\nos.execvp('ls', ['ls'])",
        "import os\nos.spawnv(0, 'ls', [])",
        "import multiprocessing.pool",
        "from concurrent.futures import ProcessPoolExecutor",
        "import asyncio\nasyncio.create_subprocess_shell('ls')",
    ],
)
def test_a_start_elsewhere_would_be_seen(source: str) -> None:
    assert starts(source)


def test_spawn_stands_on_the_lowest_floor() -> None:
    script = "import sys, cafe_tui.launch.spawn; print(*sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    ours = [name for name in modules if name.partition(".")[0] in ("cafe_tui", "engine")]
    assert ours == ["cafe_tui", "cafe_tui.launch", "cafe_tui.launch.spawn"]


def test_the_environment_of_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ".", "./", "mine", "/opt/theirs", "/opt/theirs"]))
    made = spawn.environment()
    assert made["PYTHONSAFEPATH"] == "1"
    assert made["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert made["PYTHONPATH"].split(os.pathsep) == [str(spawn.HOME), str(tmp_path / "mine"), "/opt/theirs"]
    monkeypatch.setattr(os, "environ", made)
    assert spawn.environment() == made, "a queue hands on what it got"


def test_a_process_that_outlives_us_says_all_to_its_log_and_is_collected(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    code = "import os, sys; print(os.getcwd(), os.getsid(0) == os.getpid(), sys.flags.safe_path, [*sys.stdin])"
    child = spawn.outliving(spawn.python("-c", f"{code}; sys.exit('and why')"), log=log, folder=tmp_path)
    assert child.wait(PATIENCE) == 1
    assert log.read_text() == f"before\n{tmp_path} True True []\nand why\n"
    first = spawn.outliving(spawn.python("-c", ""), log=log, folder=tmp_path)
    wait_until(lambda: os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG))
    spawn.outliving(spawn.python("-c", ""), log=log, folder=tmp_path).wait(PATIENCE)
    with pytest.raises(ProcessLookupError):  # no zombie is left of the one before
        os.kill(first.pid, 0)


def test_the_others_have_the_safe_path_too(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print(sys.flags.safe_path, sys.stdin.read(1))"
    with spawn.talking(spawn.python("-c", code)) as child:
        assert child.communicate(b"x")[0] == b"True x\n"
    assert spawn.answer(spawn.python("-c", "import sys; print(sys.flags.safe_path)"), PATIENCE).stdout == "True\n"
    with pytest.raises(subprocess.TimeoutExpired):
        spawn.answer(spawn.python("-c", "import time; time.sleep(60)"), 0.1)
    child = spawn.attached(spawn.python("-c", "import os, sys; print(sys.flags.safe_path, os.getsid(0))"))
    assert child.wait(PATIENCE) == 0
    assert capfd.readouterr().out == f"True {os.getsid(0)}\n"
