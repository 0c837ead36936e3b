"""The system screen and the process behind it, on fake drivers, fake processes and this host."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psutil
import pytest
from textual.widget import Widget

from cafe_tui.launch import spawn
from cafe_tui.launch.host import NOT_YET, SILENCE, Gpu, GpuProcess, Sample, Sampler, devices, look, read_gpus
from cafe_tui.ui.screens.system import SystemScreen
from cafe_tui.ui.widgets.system_panel import PercentChart, SystemPanel
from engine.contract.run.rundir import State
from tests.patience import PATIENCE, wait_until
from tests.recorded import record_run
from tests.ui.test_app import app_on
from tests.ui.waiting import quiet, until

NOW = 1_800_000_000.0
GPU = Gpu(
    name="NVIDIA H100 [b]",
    use=97.0,
    memory_used=40 << 30,
    memory_total=80 << 30,
    temperature=61.0,
    power=350.0,
    power_limit=700.0,
    processes=(GpuProcess(4711, 38 << 30, "ada", "python"), GpuProcess(99, 1 << 30)),
)
SAMPLE = Sample(
    t=NOW,
    cores=[0.0, 100.0],
    load=(0.5, 1.0, 2.0),
    memory_used=3 << 30,
    memory_total=4 << 30,
    disk_used=95 << 30,
    disk_total=100 << 30,
    gpus=(GPU,),
    gpus_t=NOW,
)


class GivenSamples:
    """A sampler that says what the test gives it."""

    def __init__(self, *samples: Sample) -> None:
        self.problem = ""
        self.news = list(samples)
        self.closed = False

    def poll(self) -> list[Sample]:
        news, self.news = self.news, []
        return news

    def close(self) -> None:
        self.closed = True


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


# --- the driver ------------------------------------------------------------------------------------------------------


class NVMLError(Exception):
    """As pynvml has it."""


def fake_nvml(**changes: Any) -> Any:
    def refuse(*_: Any) -> Any:
        raise NVMLError("Not Supported")

    answers = {
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda i: i,
        "nvmlDeviceGetName": lambda _: b"NVIDIA A100",
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=42, memory=7),
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=10, total=40),
        "nvmlDeviceGetTemperature": lambda _, kind: 55,
        "nvmlDeviceGetPowerUsage": lambda _: 123_456,
        "nvmlDeviceGetEnforcedPowerLimit": lambda _: 400_000,
        "nvmlDeviceGetComputeRunningProcesses": lambda _: [SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)],
    }
    for name in changes.pop("refused", ()):
        answers[name] = refuse
    return SimpleNamespace(**answers, NVMLError=NVMLError, NVML_TEMPERATURE_GPU=0, **changes)


def test_what_the_driver_tells_of_a_gpu() -> None:
    (gpu,) = read_gpus(fake_nvml())
    assert (gpu.name, gpu.use, gpu.memory_used, gpu.memory_total) == ("NVIDIA A100", 42.0, 10, 40)
    assert (gpu.temperature, gpu.power, gpu.power_limit) == (55, 123.456, 400.0)
    (process,) = gpu.processes
    assert (process.pid, process.memory, process.user) == (os.getpid(), 0, psutil.Process().username())


def test_what_a_gpu_does_not_tell_is_unknown() -> None:
    names = [name for name in vars(fake_nvml()) if name.startswith("nvmlDeviceGet")]
    (gpu,) = read_gpus(fake_nvml(refused=set(names) - {"nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"}))
    assert gpu == Gpu(name="GPU")
    with pytest.raises(NVMLError):
        read_gpus(fake_nvml(refused=["nvmlDeviceGetCount"]))


# --- the process -----------------------------------------------------------------------------------------------------


def test_this_host_is_sampled_and_the_process_ends_with_its_reader(tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    sampler = Sampler(tmp_path / "not" / "there")
    found: list[Sample] = []
    wait_until(lambda: found.extend(sampler.poll()) or found)
    sample = found[0]
    assert len(sample.cores) == psutil.cpu_count()
    assert 0 < sample.memory_used < sample.memory_total == psutil.virtual_memory().total
    assert 0 < sample.disk_used < sample.disk_total
    assert sample.gpus or sample.no_gpus
    assert sampler.problem == ""
    (child,) = set(psutil.Process().children()) - before
    sampler.close()
    assert not child.is_running()
    assert sampler.poll() == []


def test_the_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from cafe_tui.launch.host import Sampler\n"
        "sampler = Sampler(Path(sys.argv[1]))\n"
        "while not sampler.poll(): time.sleep(0.05)\n"
        "print('sampled', flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([*script(code), str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"sampled\n"
    (child,) = psutil.Process(parent.pid).children()
    parent.send_signal(signal.SIGKILL)
    parent.wait(PATIENCE)
    parent.stdout.close()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_rubbish_and_death_are_said_and_the_process_is_started_again_after_a_while(tmp_path: Path) -> None:
    now = [100.0]
    line = msgspec.json.encode(SAMPLE).decode()
    sampler = Sampler(tmp_path, script(f"print('rubbish'); print({line!r}); print('{{}}')"), clock=lambda: now[0])
    found: list[Sample] = []
    wait_until(lambda: found.extend(sampler.poll()) or "ended with code 0" in sampler.problem)
    assert found == [SAMPLE]
    for _ in range(5):
        assert sampler.poll() == [], "not started again at once"
    now[0] += SILENCE
    wait_until(lambda: found.extend(sampler.poll()) or len(found) == 2)
    sampler.close()
    missing = Sampler(tmp_path, ["/no/such/program"])
    missing.poll()
    assert "No such file" in missing.problem
    missing.close()


def test_a_process_that_hangs_is_never_waited_for(tmp_path: Path) -> None:
    sampler = Sampler(tmp_path, script("import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(1000)"))
    before = set(psutil.Process().children())
    assert sampler.poll() == []
    assert sampler.poll() == []
    (child,) = set(psutil.Process().children()) - before
    assert child.is_running()
    sampler.close()
    assert not child.is_running()


def test_devices_are_offered_by_how_free_they_are_and_as_the_engine_counts_them() -> None:
    idle = Gpu(name="A100", use=0.0, memory_used=0, memory_total=40 << 30)
    sample = msgspec.structs.replace(SAMPLE, gpus=(GPU, idle))
    assert list(devices(sample)) == ["auto", "cuda:1", "cuda:0", "cpu"]
    assert devices(sample)["cuda:1"] == "A100, 0% busy, 40 of 40 GiB free"
    assert devices(sample)["cpu"] == "2 cores, load 0.5"
    assert list(devices(sample, "1")) == ["auto", "cuda:0", "cpu"]
    assert devices(sample, "1")["cuda:0"].startswith("A100")
    assert list(devices(sample, "GPU-8a3f, 7")) == ["auto", "cpu"]
    assert spawn.environment()["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_one_look_at_this_host(tmp_path: Path) -> None:
    sample = look(tmp_path, PATIENCE)
    assert sample is not None
    assert sample.gpus or sample.no_gpus != NOT_YET


# --- the screen ------------------------------------------------------------------------------------------------------


async def test_gpus_show_their_use_and_whose_runs_are_on_them(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="game", state="running")
    run.write_state(State(state="running", pid=4711, host=socket.gethostname(), heartbeat=NOW))
    given = GivenSamples(SAMPLE)
    async with app_on(tmp_path).run_test(size=(120, 40)) as pilot:
        pilot.app.push_screen(SystemScreen(tmp_path, given, clock=lambda: NOW))  # type: ignore[arg-type]
        await until(pilot, lambda: isinstance(pilot.app.screen, SystemScreen))
        panel = pilot.app.screen.query_one(SystemPanel)
        await until(pilot, lambda: "H100" in panel.text())
        text = panel.text()
        assert " 97%  NVIDIA H100 [b]  61 °C  350 W of 700 W" in text
        assert " 50%  40.0 GiB of 80.0 GiB" in text
        assert f"38.0 GiB  run {run.id}" in text
        assert "somebody: a process" in text
        assert " 50%  2 cores, load 0.50 1.00 2.00" in text
        assert "▁█" in text
        assert " 75%  3.0 GiB of 4.0 GiB" in text
        assert " 95%  95.0 GiB of 100.0 GiB, 5.0 GiB free" in text
        charts = [chart for chart in pilot.app.screen.query(PercentChart) if chart.display]
        await until(pilot, lambda: len(charts) == 2 and "GPU 0 use 97" in charts[1].text())
        assert charts[0].text().splitlines()[1].split()[0].startswith("100┤")
        await pilot.press("q")
        await until(pilot, lambda: given.closed)


async def test_silence_is_said_by_part_and_nothing_repaints_without_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [NOW]
    hung = msgspec.structs.replace(SAMPLE, gpus_t=NOW - 60)
    given = GivenSamples(hung)
    async with app_on(tmp_path).run_test(size=(80, 24)) as pilot:
        pilot.app.push_screen(SystemScreen(tmp_path, given, clock=lambda: now[0]))  # type: ignore[arg-type]
        await until(pilot, lambda: isinstance(pilot.app.screen, SystemScreen))
        panel = pilot.app.screen.query_one(SystemPanel)
        await until(pilot, lambda: "the GPU driver has not answered for 1m 00s" in panel.text())
        assert "2 cores" in panel.text()
        painted: list[Widget] = []
        refresh = Widget.refresh

        def count(self: Widget, *regions: object, **options: bool) -> Widget:
            painted.append(self)
            return refresh(self, *regions, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(Widget, "refresh", count)
        await quiet(pilot, lambda: len(painted), 1.2)
        now[0] += 75
        await until(pilot, lambda: "no news of this host for 1m 15s" in panel.text())


@pytest.mark.parametrize("size", [(1, 1), (40, 12), (60, 20), (200, 60)])
async def test_every_size_and_a_host_without_gpu(tmp_path: Path, size: tuple[int, int]) -> None:
    none = msgspec.structs.replace(SAMPLE, gpus=(), no_gpus="no NVIDIA GPU or driver here", cores=[50.0] * 256)
    async with app_on(tmp_path).run_test(size=size) as pilot:
        pilot.app.push_screen(SystemScreen(tmp_path, GivenSamples(none)))  # type: ignore[arg-type]
        await until(pilot, lambda: isinstance(pilot.app.screen, SystemScreen))
        panel = pilot.app.screen.query_one(SystemPanel)
        if size[0] >= 40:
            await until(pilot, lambda: "no NVIDIA GPU or driver here" in panel.text())
            assert "256 cores" in panel.text()
        await pilot.pause(0.2)
