"""A hundred SIGKILLs at random moments over all kinds of work: every run ends as one that nobody disturbed.

`CAFE_TEST_SEED` draws the moments of an earlier session again; what happens between two steps is up to the machine.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from secrets import randbits

import psutil
import pytest

from cafe_tui.launch import local
from engine.contract.plan import plan
from engine.contract.profile import files as profiles
from engine.contract.run.records import StageChange
from engine.contract.run.rundir import FINAL, RunDir
from tests.engine.conftest import quick_run  # noqa: F401
from tests.faults.killing import differences, draw, end_all, finish, killed, runs_in, wait_until, workers, written
from tests.faults.test_sweep_faults import cafe

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

SEED = int(
    os.environ.get("CAFE_TEST_SEED") or int(os.environ.get("PYTEST_XDIST_TESTRUNUID", "0"), 16) % 2**32 or randbits(32)
)
"""The same in all processes of a session."""
KILLS_PER_RUN = 7

BASE: dict[str, object] = {
    "data": {"validation": 0.8},  # leaves 269 images to train on
    "threat": {"eps": 0.1},
    "compute": {"threads": 1, "device": "cpu"},
    "checkpoint": {"every_steps": 2},
}
FEW = {"batch_size": 64, "adversary": {"steps": 2}}
BRIEF = FEW | {"kind": "train", "epochs": 1}
TRAIN = FEW | {"kind": "train", "defence": "awp", "epochs": 3, "ema": 0.9}
GAME = FEW | {"kind": "game", "epochs": 2, "regret_steps": 2}
INOCULATE = FEW | {"kind": "inoculate", "defence": "trades", "epochs": 2, "lr": 0.01, "inversion_steps": 2}
LOOK = {"kind": "evaluate", "attacks": ["clean", "pgd"], "pgd_steps": 2, "limit": 40, "checks": False, "samples": 0}
TABLE = {
    "kind": "evaluate",
    "attacks": ["clean", "fgsm", "pgd", "aa"],
    "pgd_steps": 5,
    "apgd_steps": 5,
    "fab_steps": 5,
    "square_queries": 40,
    "batch_size": 32,
    "limit": 80,
    "samples": 2,
}
ONE_PROCESS: dict[str, tuple[int, list[dict[str, object]]]] = {
    "train": (18, [TRAIN, LOOK]),
    "game": (18, [BRIEF, GAME]),
    "inoculate": (18, [BRIEF, GAME | {"epochs": 1}, INOCULATE, LOOK]),
    "evaluate": (18, [BRIEF, TABLE]),
}
"""By the stage that is killed: how often, and the stages of its runs."""
TWO_PROCESSES, SWEEP = 14, 14
assert sum(kills for kills, _ in ONE_PROCESS.values()) + TWO_PROCESSES + SWEEP == 100

Make = Callable[..., RunDir]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for folders of runs; what a failed test left at work in it is ended."""
    yield tmp_path
    end_all(tmp_path)


def report(what: str, kills: int, runs: int) -> None:
    print(f"{what}: {kills} kills in {runs} runs, all of them identical to undisturbed ones (seed {SEED})")


@pytest.mark.parametrize("stage", ONE_PROCESS)
def test_kills_of_one_process(quick_run: Make, stage: str) -> None:  # noqa: F811
    random, (wanted, stages) = Random(f"{SEED} {stage}"), ONE_PROCESS[stage]
    kills = runs = 0
    while kills < wanted:
        tables = BASE | {"name": "killed", "seed": runs, "stage": stages}
        undisturbed, run = quick_run(tables=tables), quick_run(tables=tables)
        finish(undisturbed)
        planned = next(p for p in plan(profiles.load(str(run.profile_file)).profile) if p.id == stage)
        for moment in draw(random, stage, planned.steps, min(KILLS_PER_RUN, wanted - kills)):
            if not killed(run, moment):
                break
            kills += 1
        if run.state().state != "finished":
            finish(run)
        assert differences(run, undisturbed) == [], f"seed {SEED}, run {runs}"
        runs += 1
    report(stage, kills, runs)


def test_kills_of_two_processes(quick_run: Make, folder: Path) -> None:  # noqa: F811
    """The agent or one of its ranks; the ranks begin again by themselves, up to three times in a row."""
    random = Random(f"{SEED} two processes")
    game = GAME | {"epochs": 1}
    table = TABLE | {"attacks": ["clean", "pgd", "apgd-ce"]}
    tables = BASE | {"name": "two", "stage": [TRAIN | {"epochs": 2}, game, INOCULATE | {"epochs": 1}, table]}
    kills = runs = 0
    undisturbed = quick_run("compute.devices=cpu:2", tables=tables)
    assert local.spawn(undisturbed).wait() == 0, undisturbed.log_file.read_text()
    while kills < TWO_PROCESSES:
        run = quick_run("compute.devices=cpu:2", tables=tables)
        engine = local.spawn(run)
        for _ in range(min(KILLS_PER_RUN, TWO_PROCESSES - kills)):
            if await_records(run, engine, random.randint(0, 25)):
                kills += kill_one(run, engine, random)
            if engine.poll() is not None and run.state().state != "finished":
                engine = local.resume(run)  # it was the agent, or the ranks were killed once too often for it
        engine.wait()
        while run.state().state != "finished":
            assert local.resume(run).wait() in (0, 1), run.log_file.read_text()
        assert differences(run, undisturbed) == [], f"seed {SEED}, run {runs}"
        runs += 1
    report("two processes", kills, runs)


def kill_one(run: RunDir, engine: subprocess.Popen[bytes], random: Random) -> bool:
    """Kill the agent, and wait until its ranks are gone, or kill a rank, and wait for the next attempt."""
    ranks = [each for each in workers(run.path.parent, run.id) if each.pid != engine.pid]
    begun = written(run, StageChange)
    victim = random.choice([psutil.Process(engine.pid), *ranks])
    try:
        victim.kill()
    except psutil.NoSuchProcess:
        return False
    if victim.pid == engine.pid:
        engine.wait()
        wait_until(lambda: not workers(run.path.parent, run.id))
    else:
        wait_until(lambda: written(run, StageChange) > begun or engine.poll() is not None)
    return True


def await_records(run: RunDir, engine: subprocess.Popen[bytes], more: int) -> bool:
    """Wait for so many more records of a run; whether its engine still lives then."""
    wanted = written(run) + more
    wait_until(lambda: written(run) >= wanted or engine.poll() is not None)
    return engine.poll() is None


def test_kills_of_a_sweep(folder: Path) -> None:
    """The queue or one of its engines; `cafe resume TAG` goes on with what is left."""
    random = Random(f"{SEED} sweep")
    (folder / "seeds.toml").write_text(
        profiles.dumps(profiles.from_tables(BASE | {"name": "seeds", "stage": [BRIEF, GAME, LOOK]}))
        + "\n[sweep]\nseed = [0, 1, 2]\n"
    )
    calm = folder / "undisturbed"
    assert cafe("run", "seeds", "--plain", "--parallel", "2", folder=calm).returncode == 0
    undisturbed = {run.info().name: run for run in runs_in(calm)}
    kills = sweeps = 0
    while kills < SWEEP:
        runs = folder / f"sweep{sweeps}"
        tag = cafe("run", "seeds", "--detach", "--parallel", "2", folder=runs).stdout.strip()
        seeds = runs_in(runs)
        assert len(seeds) == 3
        for _ in range(min(KILLS_PER_RUN, SWEEP - kills)):
            if not await_some(seeds, random.randint(0, 15)):
                break
            queue_or_engines = workers(runs)
            if not queue_or_engines:
                break
            with suppress(psutil.NoSuchProcess):
                victim = random.choice(queue_or_engines)
                victim.kill()
                kills += 1
                wait_until(lambda victim=victim, runs=runs: victim.pid not in [each.pid for each in workers(runs)])
            answer = cafe("resume", tag, "--detach", folder=runs)
            assert answer.returncode == 0 or "finished" in answer.stderr, answer.stderr
        while unfinished(seeds):
            answer = cafe("resume", tag, "--plain", folder=runs)
            assert answer.returncode == 0 or "finished" in answer.stderr, answer.stdout + answer.stderr
        for run in seeds:
            assert differences(run, undisturbed[run.info().name]) == [], f"seed {SEED}, sweep {sweeps}"
        wait_until(lambda runs=runs: not workers(runs))
        sweeps += 1
    report("sweep", kills, 3 * sweeps)


def unfinished(runs: list[RunDir]) -> list[RunDir]:
    return [run for run in runs if run.status().state != "finished"]


def await_some(runs: list[RunDir], more: int) -> bool:
    """Wait for so many more records of several runs; whether some of them are not ended then."""
    wanted = sum(map(written, runs)) + more
    wait_until(lambda: sum(map(written, runs)) >= wanted or all(run.status().state in FINAL for run in runs))
    return bool(unfinished(runs))
