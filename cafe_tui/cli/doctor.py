"""cafe doctor: what is here, what is missing, how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from cafe_tui.cli.options import Json, Runs, print_json
from cafe_tui.locations import runs_folder, slow_line
from engine.contract.printing import say

_TORCH_PROBE = """
import json, torch, numpy
from torch import cuda
count = cuda.device_count() if cuda.is_available() else 0
devices = [
    {"name": f"cuda:{i}", "what": cuda.get_device_name(i), "memory": cuda.get_device_properties(i).total_memory}
    for i in range(count)
]
print(json.dumps({"torch": torch.__version__, "numpy": numpy.__version__, "cuda": torch.version.cuda,
                  "threads": torch.get_num_threads(), "devices": devices}))
"""
_PROBE_SECONDS = 60


def doctor(json: Json = False, runs: Runs = None) -> None:
    """Show Python, torch, devices, terminal and disk, and what is missing. Exits 1 if training cannot work."""
    report = examine(runs_folder(runs))
    if json:
        print_json(report)
    else:
        _print(report)
    if any(problem["fatal"] for problem in report["problems"]):
        raise typer.Exit(1)


def examine(runs: Path) -> dict[str, Any]:
    """Everything that `cafe doctor` knows, as plain values; sizes in bytes."""
    problems: list[dict[str, Any]] = []

    def problem(text: str, remedy: str, *, fatal: bool = False) -> None:
        problems.append({"text": text, "remedy": remedy, "fatal": fatal})

    engine = _engine()
    if "error" in engine:
        problem(f"torch cannot be used: {engine['error']}", "pip install 'torch>=2.6' numpy", fatal=True)
    elif not engine["devices"]:
        problem("torch sees no GPU; runs use the CPU", "Install a CUDA build of torch if this host has a GPU.")
    disk = _disk(runs)
    if not disk["writable"]:
        problem(f"{runs} cannot be written", "Choose another folder with --runs DIR or CAFE_RUNS.", fatal=True)
    elif disk["free"] < 1 << 30:
        problem("less than 1 GiB is free for runs", "Free some space, or choose another --runs folder.")
    from cafe_tui.terminal.protocols import PicturesUnavailable

    terminal = _terminal()
    try:
        terminal["pictures"] = _pictures()
    except PicturesUnavailable as error:
        problem(error.message, error.hint)
    if terminal["is_terminal"] and not terminal["utf8"]:
        problem("the locale is not UTF-8; curves are drawn in ASCII", "export LANG=C.UTF-8")
    if _kills_user_processes():
        problem(
            "logind ends all your processes when you log out (KillUserProcesses=yes)",
            "Start runs under `systemd-run --user --scope`, and `loginctl enable-linger` once.",
        )
    return {
        "python": {"version": platform.python_version(), "executable": sys.executable, "platform": platform.platform()},
        "engine": engine,
        "cpu": {"cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()},
        "memory": _memory(),
        "terminal": terminal,
        "disk": disk,
        "profiles": _profiles(),
        "problems": problems,
    }


def _engine() -> dict[str, Any]:
    """What torch sees, asked of a process of its own: a hung driver must not hang this one."""
    import subprocess
    from json import loads

    from cafe_tui.launch import spawn

    try:
        answer = spawn.answer(spawn.python("-c", _TORCH_PROBE), _PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {_PROBE_SECONDS} s; a GPU driver may hang"}
    if answer.returncode:
        lines = answer.stderr.strip().splitlines()
        return {"error": lines[-1] if lines else f"its process ended with code {answer.returncode}"}
    return dict(loads(answer.stdout))


def _memory() -> dict[str, int]:
    import psutil

    memory = psutil.virtual_memory()
    return {"total": memory.total, "available": memory.available}


def _disk(runs: Path) -> dict[str, Any]:
    folder = runs.absolute()
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return {"runs": str(runs), "free": usage.free, "total": usage.total, "writable": os.access(folder, os.W_OK)}


def _terminal() -> dict[str, Any]:
    from rich.console import Console

    console = Console()
    return {
        "is_terminal": sys.stdout.isatty(),
        "term": os.environ.get("TERM", ""),
        "columns": console.width,
        "lines": console.height,
        "colours": console.color_system or "none",
        "utf8": (sys.stdout.encoding or "").lower().replace("-", "") == "utf8",
        "tmux": "TMUX" in os.environ,
        "ssh": "SSH_CONNECTION" in os.environ,
        "no_color": "NO_COLOR" in os.environ,
    }


def _pictures() -> dict[str, str]:
    """How the samples are shown, and why so."""
    from cafe_tui.terminal.protocols import choose, installed, terminal_cell

    return choose(os.environ, terminal_cell(), installed=installed(), slow=slow_line())._asdict()


def _kills_user_processes() -> bool:
    """The last word of logind's configuration; unreadable files say nothing."""
    answer = False
    for folder in ("/usr/lib/systemd/logind.conf.d", "/etc/systemd", "/etc/systemd/logind.conf.d"):
        for path in sorted(Path(folder).glob("*.conf" if folder.endswith(".d") else "logind.conf")):
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                continue
            for line in lines:
                key, _, value = line.partition("=")
                if key.strip() == "KillUserProcesses":
                    answer = value.strip().lower() in ("yes", "true", "1", "on")
    return answer


def _profiles() -> list[str]:
    from engine.contract.profile import files as profiles

    return [entry.name for entry in profiles.available()]


def _print(report: dict[str, Any]) -> None:
    for name, text in _rows(report):
        say(f"{name:<9} {text}")
    for problem in report["problems"]:
        say(f"{'PROBLEM' if problem['fatal'] else 'note':<9} {problem['text']}")
        say(f"{'':<9} {problem['remedy']}")
    if not report["problems"]:
        print("all is well")


def _rows(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is here, each with its name."""
    from cafe_tui import format as fmt

    engine, terminal, disk, memory = (report[key] for key in ("engine", "terminal", "disk", "memory"))
    yield "python", f"{report['python']['version']}  {report['python']['executable']}"
    if "error" not in engine:
        yield "torch", f"{engine['torch']}, numpy {engine['numpy']}, {engine['threads']} threads"
        for device in engine["devices"]:
            yield device["name"], f"{device['what']}, {fmt.size(device['memory'])}"
    free = f"{fmt.size(memory['available'])} of {fmt.size(memory['total'])} free"
    yield "cpu", f"{report['cpu']['cores']} cores, {free}"
    yield "terminal", ", ".join(_about_terminal(terminal))
    yield "runs", f"{disk['runs']}, {fmt.size(disk['free'])} free" + ("" if disk["writable"] else ", not writable")
    profiles = report["profiles"]
    yield "profiles", f"{len(profiles)}; `cafe profiles` lists them" if profiles else "none found"
    if "pictures" in terminal:
        way, why = (terminal["pictures"][key] for key in ("way", "why"))
        yield "pictures", f"{'half cells' if way == 'cells' else way}: {why}"


def _about_terminal(terminal: dict[str, Any]) -> Iterator[str]:
    """Size, colours and characters, and what is special."""
    yield f"{terminal['columns']}x{terminal['lines']}"
    yield f"TERM={terminal['term'] or '(none)'}"
    yield f"colours: {terminal['colours']}"
    yield "UTF-8" if terminal["utf8"] else "ASCII"
    if not terminal["is_terminal"]:
        yield "output is a pipe"
    if terminal["tmux"]:
        yield "tmux"
    if terminal["ssh"]:
        yield "SSH"
