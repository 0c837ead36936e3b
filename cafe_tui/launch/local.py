"""Engine processes on this host: start, stop, kill. Each is a session of its own, so it outlives the terminal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cafe_tui.launch.spawn import outliving, python
from engine.contract.datasets import check_here
from engine.contract.errors import UsageError
from engine.contract.profile import files as profiles
from engine.contract.profile.catalogue import NO_WEIGHTS
from engine.contract.profile.files import Loaded
from engine.contract.profile.schema import Profile
from engine.contract.run import liveness, rundir
from engine.contract.run.rundir import RunDir

ACCELERATOR_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""One of these is there wherever torch could find a CUDA or ROCm device."""


def start(
    runs: Path, loaded: Loaded, *, name: str | None = None, tags: Sequence[str] = (), command: Sequence[str] = ()
) -> tuple[RunDir, subprocess.Popen[bytes]]:
    """Create a run of a resolved profile under `runs` and start its engine.

    Raises UsageError, with nothing left behind, when the device, the data or the checkpoint cannot be there, the folder
    cannot be written or the process cannot be started.
    """
    profile = loaded.profile
    check(profile)
    run = rundir.create(
        runs.absolute(),
        name or profile.name,
        profiles.dumps(profile),
        description=profile.description,
        tags=tags,
        command=command,
    )
    try:
        return run, spawn(run)
    except OSError as error:
        shutil.rmtree(run.path, ignore_errors=True)
        raise UsageError(f"cannot start the engine: {error.strerror}") from None


def resume(run: RunDir, devices: str | None = None) -> subprocess.Popen[bytes]:
    """Start an engine that goes on where the last one of this run stopped, was killed or failed.

    With `devices` on these from now on, which the run's profile then says. Raises UsageError and DiskError.
    """
    status = run.settled()
    if not status.final:
        raise UsageError(f"{run.id} is {status.state}", "`cafe watch` follows it.")
    if status.state == "finished":
        raise UsageError(f"{run.id} is finished", "`cafe run` on its profile.toml repeats it.")
    if run.partly_removed:
        raise UsageError(f"{run.id} is the rest of a removed run", f"`cafe rm {run.id}` removes it.")
    if not run.profile_file.is_file():
        raise UsageError(f"{run.id} has no profile.toml; it cannot go on")
    if holder := run.holder():
        raise UsageError(f"{run.id} is {status.state}, but {holder}", "Stop it first: `cafe stop`.")
    if devices is not None:
        profile = profiles.load(str(run.profile_file), [f"compute.devices={json.dumps(devices)}"]).profile
        _check_devices(profile)
        rundir.write_atomically(run.profile_file, profiles.dumps(profile).encode())
    try:
        return spawn(run)
    except OSError as error:
        raise UsageError(f"cannot start the engine: {error.strerror}") from None


def spawn(run: RunDir) -> subprocess.Popen[bytes]:
    """An engine process for a run directory; all it prints goes to engine.log. Raises OSError."""
    command = python("-m", "engine", "run", str(run.path.absolute()))
    return outliving(command, log=run.log_file, folder=run.path)


def check(profile: Profile) -> None:
    """Refuse, before anything is made, what cannot run on this host. Raises UsageError."""
    _check_devices(profile)
    check_here(profile.data)
    for key in ("checkpoint", "hypothesis"):
        file = getattr(profile.model, key)
        if file not in (None, NO_WEIGHTS) and not Path(file).is_file():
            raise UsageError(f"model.{key}: there is no file {file}", "Name a file of weights.")


def _check_devices(profile: Profile) -> None:
    """Refuse a GPU where the system shows none, before anything is made; the engine checks the rest with torch."""
    device = profile.compute.places[0]
    if device.startswith("cuda") and not any(map(os.path.exists, ACCELERATOR_NODES)):
        key = "devices" if profile.compute.devices else "device"
        raise UsageError(
            f"compute.{key}: {device} is not there; this host shows no GPU",
            "Use --device cpu or --device auto; `cafe doctor` shows what there is.",
        )


def stop(run: RunDir) -> None:
    """Ask the engine to stop after its current step with a checkpoint, wherever it runs. Raises DiskError.

    No signal is sent beside: one to the agent of several processes would leave them half a minute to end.
    """
    run.request_stop()


def kill(run: RunDir) -> None:
    """End the engine at once, if it runs on this host and is ours. What is on disk stays readable."""
    state = run.state()
    if state.state not in (*rundir.FINAL, "queued"):
        liveness.send(state, signal.SIGKILL, "engine", "run", run.id)
