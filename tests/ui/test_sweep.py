"""The view of a sweep, its cost, and how many engines a host takes; no engine is started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from cafe_tui.console.follow_sweep import frame
from cafe_tui.console.painter import clean
from cafe_tui.console.views import Signs
from cafe_tui.launch import costs, local, queue
from cafe_tui.profiles.parent import resolved
from cafe_tui.reading.run import whole_view
from cafe_tui.reading.runs import profile_reference
from engine.contract.profile import files as profiles
from engine.contract.profile.schema import Profile
from engine.contract.profile.sweeps import Sweep
from engine.contract.run import liveness, rundir
from engine.contract.run.rundir import State
from tests.recorded import record_run
from tests.ui.test_cli import cafe


def test_a_line_for_each_run_around_those_at_work(tmp_path: Path) -> None:
    done = record_run(tmp_path)
    working = record_run(tmp_path, run_id="20260921-144001-quickstart-aaaa", upto="game")
    working.write_state(State(state="running", stage="game", progress=0.4, host="gpu1", heartbeat=4e9))
    failed = record_run(tmp_path, run_id="20260921-144002-quickstart-bbbb", state="failed", error="out of\x1b memory")
    waiting = rundir.create(tmp_path, "quickstart", "", state="queued")
    views = [whole_view(run) for run in (done, working, failed, waiting)]
    lines = [clean(line).plain for line in frame("tag", views, 70, 20, Signs("ascii"), "stopping")]
    assert lines[0] == "tag  1 of 4 runs finished"
    assert "+ finished" in lines[1]
    assert "> running  ######----------  40%  game" in lines[2]
    assert "x failed   out of� memory" in lines[3]
    assert ". queued" in lines[4]
    assert lines[5] == "stopping"
    assert all(len(line) <= 70 for line in lines)
    small = [line.plain for line in frame("tag", [views[0]] * 30 + views[1:2] + [views[3]] * 30, 70, 8, Signs("ascii"))]
    assert len(small) == 8
    assert any("running" in line for line in small), "what is at work stays in view"


def test_the_time_of_runs_side_by_side_is_that_of_the_fullest_place(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = profiles.load("quickstart")

    def lines_for(states: list[str], parallel: int) -> list[str]:
        sweep = Sweep("s", "tag", [str(i) for i in range(len(states))], [loaded] * len(states))
        return list(costs.announcement(costs.Offer(sweep, states, parallel)))

    monkeypatch.setattr(costs, "_speeds", lambda wanted, _: [costs.passes(loaded.profile) / 60] * len(wanted))
    lines = lines_for(["finished", "", "failed", "queued"], 2)
    assert lines[0].startswith("tag: 3 runs to do, 2 side by side, 1 of 4 are finished; at most 2.9")
    assert lines[1] == "at most about 2m 00s by a measurement on this host just now"
    monkeypatch.setattr(costs, "_speeds", lambda wanted, _: None)
    assert lines_for([""], 1)[0].startswith("tag: 1 run to do; at most")
    assert "could not be measured" in lines_for([""], 1)[1]


def test_a_cost_that_nobody_waits_for_is_not_measured_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = profiles.load_sweep("reproduction", ["data.name=digits", "sweep.case=[{}]"])
    assert sweep is not None
    measuring: list[subprocess.Popen[bytes]] = []
    talking = costs.talking
    monkeypatch.setattr(costs, "talking", lambda command: measuring.append(talking(command)) or measuring[-1])
    told = list(costs.announcement(costs.Offer(sweep, [""] * 3, 1), lambda: True))
    assert "could not be measured" in told[1]
    assert [process.returncode for process in measuring] == [-signal.SIGKILL]


def test_as_many_engines_as_there_are_cores_for_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue.os, "sched_getaffinity", lambda pid: range(8), raising=False)
    monkeypatch.setattr(local, "ACCELERATOR_NODES", ())

    def profile(*sets: str) -> Profile:
        return profiles.load("quickstart", sets).profile

    assert queue.side_by_side([profile("compute.threads=3")] * 9) == 2
    assert queue.side_by_side([profile("compute.threads=1")] * 3) == 3
    assert queue.side_by_side([profile("compute.threads=16")] * 3) == 1
    whatever = profiles.from_tables({"name": "x", "stage": [{"kind": "train"}]})
    assert queue.side_by_side([profile(), whatever]) == 1
    monkeypatch.setattr(local, "ACCELERATOR_NODES", ("/dev/null",))
    assert queue.side_by_side([profile()] * 3) == 1
    assert queue.side_by_side([profile("compute.device=cpu")] * 3) == 3


def test_a_new_queue_is_started_for_what_nobody_has_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(queue, "_spawn", lambda runs, parallel: started.append([run.id for run in runs]))
    finished, gone = record_run(tmp_path), record_run(tmp_path, run_id="20260921-144001-quickstart-aaaa", upto="game")
    theirs = rundir.create(tmp_path, "theirs", "", state="queued")
    me = liveness.process_started(os.getpid())
    queued = State(state="queued", pid=os.getpid(), pid_started=me, host=socket.gethostname())
    theirs.write_state(queued)
    queue.resume([finished, theirs], 1)
    assert not started, "another has it"
    gone.request_stop()
    queue.resume([finished, gone, theirs], 1)
    assert started == [[gone.id, theirs.id]], "one queue for all, so that they are done one after another"
    state = gone.state()
    assert (state.state, state.stage, state.pid) == ("queued", "game", None)
    assert not gone.stop_file.exists(), "an old request must not stop the new engine"
    assert theirs.state() == queued


def test_a_run_of_a_sweep_is_held_against_its_own_point(tmp_path: Path) -> None:
    sweep = profiles.load_sweep("reproduction")
    assert sweep is not None
    point = sweep.points[-1].profile
    run = rundir.create(tmp_path, point.name, profiles.dumps(point), command=["cafe", "run", "reproduction"])
    assert resolved(run.profile_file, profile_reference(run.info())).remark == "as in reproduction"


def test_a_run_of_a_sweep_that_went_on_elsewhere_is_still_of_it(tmp_path: Path) -> None:
    sweep = profiles.load_sweep("quickstart", ["sweep.seed=[0,1]", "sweep.compute.threads=[1,2]"])
    assert sweep is not None
    made = [
        rundir.create(tmp_path, point.profile.name, profiles.dumps(point.profile), tags=[sweep.tag])
        for point in sweep.points
    ]
    elsewhere = profiles.load(str(made[0].profile_file), ["compute.device=cpu", 'compute.devices="cpu:2"']).profile
    made[0].profile_file.write_text(profiles.dumps(elsewhere))
    assert [run.id if run else None for run in queue.runs_of(tmp_path, sweep)] == [run.id for run in made]
    answer = cafe("resume", sweep.tag, "--devices", "cpu:2", "--runs", str(tmp_path), cwd=tmp_path)
    assert answer.returncode == 2
    assert f"--devices is for one run, and 4 are tagged {sweep.tag}" in answer.stderr


def test_of_two_runs_of_a_point_the_later_one_counts_whatever_the_clocks_on_the_wall_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = profiles.load_sweep("quickstart", ["sweep.seed=[0]"])
    assert sweep is not None
    point, made = sweep.points[0].profile, []
    for zone, moment in (("Asia/Tokyo", 1.8e9), ("America/New_York", 1.8e9 + 60)):
        with monkeypatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            patch.setattr("time.time", lambda moment=moment: moment)
            made.append(rundir.create(tmp_path, point.name, profiles.dumps(point), tags=[sweep.tag]).id)
    time.tzset()
    assert made[0] > made[1]
    assert [run.id if run else None for run in queue.runs_of(tmp_path, sweep)] == made[1:]
