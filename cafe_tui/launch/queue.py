"""The queue of a sweep: starts the engines of several runs one after another, and outlives the terminal.

`python -m cafe_tui.launch.queue` is a process of its own. It knows no more than the run directories tell: killed at any
moment, it leaves runs that another queue goes on with. While a run waits here, its state.json says so; from the first
sign of life of its engine on, only the engine writes it.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import FrameType

from msgspec.structs import asdict, replace

from cafe_tui.launch import local
from cafe_tui.launch.spawn import outliving, python
from engine.contract.errors import CafeError, DiskError, UsageError
from engine.contract.profile import files as profiles
from engine.contract.profile.files import Loaded
from engine.contract.profile.schema import Compute, Profile
from engine.contract.profile.sweeps import Sweep
from engine.contract.run import listing, liveness, rundir
from engine.contract.run.rundir import RunDir, StateName

POLL_SECONDS = 0.25
LOOK_SECONDS = 1.0
"""How often the queue looks whether somebody wants a waiting run to stop."""
RENEW_SECONDS = 15.0
"""How often it renews the heartbeats of waiting runs, for readers on other hosts."""


# --- what a command does ---------------------------------------------------------------------------------------------


def runs_of(runs: Path, sweep: Sweep[Loaded]) -> list[RunDir | None]:
    """Point by point the run that an earlier command made of it, the newest if there are several."""
    made: list[tuple[Profile, RunDir]] = []
    for run in reversed(listing.tagged(runs, sweep.tag)):
        with suppress(CafeError):
            made.append((_essence(profiles.from_tables(profiles.read_toml(run.profile_file))), run))
    wanted = [_essence(point.profile) for point in sweep.points]
    return [next((run for profile, run in made if profile == point), None) for point in wanted]


def _essence(profile: Profile) -> Profile:
    """What two profiles must share to be the same experiment: not where, which `cafe resume --devices` may change."""
    where = Compute()
    compute = replace(profile.compute, device=where.device, devices=where.devices, threads=where.threads)
    return replace(profile, description="", compute=compute)


def start(
    runs: Path, sweep: Sweep[Loaded], *, tags: Sequence[str], command: Sequence[str], parallel: int
) -> list[RunDir]:
    """Create what is missing of a sweep and start its queue; finished runs stay as they are. All its runs.

    Raises UsageError when the device cannot be there, the folder cannot be written or no process can be started.
    """
    for point in sweep.points:
        local.check(point.profile)
    all_runs = [
        run
        or rundir.create(
            runs.absolute(),
            point.profile.name,
            profiles.dumps(point.profile),
            description=point.profile.description,
            tags=list(dict.fromkeys([sweep.tag, *tags])),
            command=command,
            state="queued",
        )
        for run, point in zip(runs_of(runs, sweep), sweep.points, strict=True)
    ]
    resume(all_runs, parallel)
    return all_runs


def resume(runs: Sequence[RunDir], parallel: int) -> None:
    """Start a queue that goes on with those of the runs that are not finished.

    Nothing is done if living queues and engines have them all. Else the new queue takes over what waits in another, and
    waits for engines that are at work. Raises UsageError when the process cannot be started.
    """
    unfinished = [run for run in runs if run.status().state != "finished"]
    forsaken = [run for run in unfinished if not _cared_for(run)]
    with ThreadPoolExecutor(min(max(len(forsaken), 1), 64)) as together:  # each may have to wait for a sign of life
        holders = list(together.map(RunDir.holder, forsaken))
    if held := [f"{run.id}: {holder}" for run, holder in zip(forsaken, holders, strict=True) if holder]:
        raise UsageError("\n".join(held), "Stop what still runs: `cafe stop`. Nothing was resumed.")
    for run in forsaken:
        _enqueue(run)
    if forsaken:
        _spawn(unfinished, parallel)


def _cared_for(run: RunDir) -> bool:
    """Whether a living engine or queue has this run."""
    return run.state().pid is not None and not run.settled().final


def _enqueue(run: RunDir) -> None:
    """Say that a run waits for a queue that is being started, with what was done of it before. Raises DiskError."""
    run.stop_file.unlink(missing_ok=True)  # a request that was obeyed, or is withdrawn by this
    _tell(run, "queued", None)


def _tell(run: RunDir, state: StateName, pid: int | None, error: str = "") -> None:
    process = liveness.process(pid) if pid else liveness.Process(host=socket.gethostname())
    known = replace(run.state(), state=state, error=error, hint="", lock=False, heartbeat=time.time())
    run.write_state(replace(known, **asdict(process)))


def _spawn(runs: Sequence[RunDir], parallel: int) -> None:
    """A queue process in a session of its own. What it says goes to the log of the first run that it starts."""
    paths = [str(run.path.absolute()) for run in runs]
    try:
        outliving(
            python("-m", "cafe_tui.launch.queue", f"--parallel={parallel}", *paths),
            log=runs[0].log_file,
            folder=runs[0].path,
        )
    except OSError as error:
        raise UsageError(f"cannot start the queue: {error.strerror}") from None


def stop(runs: Sequence[RunDir]) -> list[CafeError]:
    """Ask the engines of these runs to stop after the current step, with a checkpoint, and queues to let go of them.

    All are asked, by their files alone: a signal to a queue would stop the other runs that it has, and its process may
    be another user's. The result are those that could not be asked.
    """
    refused: list[CafeError] = []
    for run in runs:
        try:
            local.stop(run)
        except CafeError as error:
            refused.append(error)
    return refused


def side_by_side(wanted: Sequence[Profile]) -> int:
    """How many engines this host takes at once: as many as there are cores for the threads of each.

    One on a GPU, and one if a profile leaves the threads to torch.
    """
    gpu = any(map(os.path.exists, local.ACCELERATOR_NODES))
    threads = [profile.compute.threads for profile in wanted]
    devices = [profile.compute.device for profile in wanted]
    if any(device.startswith("cuda") or (device == "auto" and gpu) for device in devices) or None in threads:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // max(filter(None, threads), default=cores), len(threads)))


# --- the process -----------------------------------------------------------------------------------------------------


class Queue:
    """Runs that wait and runs at work, at most `parallel` of these. Runs whose engine lives already count as well."""

    def __init__(self, runs: Sequence[RunDir], parallel: int) -> None:
        self._waiting = [run for run in runs if run.state().state == "queued"]
        self._working: dict[RunDir, subprocess.Popen[bytes] | None] = {
            run: None for run in runs if run not in self._waiting and not run.status().final
        }
        self._parallel = parallel
        self._stopping = False
        self._looked = self._renewed = time.monotonic()

    def ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        """Start nothing more and stop what is at work."""
        self._stopping = True

    def run(self) -> None:
        """Until nothing is left to do."""
        for run in self._waiting:
            _try_tell(run, "queued")
        asked: set[RunDir] = set()
        while self._waiting or self._working:
            self._reap()
            if self._stopping:
                self._stop(asked)
            while self._waiting and len(self._working) < self._parallel:
                self._start(self._waiting.pop(0))
            self._look()
            time.sleep(POLL_SECONDS)

    def _stop(self, asked: set[RunDir]) -> None:
        for run in self._working.keys() - asked:
            asked.add(run)
            with suppress(DiskError):
                local.stop(run)
        for run in filter(_ours, self._waiting):
            _try_tell(run, "stopped")
        self._waiting = []

    def _start(self, run: RunDir) -> None:
        if not _ours(run):
            return
        if run.stop_file.exists():
            _try_tell(run, "stopped")
            return
        try:
            self._working[run] = local.spawn(run)
        except OSError as error:
            _try_tell(run, "failed", f"cannot start the engine: {error.strerror}")

    def _reap(self) -> None:
        for run, engine in list(self._working.items()):
            if engine is None:
                ended, code = run.status().final, 0
            else:
                ended, code = engine.poll() is not None, engine.returncode
            if ended:
                del self._working[run]
                if run.state().state == "queued":  # it did not come to its first word
                    _try_tell(
                        run, "failed", f"the engine ended with code {code} without saying why; see {run.log_file}"
                    )

    def _look(self) -> None:
        """Let go of runs that another queue has taken over or somebody wants to stop; renew the others' heartbeats."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._waiting = [run for run in self._waiting if _ours(run)]
        for run in [run for run in self._waiting if run.stop_file.exists()]:
            self._waiting.remove(run)
            _try_tell(run, "stopped")
        if now - self._renewed > RENEW_SECONDS:
            self._renewed = now
            for run in self._waiting:
                _try_tell(run, "queued")


def _ours(run: RunDir) -> bool:
    """Whether a run waits for this process: not for a later queue, which has taken it over."""
    state = run.state()
    return (state.pid, state.host) == (os.getpid(), socket.gethostname())


def _try_tell(run: RunDir, state: StateName, error: str = "") -> None:
    with suppress(DiskError):  # a full disk is met, and told, by the engine
        _tell(run, state, os.getpid(), error)


def main() -> None:
    """The process of a queue."""
    parser = argparse.ArgumentParser(prog="python -m cafe_tui.launch.queue", description=__doc__)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR")
    arguments = parser.parse_args()
    queue = Queue([RunDir(path) for path in arguments.runs], arguments.parallel)
    for number in liveness.WISHES:
        signal.signal(number, queue.ask_to_stop)
    queue.run()


if __name__ == "__main__":
    main()
