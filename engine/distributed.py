"""The one place that knows about ranks: one run over several processes, on several devices or several nodes.

torchrun starts the processes and starts all of them again when one is killed; they find each other by its environment
variables. In a process that torchrun did not start there is one rank, and everything here is free of charge. torch is
imported inside, because the life of a process begins before torch is there.

Whoever reaches a store of torch, or a connection of gloo, can run code here: both carry pickles and ask for no
password. On one host, the ranks therefore meet in files that their user alone can open, and listen on loopback, one
port each, until they are connected; then they answer nobody any more, see `_deafen`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from engine.contract.errors import RunFailed
from engine.oom import out_of_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributed import ProcessGroup

T = TypeVar("T")

RESTARTS = 3
"""How often all ranks of a run are started again when one was killed."""
PATIENCE = timedelta(minutes=10)
"""How long a rank waits for the others, which may be writing a checkpoint or loading data."""
MEETING = "CAFE_MEETING"
"""Environment variable with the folder in which the ranks of one host meet."""
_PR_SET_PDEATHSIG = 1
_SO_ATTACH_FILTER = 26  # of Linux; the module socket has no name for it
_DROP_ALL = b"\x06\0\0\0\0\0\0\0"
"""A filter of one instruction: `return 0`, keep no byte of a packet."""
_FOLDER, _HELD = "cafe-meeting-", "held"

_host: ProcessGroup | None = None  # on gloo, for numbers that the host knows: never waits for a GPU


class RankLost(Exception):
    """Another rank is gone. Its own words, or torchrun, which starts all ranks again, tell more."""


def elastic() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """Which of the processes this one is, from 0."""
    return int(os.environ["RANK"]) if elastic() else 0


def local_rank() -> int:
    """Which of the processes of this host it is, from 0."""
    return int(os.environ["LOCAL_RANK"]) if elastic() else 0


def world() -> int:
    """How many processes share the run."""
    return int(os.environ["WORLD_SIZE"]) if elastic() else 1


def first() -> bool:
    """Whether this is rank 0, the only one that writes."""
    return rank() == 0


def restarted() -> bool:
    """Whether an earlier attempt of these ranks was cut short."""
    return elastic() and int(os.environ["TORCHELASTIC_RESTART_COUNT"]) > 0


def on_one_host() -> bool:
    """Whether `launch` started this process, and with it all ranks."""
    return MEETING in os.environ


def engine_pid() -> int:
    """The process whose end is the end of the run on this host: torchrun's agent where there is one."""
    return os.getppid() if elastic() else os.getpid()


def launch(directory: Path, processes: int) -> str:
    """Be the agent of torchrun for `processes` ranks on this host until the last attempt has ended.

    Returns normally however it ended: what became of the run is in its directory. Where ranks lost each other, the
    result is what the last of them said.
    """
    # Otherwise the agent opens a store for its ranks, and on all interfaces.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = _loopback()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    if sys.flags.safe_path:  # which -P does not hand on: ranks must take the same engine for ours as their agent did
        os.environ["PYTHONSAFEPATH"] = "1"
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with _meeting() as folder:
        os.environ[MEETING] = folder
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=directory.name,
            rdzv_backend="c10d",
            rdzv_endpoint=f"{folder}/agent",
            # The file only ever grows, by every sign of life; and nobody waits for those of a single agent.
            rdzv_configs={"store_type": "file", "keep_alive_interval": 24 * 3600},
            local_addr="127.0.0.1",
            max_restarts=RESTARTS,
            monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=f"{folder}/log"),
            signals_to_handle="SIGQUIT",  # of the others it would make an end within half a minute
        )
        try:
            elastic_launch(config, sys.executable)("-m", "engine", "run", str(directory))
        except (ChildFailedError, SignalException) as error:
            print(f"torchrun: {str(error).strip().splitlines()[0]}", file=sys.stderr, flush=True)
        with suppress(OSError):
            return _lost_file(folder).read_text(encoding="utf-8")
    return ""


@contextmanager
def _meeting() -> Iterator[str]:
    """A folder that is ours alone (mode 0700).

    We hold a lock in it, of which the kernel lets go when we end, however we end: `sweep` then knows that it is left.
    """
    from filelock import FileLock

    folder = tempfile.mkdtemp(prefix=f".{_FOLDER}")  # not yet swept by others: no lock is held
    with FileLock(Path(folder, _HELD)):
        named = Path(folder).with_name(Path(folder).name[1:])
        os.rename(folder, named)
        try:
            yield str(named)
        finally:
            shutil.rmtree(named, ignore_errors=True)


def sweep() -> None:
    """Remove the folders that agents of this user have left, who were killed. Each engine that starts does."""
    from filelock import FileLock, Timeout

    for left in () if elastic() else Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        with suppress(OSError, Timeout):
            status = left.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
                with FileLock(left / _HELD, timeout=0):
                    shutil.rmtree(left)


def _listeners() -> set[int]:
    """The open sockets of this process that take connections, by their numbers. Linux only."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.add(int(name))
    return found


def _deafen(numbers: Iterable[int]) -> None:
    """Let these sockets drop whatever reaches them: every account of the host can reach a port on loopback.

    gloo keeps the sockets by which its ranks have found each other; closed, they would keep its thread busy.
    """
    for number in numbers:
        code = ctypes.create_string_buffer(_DROP_ALL, len(_DROP_ALL))
        program = struct.pack("HP", 1, ctypes.addressof(code))
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as one:
            one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _loopback() -> str:
    """The name of this host's interface to itself."""
    there = psutil.net_if_addrs().items()
    return next((name for name, known in there if any(each.address == "127.0.0.1" for each in known)), "lo")


def _lost_file(meeting: str) -> Path:
    """Where ranks of one host say that they lost another, for the agent to tell when it gives up."""
    return Path(meeting, "lost")


def tell_loss(words: str) -> None:
    """Say that this rank has lost another."""
    print(words, file=sys.stderr, flush=True)
    if on_one_host():
        with suppress(OSError):
            _lost_file(os.environ[MEETING]).write_text(words, encoding="utf-8")


def die_with_agent() -> None:
    """Let the kernel end this rank at once when its agent dies: an orphan would write beside the engine that follows.

    Each rank is a session of its own, so that no signal to the agent's process group would reach it. Linux only.
    """
    if not elastic() or not sys.platform.startswith("linux"):
        return
    agent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if agent == 1 or os.getppid() != agent:  # it died before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Within this context the ranks are connected: by nccl between GPUs, by gloo between CPUs.

    Raises RunFailed where they cannot be.
    """
    global _host
    if world() == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    backend = "nccl" if device.type == "cuda" else "gloo"
    closing = backend == "gloo" and on_one_host() and sys.platform.startswith("linux")
    before = _listeners() if closing else set()
    try:
        dist.init_process_group(backend, _place(), rank=rank(), world_size=world(), timeout=PATIENCE)
        _host = dist.group.WORLD if backend == "gloo" else dist.new_group(backend="gloo", timeout=PATIENCE)
        there = torch.ones(1, device=device)
        dist.all_reduce(there)  # nccl connects at the first exchange
        there.item()
        if closing:
            _deafen(_listeners() - before)
    except (RuntimeError, ValueError) as error:
        if out_of_memory(error):
            raise
        if restarted():  # the ranks were connected before: one of them may be gone again
            raise _lost(error) from error
        raise RunFailed(
            f"the processes of the run cannot be connected by {backend}: {_one_line(error)}",
            "engine.log has all that torch said.",
        ) from error
    try:
        yield
    except BaseException:
        raise  # the others are not where this rank is: taking the groups down together would wait for them
    else:
        dist.destroy_process_group()
    finally:
        _host = None


def _place() -> str:
    """Where the ranks of one host find each other, anew in every attempt; otherwise what torchrun offers."""
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]  # the file of another one has the keys of the dead
    return f"file://{os.environ[MEETING]}/ranks-{attempt}" if on_one_host() else "env://"


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what torch raises for a peer that is gone or late
        if out_of_memory(error):
            raise
        raise _lost(error) from error


def _lost(error: Exception) -> RankLost:
    return RankLost(f"rank {rank()} waited for a rank that is gone: {_one_line(error)}")


def _one_line(error: Exception) -> str:
    """What torch says, in one line, without the place in its sources."""
    return " ".join(str(error).split("Exception raised from")[0].split()) or type(error).__name__


def sum_up(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one format and device by their sums over the ranks, in one exchange."""
    if world() == 1 or not tensors:
        return
    import torch
    import torch.distributed as dist

    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    with _together():
        dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.detach().copy_(total.view(tensor.shape))


def totals(*numbers: float) -> tuple[float, ...]:
    """Sums over the ranks of numbers that the host knows; exact for whole ones."""
    if world() == 1:
        return numbers
    import torch
    import torch.distributed as dist

    values = torch.tensor(numbers, dtype=torch.float64)
    with _together():
        dist.all_reduce(values, group=_host)
    return tuple(values.tolist())


def anywhere(flag: bool) -> bool:
    """Whether it is true on some rank; all get the same answer."""
    return totals(float(flag))[0] > 0


def of_first(ask: Callable[[], T]) -> T:
    """What `ask` tells rank 0. Files are looked up so: over NFS another host may not see them yet."""
    if world() == 1:
        return ask()
    import torch.distributed as dist

    answers: list[Any] = [ask() if first() else None]
    with _together():
        dist.broadcast_object_list(answers, src=0, group=_host)
    answer: T = answers[0]
    return answer


def of_all(value: T) -> list[T]:
    """The values of all ranks, in their order."""
    if world() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * world()
    with _together():
        dist.all_gather_object(values, value, group=_host)
    return values


def share(rows: Tensor) -> Tensor:
    """This rank's part of rows (N,): every world()-th one, so that parts differ by one row at most."""
    return rows[rank() :: world()]
