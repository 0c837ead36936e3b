"""What this host is doing: processors, memory, disk, GPUs. Sampled by a process of its own.

A driver that hangs takes the thread that asked it, and sometimes the process; so it is asked elsewhere, and a screen
only ever reads lines. `python -m cafe_tui.launch.host FOLDER` prints a sample as a line of JSON every two seconds until
its standard input ends, which it does when whoever started it closes it or dies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from cafe_tui.launch.spawn import python, talking

PERIOD: Final = 2.0
"""Seconds between two samples."""
SILENCE: Final = 10.0
"""Seconds after which a part that says nothing is said to be silent; also those between two starts of the process."""

NOT_YET: Final = "the GPU driver has not answered yet"


class GpuProcess(msgspec.Struct, frozen=True):
    """A process on a GPU with the bytes that it holds there; user and command are empty where they are not told."""

    pid: int
    memory: int = 0
    user: str = ""
    command: str = ""


class Gpu(msgspec.Struct, frozen=True):
    """One GPU: use in percent, memory in bytes, temperature in degrees Celsius, power in watts; None is not told."""

    name: str
    use: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    temperature: float | None = None
    power: float | None = None
    power_limit: float | None = None
    processes: tuple[GpuProcess, ...] = ()


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The host at unix time `t`: percent of each core, load of 1, 5 and 15 minutes, bytes of memory, swap and disk.

    `gpus` as they were at unix time `gpus_t`; without any, `no_gpus` says why in words.
    """

    t: float
    cores: list[float] = []
    load: tuple[float, float, float] = (0.0, 0.0, 0.0)
    memory_used: int = 0
    memory_total: int = 0
    swap_used: int = 0
    swap_total: int = 0
    disk_used: int = 0
    disk_total: int = 0
    gpus: tuple[Gpu, ...] = ()
    gpus_t: float = 0.0
    no_gpus: str = ""


# --- sampling --------------------------------------------------------------------------------------------------------


def host(folder: Path) -> dict[str, Any]:
    """All of a sample but its GPUs; `folder`, or the nearest one above it that there is, tells the disk."""
    import psutil

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    disk = shutil.disk_usage(folder)
    return {
        "cores": psutil.cpu_percent(percpu=True),
        "load": os.getloadavg(),
        "memory_used": memory.total - memory.available,
        "memory_total": memory.total,
        "swap_used": swap.used,
        "swap_total": swap.total,
        "disk_used": disk.used,
        "disk_total": disk.used + disk.free,  # what is kept for root is nobody's to use
    }


def read_gpus(nvml: Any) -> tuple[Gpu, ...]:
    """All GPUs that NVML tells of; what one of them does not tell is None. Raises nvml.NVMLError without a driver."""
    return tuple(_read_gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(i)) for i in range(nvml.nvmlDeviceGetCount()))


def _read_gpu(nvml: Any, handle: Any) -> Gpu:
    def asked(question: Callable[..., Any], *more: Any) -> Any:
        with suppress(nvml.NVMLError):
            return question(handle, *more)
        return None

    use, memory = asked(nvml.nvmlDeviceGetUtilizationRates), asked(nvml.nvmlDeviceGetMemoryInfo)
    power, limit = asked(nvml.nvmlDeviceGetPowerUsage), asked(nvml.nvmlDeviceGetEnforcedPowerLimit)
    name = asked(nvml.nvmlDeviceGetName) or "GPU"
    return Gpu(
        name=name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name),
        use=None if use is None else float(use.gpu),
        memory_used=None if memory is None else int(memory.used),
        memory_total=None if memory is None else int(memory.total),
        temperature=asked(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        power=None if power is None else power / 1000,
        power_limit=None if limit is None else limit / 1000,
        processes=tuple(
            GpuProcess(each.pid, int(each.usedGpuMemory or 0), *_who(each.pid))
            for each in asked(nvml.nvmlDeviceGetComputeRunningProcesses) or ()
        ),
    )


def _who(pid: int) -> tuple[str, str]:
    """User and command of a process, as far as the system tells."""
    import psutil

    with suppress(psutil.Error, OSError, KeyError):
        process = psutil.Process(pid)
        return process.username(), process.name()
    return "", ""


class _Gpus:
    """Asks NVML on a thread of its own, so that a driver that hangs withholds nothing else."""

    def __init__(self) -> None:
        self.gpus: tuple[Gpu, ...] = ()
        self.t = 0.0
        self.why_none = NOT_YET
        threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        try:
            import pynvml as nvml

            nvml.nvmlInit()
            while True:
                self.gpus, self.t = read_gpus(nvml), time.time()
                self.why_none = "" if self.gpus else "the driver tells of no GPU"
                time.sleep(PERIOD)
        except ImportError:
            self.why_none = "nvidia-ml-py is not installed"
        except Exception as error:  # NVMLError of any kind; what it says is for people
            self.why_none = f"no NVIDIA GPU or driver here ({error})"


def main() -> None:
    """Print samples until standard input ends."""
    folder = Path(sys.argv[1])

    def leave_with_parent() -> None:
        sys.stdin.buffer.read()
        os._exit(0)  # the thread that asks NVML may never end

    threading.Thread(target=leave_with_parent, daemon=True).start()
    asked = _Gpus()
    host(folder)  # the first look at the processors has nothing to compare with
    time.sleep(0.2)
    while True:
        told: dict[str, Any] = {"gpus": asked.gpus, "gpus_t": asked.t, "no_gpus": asked.why_none}
        try:
            sys.stdout.buffer.write(msgspec.json.encode(Sample(t=time.time(), **host(folder), **told)) + b"\n")
            sys.stdout.buffer.flush()
        except OSError:
            os._exit(0)
        time.sleep(PERIOD)


# --- reading ---------------------------------------------------------------------------------------------------------


class Sampler:
    """Starts the sampling process and reads what it says, never waiting for it. To be closed."""

    def __init__(
        self, folder: Path, command: Sequence[str] = (), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._command = [*(command or python("-m", "cafe_tui.launch.host")), str(folder)]
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started = -SILENCE
        self._rest = b""
        self._lock = threading.Lock()
        self._closed = False
        self.problem = ""
        """What is wrong with the process, in words; empty while it is well."""

    def poll(self) -> list[Sample]:
        """The samples since the last call; starts the process, again when it ended, every ten seconds at most."""
        with self._lock:
            if self._closed:
                return []
            if self._process is None and self._clock() - self._started >= SILENCE:
                self._start()
            samples = self._read()
            if self._process and (code := self._process.poll()) is not None:
                self.problem = f"the process that looks at this host ended with code {code}; it is started again"
                self._end()
            return samples

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._closed = True
            self._end()

    def _start(self) -> None:
        self._started, self._rest = self._clock(), b""
        try:
            self._process = talking(self._command)
        except OSError as error:
            self.problem = f"the process that looks at this host cannot be started: {error.strerror}"
            return
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def _read(self) -> list[Sample]:
        if self._process is None or self._process.stdout is None:
            return []
        chunk = self._process.stdout.read(1 << 20) or b""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[-(1 << 20) :]
        samples = []
        for line in lines:
            try:
                samples.append(msgspec.json.decode(line, type=Sample))
                self.problem = ""
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.problem = "the process that looks at this host says what is no sample"
        return samples

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream:
                with suppress(OSError):
                    stream.close()
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def look(folder: Path, seconds: float = 3.0) -> Sample | None:
    """One sample, with GPUs if they answer within so many seconds; None if nothing does."""
    sampler, newest = Sampler(folder), None
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end and (newest is None or newest.no_gpus == NOT_YET):
            newest = next(reversed(sampler.poll()), newest)
            time.sleep(0.05)
    finally:
        sampler.close()
    return newest


def devices(sample: Sample, visible: str | None = None) -> dict[str, str]:
    """The devices that a profile may name, the freest GPU first, each with how free it is.

    `visible` is CUDA_VISIBLE_DEVICES, which renumbers GPUs for whoever is started from here. The engine is started so
    that CUDA counts them as the driver does.
    """
    numbers = range(len(sample.gpus))
    seen = [part.strip() for part in visible.split(",")] if visible else [str(number) for number in numbers]
    shown = [(i, sample.gpus[int(part)]) for i, part in enumerate(seen) if part.isdigit() and int(part) in numbers]
    shown.sort(key=lambda pair: (pair[1].memory_used or 0, pair[1].use or 0.0))
    told = {"auto": "the first GPU, or the processors"}
    for number, gpu in shown:
        busy = "" if gpu.use is None else f"{gpu.use:.0f}% busy, "
        free = (gpu.memory_total or 0) - (gpu.memory_used or 0)
        told[f"cuda:{number}"] = (
            f"{gpu.name}, {busy}{free / 2**30:.0f} of {(gpu.memory_total or 0) / 2**30:.0f} GiB free"
        )
    told["cpu"] = f"{len(sample.cores)} cores, load {sample.load[0]:.1f}"
    return told


if __name__ == "__main__":
    main()
