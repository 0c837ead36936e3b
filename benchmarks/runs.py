"""What a person waits for at the prompt, measured on real processes: help, start of a run, list of a thousand runs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from common import ROOT, Row, in_turn, main

from engine.contract.profile.files import dumps, load
from engine.contract.run import liveness, rundir
from engine.contract.run.records import to_json
from engine.contract.run.results import Results, headline, make_cell

RUNS = 1_000
CAFE = (sys.executable, "-m", "cafe_tui")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def call(*command: str) -> str:
    """Run to the end and return what was printed; a failure ends the benchmark."""
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def typer() -> str:
    """The peer: what any program with this command-line library costs before it does anything."""
    return call(sys.executable, "-c", "import typer")


def stop_engines(runs: Path) -> None:
    """End the engines that were started under `runs`, so that the next measurement has the machine to itself."""
    engines = [
        process for process in psutil.process_iter(["cmdline"]) if str(runs) in " ".join(process.info["cmdline"] or ())
    ]
    for engine in engines:
        with suppress(psutil.NoSuchProcess):
            engine.kill()
    while any(liveness.process_alive(engine.pid, None) for engine in engines):  # a zombie no longer disturbs
        time.sleep(0.01)


def starting(runs: Path) -> list[Row]:
    """Help, and the time until the id of a new run is printed."""

    def detach() -> str:
        return call(*CAFE, "run", "quickstart", "--detach", "--runs", str(runs))

    call(*CAFE, "--help")  # compiled files are written once, outside of the time
    try:
        plain, help_, detached = in_turn(typer, lambda: call(*CAFE, "--help"), detach, tidy=lambda: stop_engines(runs))
    finally:
        stop_engines(runs)
    return [
        Row("cafe --help, against import typer", help_, plain, "s", target=2.5),
        Row("cafe run quickstart --detach, against import typer", detached, plain, "s", target=3.0),
    ]


def finished_runs(runs: Path) -> None:
    """A thousand runs that are over, with results as the quickstart leaves them."""
    text = dumps(load("quickstart").profile)
    cells = [
        make_cell(model, attack, correct, 450)
        for model, counts in (("train", (430, 280, 240)), ("inoculate", (425, 300, 262)))
        for attack, correct in zip(("clean", "fgsm", "pgd"), counts, strict=True)
    ]
    results = to_json(Results(cells=cells, headline=headline(cells)))
    for _ in range(RUNS):
        run = rundir.create(runs, "quickstart", text)
        run.state_file.write_bytes(to_json(rundir.State(state="finished", progress=1.0)))
        run.results_file.write_bytes(results)


def listing(runs: Path) -> Row:
    """The list of a thousand runs."""
    finished_runs(runs)
    assert len(call(*CAFE, "ls", "--runs", str(runs)).splitlines()) >= RUNS
    (ours,) = in_turn(lambda: call(*CAFE, "ls", "--runs", str(runs)))
    return Row(f"cafe ls of {RUNS:,} runs, against 0.5 s", ours, 0.5, "s", target=1.0)


def measure(_quick: bool) -> list[Row]:
    """All rows; the full work is quick enough."""
    with tempfile.TemporaryDirectory() as name:
        return [*starting(Path(name, "started")), listing(Path(name, "finished"))]


if __name__ == "__main__":
    main("runs", measure)
