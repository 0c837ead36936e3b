"""Whether the process that writes a run lives: its lock, its process, and signs of life that come or stay away.

The lock comes first. An engine holds `control/engine.lock` for as long as it lives, and the kernel or the NFS server
lets go of it however the engine ends. Held means alive, whatever clocks and process tables say. Free is weaker: some
file systems lock for one host alone, so a free lock is believed at once only on the kernel that the engine ran on.

Next comes the process, known by the boot of its kernel and by clock ticks since then, which no clock step changes, and
by the namespace of its number, since a container counts its own. Where it cannot be seen, signs of life decide: a
reader that looks twice goes by whether they change, on its own monotonic clock. Only a first look compares clocks.

Nothing here imports psutil on Linux: a list of runs asks thousands of times.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec

HEARTBEAT_SECONDS = 5.0
"""How often a living engine renews its heartbeat."""
LOST_AFTER_SECONDS = 60.0
"""A heartbeat older than this, without a final state and with a free lock, means the run is lost."""
CLOCKS_APART_SECONDS = 24 * 3600.0
"""Clocks of two hosts are never further apart: a heartbeat older than this is old by any clock."""
RELEASE_SECONDS = 10.0
"""How long an engine that has told its end may take to let go of its run."""
WISHES = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
    *(signal.SIGUSR1, signal.SIGUSR2),  # which a scheduler is told to send ahead of the end: Slurm's --signal
    signal.SIGXCPU,  # the time is up, of Grid Engine, LSF and limits
)
"""Signals that mean: stop after this step, with a checkpoint. A scheduler that is not heard kills."""

_CONTENDED = frozenset({errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK})
HOST_KILLS = "/proc/vmstat"
"""Where the kernel counts the kills for memory of the whole host."""


class Process(msgspec.Struct, kw_only=True):
    """A process as others can know it again. `pid_started` in unix seconds, `pid_ticks` in clock ticks since `boot`.

    `pid_namespace` is that in which `pid` counts. `oom_kills` processes had been killed for memory at its last sign of
    life, by the file `oom_source`. Empty or None where the system does not tell, or in older files.
    """

    pid: int | None = None
    pid_started: float | None = None
    pid_ticks: int | None = None
    pid_namespace: str = ""
    boot: str = ""
    host: str = ""
    oom_source: str = ""
    oom_kills: int | None = None


# --- processes -------------------------------------------------------------------------------------------------------


def process(pid: int) -> Process:
    """How a living process of this host is known."""
    source = oom_source()
    return Process(
        pid=pid,
        pid_started=process_started(pid),
        pid_ticks=_ticks(pid),
        pid_namespace=_namespace(),
        boot=_boot(),
        host=socket.gethostname(),
        oom_source=source,
        oom_kills=oom_kills(source),
    )


def alive(known: Process) -> bool | None:
    """Whether a process lives; None where that cannot be seen from here."""
    if known.pid is None or known.host != socket.gethostname():
        return None
    if known.boot and known.boot != _boot():
        return None  # of before a restart, or of another host of this name
    if known.pid_namespace and known.pid_namespace != _namespace():
        return None
    if known.boot and known.pid_ticks is not None:
        return _ticks_fit(known.pid, known.pid_ticks)
    return process_alive(known.pid, known.pid_started)


def same_kernel(known: Process) -> bool:
    """Whether a process ran on the kernel that we run on, where a lock that is free for us is free for all."""
    return bool(known.boot) and known.boot == _boot()


def process_alive(pid: int, started: float | None) -> bool:
    """Whether process `pid` of this host lives and, if known, started at `started` (unix seconds).

    A zombie is dead: its parent has merely not asked for its exit code yet.
    """
    import psutil  # 20 ms that listing finished runs need not pay

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return started is None or abs(process.create_time() - started) < 2.0
    except (psutil.NoSuchProcess, ValueError):  # ValueError: no number of a process
        return False
    except psutil.AccessDenied:
        return True


def process_started(pid: int) -> float:
    """Start time of a living process, in unix seconds."""
    import psutil

    return float(psutil.Process(pid).create_time())


def send(known: Process, number: signal.Signals, *words: str) -> bool:
    """Signal a process if it is our own and what it is taken for; whether it was sent.

    It must be of this user, have started when `known` says, and each of `words` must be an argument of its command or
    the last part of one. Anything less is a stranger who got the number.
    """
    import psutil

    if known.pid is None or (known.pid_ticks is None and known.pid_started is None) or not alive(known):
        return False
    with suppress(psutil.Error, OSError), _kept(known.pid) as signalled:  # from here on the number means this process
        found = psutil.Process(known.pid)
        arguments = found.cmdline()
        parts = {*arguments, *(os.path.basename(argument.rstrip("/")) for argument in arguments)}
        if alive(known) and found.uids().real == os.getuid() and parts.issuperset(words):
            signalled(number)
            return True
    return False


@contextmanager
def _kept(pid: int) -> Iterator[Callable[[signal.Signals], None]]:
    """How to signal a process, whose number cannot come to mean another one within this context. Raises OSError."""
    if not hasattr(os, "pidfd_open"):  # Linux alone has them
        yield partial(os.kill, pid)
        return
    file = os.pidfd_open(pid)
    try:
        yield partial(signal.pidfd_send_signal, file)
    finally:
        os.close(file)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on; None where there is no such process to be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read(4096).rpartition(b")")[2].decode("ascii", "replace").split()
    except OSError:
        return None


def _ticks(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[19]) if fields and len(fields) > 19 else None


def _ticks_fit(pid: int, ticks: int) -> bool:
    fields = _stat(pid)
    if fields is None or len(fields) < 20:
        return _hidden(pid)
    return fields[0] not in "ZX" and int(fields[19]) == ticks


def _hidden(pid: int) -> bool:
    """Whether a process lives that /proc shows to its user alone (hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def _boot() -> str:
    """Which boot of which kernel this is; empty where the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
            return file.read(100).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


# --- locks -----------------------------------------------------------------------------------------------------------


def held(lock: Path | str) -> bool | None:
    """Whether somebody holds a lock file. None where that cannot be known, as on a file system without locks.

    The look takes a shared lock for a moment, so readers do not disturb each other; an engine that begins in this
    very moment tries again.
    """
    try:
        file = os.open(lock, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # an engine makes it before its first word
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError as error:
        return True if error.errno in _CONTENDED else None
    finally:
        os.close(file)  # which lets go of it


def released(lock: Path, seconds: float = RELEASE_SECONDS) -> bool:
    """Wait for so many seconds until nobody holds a lock file; whether nobody does, as far as can be known."""
    deadline = time.monotonic() + seconds
    while held(lock):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# --- signs of life ---------------------------------------------------------------------------------------------------

_looks: dict[str, tuple[float, float, bool]] = {}
"""For each run that was judged so: the newest heartbeat, when this reader first saw it, and whether it saw another
before. Times of the monotonic clock."""


def silent(run: str, heartbeat: float, now: float) -> bool:
    """Whether a run gives no sign of life. This reader's earlier looks decide, only at first the clock `now`."""
    clock = time.monotonic()
    newest, since, moved = _looks.get(run, (heartbeat, clock, False))
    if heartbeat != newest:
        since, moved = clock, True
    _looks[run] = (heartbeat, since, moved)
    return clock - since > LOST_AFTER_SECONDS or (not moved and now - heartbeat > LOST_AFTER_SECONDS)


# --- what the kernel tells of kills for memory -----------------------------------------------------------------------


def oom_source() -> str:
    """The file in which the kernel counts kills for memory, of our control group or else of the host; empty if none."""
    groups: list[str] = []
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                groups += [f"{root}{group}/memory.events" for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")]
            elif "memory" in controllers.split(","):
                groups.append(f"/sys/fs/cgroup/memory{group}/memory.oom_control")
    return next((file for file in (*groups, HOST_KILLS) if oom_kills(file) is not None), "")


def oom_kills(source: str) -> int | None:
    """How many processes were killed for memory, by such a file; None where it does not tell."""
    if source != HOST_KILLS and (not source.startswith("/sys/fs/cgroup/") or ".." in source):
        return None  # a state.json may be anybody's: nothing else is opened at its word
    try:
        with open(source, "rb", buffering=0) as file:
            lines = file.read(1 << 16).splitlines()
    except OSError:
        return None
    return next((int(line[9:]) for line in lines if line.startswith(b"oom_kill ") and line[9:].isdigit()), None)


def kills_since(known: Process) -> str | None:
    """That processes were killed for memory since a process gave its last sign of life, in words; empty if none was.

    None where the kernel does not tell.
    """
    now = oom_kills(known.oom_source) if known.oom_source else None
    if now is None or known.oom_kills is None:
        return None
    count = now - known.oom_kills
    where = "on this host" if known.oom_source == HOST_KILLS else "in its control group"
    killed = "a process" if count == 1 else f"{count} processes"
    return f"the kernel killed {killed} {where} because memory ran out" if count > 0 else ""


def how_it_ended(known: Process) -> str:
    """What is known of the end of a process of this host that left no word."""
    kills = kills_since(known)
    if kills is None:
        return "it ended without a word: killed, by a scheduler or for memory?"
    return kills or "it ended without a word: killed, perhaps by a scheduler; not for memory, says the kernel"
