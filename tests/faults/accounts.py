"""Other accounts of this host: processes that are not root, and give `cafe` commands as a person of that account would.

`setpriv` leaves them one ability of root's: to read. Python and the checkout may lie where another account could not
come, and that is not what is tested. What they write, they write by the modes of files and folders alone.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

import psutil

import cafe_tui.__main__
import cafe_tui.cli
import cafe_tui.console.follow
import cafe_tui.launch.local
import cafe_tui.reading.run
import cafe_tui.reading.runs  # so that no command has to load them
from engine.contract.profile import files as profiles
from engine.contract.profile.catalogue import NO_WEIGHTS
from engine.contract.run import rundir
from engine.contract.run.rundir import State, StateName

TINY: dict[str, object] = {
    "name": "tiny",
    "compute": {"threads": 1, "device": "cpu"},
    "model": {"name": "small", "checkpoint": NO_WEIGHTS},
    "stage": [
        {"kind": "evaluate", "models": ["checkpoint"], "attacks": ["clean"], "limit": 8, "checks": False, "samples": 0}
    ],
}
ROOT = Path(__file__).resolve().parents[2]
READING = "+dac_read_search"
NO_OTHERS = "" if which("setpriv") and os.getuid() == 0 else "needs root and setpriv, to be two other accounts"
"""Why there are none; empty where there are."""


@dataclass(frozen=True)
class Answer:
    """The exit code of a command, and all that it printed."""

    code: int
    text: str


class Account:
    """A process of user `uid`, which is also in the group `group`; it works in `home`, with `umask`."""

    def __init__(self, uid: int, group: int, home: Path) -> None:
        home.mkdir()
        os.chown(home, uid, uid)
        self.uid, self.home, self.umask = uid, home, 0o022
        caps = [f"--inh-caps={READING}", f"--ambient-caps={READING}"]
        who = [f"--reuid={uid}", f"--regid={uid}", f"--groups={group}"]
        self._process = subprocess.Popen(
            ["setpriv", *who, *caps, sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=home,
            env={**_environment(), "HOME": str(home), "USER": f"user{uid}", "LOGNAME": f"user{uid}"},
        )
        self.pid = self._process.pid

    def cafe(self, *arguments: str) -> Answer:
        """What the command answers."""
        return self._ask({"cafe": arguments})

    def make(self, runs: Path, state: str) -> None:
        """Make a run in this state; one that is running seems to be at work in this process."""
        answer = self._ask({"make": [str(runs), state, self.pid]})
        assert answer.code == 0, answer.text

    def _ask(self, wish: Mapping[str, object]) -> Answer:
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps({**wish, "umask": self.umask}, default=str), file=self._process.stdin, flush=True)
        return Answer(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CAFE_", "PYTEST_", "XDG_"))}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}


def _serve() -> None:
    """Answer each wish on stdin, in a process of its own that has all modules already."""
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as printed:
            child = os.fork()
            if child == 0:
                _obey(json.loads(line), printed.fileno())
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            printed.seek(0)
            print(json.dumps({"code": code, "text": printed.read()}), flush=True)


def _make(runs: str, state: StateName, pid: int) -> None:
    run = rundir.create(Path(runs), "tiny", profiles.dumps(profiles.from_tables(TINY)))
    known = State(state=state, host=socket.gethostname(), heartbeat=time.time())
    if state == "running":
        known.pid, known.pid_started = pid, psutil.Process(pid).create_time()
    run.write_state(known)


def _obey(wish: dict[str, Any], printed: int) -> None:
    code = 0
    os.umask(wish["umask"])
    try:
        for number in (1, 2):
            os.dup2(printed, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if "cafe" in wish:
            sys.argv = ["cafe", *wish["cafe"]]
            cafe_tui.__main__.main()
        else:
            _make(*wish["make"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
