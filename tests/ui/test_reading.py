"""Followers: right pictures of recorded runs, cheap when nothing changes, unmoved by any damage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cafe_tui.reading import runs as runs_module
from cafe_tui.reading.log import LogFollower
from cafe_tui.reading.run import RunFollower
from cafe_tui.reading.runs import RunsFollower, row_of
from cafe_tui.reading.sparkline import trend
from cafe_tui.results.exporting import points
from engine.contract.plan import plan
from engine.contract.profile import files as profiles
from engine.contract.run.liveness import LOST_AFTER_SECONDS
from engine.contract.run.records import RecordReader, Scalars, StageChange, WarningNote, encode
from engine.contract.run.rundir import RunDir, State
from tests.recorded import START, record_run


def test_a_finished_run_is_shown_whole(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    follower = RunFollower(run, clock=lambda: START + 1e6)
    view = follower.poll()
    assert view is not None
    assert (view.status.state, view.progress, view.eta) == ("finished", 1.0, None)
    assert [stage.state for stage in view.stages] == ["finished"] * 4
    assert view.elapsed == run.state().heartbeat - START, "a finished run has stopped ageing"
    assert view.table.models == ("train", "inoculate")
    assert view.table.attacks == ("clean", "fgsm", "pgd")
    assert len(view.differences) == 3
    assert set(view.readings()) == {"Adv", "CF", "CC", "AC"}
    written = [r for r in RecordReader(run.records_file).read() if isinstance(r, Scalars) and r.stage == "game"]
    psi = [r.values["psi"] for r in written if "psi" in r.values]
    assert view.latest["game", "psi"] == psi[-1]
    assert view.series["game", "psi"].count == len(psi)
    assert follower.poll() is None


@pytest.mark.parametrize("stage", ["train", "game", "inoculate", "evaluate"])
def test_a_running_run_shows_where_it_is(stage: str, tmp_path: Path) -> None:
    run = record_run(tmp_path, upto=stage)
    now = run.state().heartbeat + 1
    view = RunFollower(run, clock=lambda: now).poll()
    assert view is not None
    assert view.status.state == "running"
    assert view.current is not None
    assert view.current.id == stage
    assert 0.4 < view.current.progress < 0.6
    assert view.eta is not None
    spent = now - (START + 2)
    assert view.eta == pytest.approx(spent * (1 - view.progress) / view.progress, abs=1e-3)
    assert view.current.eta is not None
    assert view.current.eta <= view.eta
    assert (view.attack_progress is not None) == (stage == "evaluate")
    waiting = [s.id for s in view.stages if s.state == "waiting"]
    assert waiting == ["train", "game", "inoculate", "evaluate"][len(view.stages) - len(waiting) :]


def test_a_stage_tells_no_time_from_its_first_step_and_never_ends_after_its_run(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="game")
    view = RunFollower(run, clock=lambda: START).poll()
    assert view is not None
    assert view.current is not None
    started, state = view.current.started, run.state()
    assert started is not None
    costs = [stage.cost for stage in plan(profiles.load("quickstart").profile)]
    before, own = costs[0] / sum(costs), costs[1] / sum(costs)

    def at(step: int, seconds: float) -> tuple[float | None, float | None]:
        state.step, state.progress, state.heartbeat = step, before + step / 190 * own, started + seconds
        run.write_state(state)
        view = RunFollower(run, clock=lambda: started + seconds).poll()
        assert view is not None
        assert view.current is not None
        return view.current.eta, view.eta

    assert at(8, 15)[0] is None
    assert at(19, 15) == (pytest.approx(135), pytest.approx(135)), "steps are slower than before"
    assert at(8, 80) == (pytest.approx(1820), pytest.approx(1820))


def test_the_time_between_a_stop_and_its_resume_does_not_count(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="game")
    stopped = run.state().heartbeat
    before = RunFollower(run, clock=lambda: stopped).poll()
    with run.records_file.open("ab") as file:
        file.write(encode(StageChange(stage="game", state="resumed", total_steps=190, t=stopped + 86400)))
    state = run.state()
    state.heartbeat = stopped + 86400
    run.write_state(state)
    after = RunFollower(run, clock=lambda: stopped + 86400).poll()
    assert before is not None
    assert after is not None
    assert before.current is not None
    assert after.current is not None
    assert after.elapsed == pytest.approx(before.elapsed, abs=1)
    assert after.eta == pytest.approx(before.eta, abs=1)
    assert after.current.eta == pytest.approx(before.current.eta, abs=1)


def test_only_changes_give_a_new_picture_and_old_pictures_stay_as_they_were(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="game")
    now = run.state().heartbeat
    follower = RunFollower(run, clock=lambda: now)
    first = follower.poll()
    assert first is not None
    assert follower.poll() is None
    before = first.series["game", "psi"].count
    other = first.series["train", "loss"]
    with run.records_file.open("ab") as file:
        file.write(encode(Scalars(stage="game", step=9999, values={"psi": 0.25})))
        file.write(b'{"kind":"scalars","stage":"ga')
    second = follower.poll()
    assert second is not None
    assert second.latest["game", "psi"] == 0.25
    assert second.series["game", "psi"].count == before + 1
    assert first.series["game", "psi"].count == before, "a picture that was handed out does not change"
    assert second.series["train", "loss"] is other, "what did not change is not copied again"
    assert follower.poll() is None


def test_a_silent_run_becomes_lost_with_its_reason(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="game")
    now = run.state().heartbeat
    follower = RunFollower(run, clock=lambda: now)
    view = follower.poll()
    assert view is not None
    assert view.status.state == "running"
    now += LOST_AFTER_SECONDS + 1
    view = follower.poll()
    assert view is not None
    assert view.status.state == "lost"
    assert "no sign of life" in view.error
    assert "gpu1" in view.error


@settings(max_examples=40, deadline=None)
@given(
    file=st.sampled_from(["profile.toml", "run.json", "state.json", "records.jsonl", "results.json"]),
    damage=st.one_of(st.sampled_from(["gone", "empty", "torn", "folder", "null", "list"]), st.binary(max_size=300)),
)
def test_no_damage_makes_a_follower_raise(
    file: str, damage: str | bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = record_run(tmp_path_factory.mktemp("runs"))
    path = run.path / file
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        texts = {"empty": b"", "torn": whole[: len(whole) // 2], "null": b"null", "list": b"[1, 2]"}
        path.write_bytes(damage if isinstance(damage, bytes) else texts[damage])
    follower = RunFollower(run)
    assert follower.poll() is not None
    follower.poll()
    row_of(run)
    assert RunsFollower(run.path.parent).poll()


def test_vanishing_directories(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run = record_run(runs)
    follower, everything, log = RunFollower(run), RunsFollower(runs), LogFollower(run)
    assert follower.poll()
    assert everything.poll()
    assert log.poll()
    shutil.rmtree(run.path)
    follower.poll()
    assert everything.poll() == ()
    assert log.poll() == []
    shutil.rmtree(runs)
    assert everything.poll() is None


def test_rows_are_read_again_only_when_files_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        record_run(tmp_path, run_id=f"20260921-14400{i}-quickstart-k3f9")
    follower = RunsFollower(tmp_path)
    rows = follower.poll()
    assert rows is not None
    assert [row.id[14:15] for row in rows] == ["4", "3", "2", "1", "0"]
    assert rows[0].headline["robust"] == pytest.approx(100 * 313 / 450)
    reads = []
    real = RunDir.state
    monkeypatch.setattr(RunDir, "state", lambda self: reads.append(self.id) or real(self))
    assert follower.poll() is None
    assert reads == [], "finished runs are not read again"
    changed = record_run(tmp_path, run_id="20260921-144002-quickstart-k3f9", tags=("mine",))
    again = follower.poll()
    assert again is not None
    assert set(reads) == {changed.id}
    assert [row.tags for row in again if row.id == changed.id] == [("mine",)]


def test_of_many_ended_runs_those_out_of_sight_are_looked_at_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "ENDED_AT_ONCE", 2)
    runs = [RunDir(tmp_path / f"20260101-00000{i}-many-000{i}") for i in range(5)]
    for run in runs:
        run.path.mkdir()
        run.write_state(State(state="finished", stage="train"))
    follower = RunsFollower(tmp_path)
    (first, *_) = follower.poll() or ()
    follower.visible = frozenset([first.id])
    for run in runs:
        run.write_state(State(state="finished", stage="evaluate", step=1))
    now = {row.id: row.stage for row in follower.poll() or ()}
    assert now[first.id] == "evaluate"
    assert "train" in now.values()
    for _ in range(2):
        now = {row.id: row.stage for row in follower.poll() or ()} or now
    assert set(now.values()) == {"evaluate"}


def test_a_row_is_the_document_of_the_contract(tmp_path: Path) -> None:
    document = row_of(record_run(tmp_path)).to_json()
    wanted = {"id", "name", "state", "stage", "step", "total_steps", "progress", "created", "tags", "headline"}
    assert wanted <= document.keys()
    assert msgspec.json.decode(msgspec.json.encode(document)) == document


def test_the_log_is_followed_line_by_line(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    run.log_file.write_bytes(b"".join(b"line %d\n" % i for i in range(100)) + b"torn")
    log = LogFollower(run, lines=10)
    assert log.poll() == [f"line {i}" for i in range(90, 100)]
    assert log.poll() == []
    with run.log_file.open("ab") as file:
        file.write(b" no more\n\xff\xfe\nnext")
    assert log.poll() == ["torn no more", "��"]
    run.log_file.write_bytes(b"anew\n")
    assert log.poll() == ["anew"]
    os.unlink(run.log_file)
    assert log.poll() == []


def test_a_long_file_is_read_in_several_polls_and_ends_the_same(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="game")
    lines = [
        encode(Scalars(stage="game", step=step, values={"psi": step / 7, **({"val_loss": 1.0} if step % 9 else {})}))
        for step in range(1_000_000, 1_030_000)
    ]
    with run.records_file.open("ab") as file:
        file.writelines(lines)
    follower, polls = RunFollower(run), 1
    follower.poll(0.0)
    while follower.behind:
        follower.poll(0.0)
        polls += 1
    assert polls > 1
    psi = follower.view.series["game", "psi"]
    assert (psi.x_range, psi.last) == ((2, 1_029_999), 1_029_999 / 7)
    assert follower.view.series["game", "val_loss"].x_range == (1_000_000, 1_029_999)
    assert follower.poll(0.0) is None


def test_having_caught_up_is_told_even_if_only_a_torn_line_was_left(tmp_path: Path) -> None:
    run = record_run(tmp_path)
    lines = [encode(Scalars(stage="game", step=10**6 + step, values={"psi": 1.0})) for step in range(3000)]
    with run.records_file.open("ab") as file:
        file.writelines([*lines, lines[-1][:-3]])
    follower = RunFollower(run)
    assert follower.poll(0.0) is not None
    assert follower.behind
    while follower.behind:
        assert follower.poll(0.0) is not None, "whoever waits for all of it would wait for ever"
    assert follower.poll(0.0) is None


def test_what_was_done_again_after_a_kill_is_shown_once(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="train")
    with run.records_file.open("ab") as file:
        for step in (9001, 9002, 9002, 9003, 9001, 9002):
            file.write(encode(Scalars(stage="train", step=step, values={"val_robust_accuracy": float(step)})))
            file.write(encode(WarningNote(stage="train", text="robust overfitting")))
    follower = RunFollower(run)
    while follower.poll() is not None:
        pass
    series = follower.view.series["train", "val_robust_accuracy"]
    assert series.means()[-2:] == [(9001, 9001.0), (9002, 9002.0)]
    assert [step for step, _ in points(run, "train", "val_robust_accuracy")][-2:] == [9001, 9002]
    assert trend(run)[-2:] == (9001.0, 9002.0)
    assert 9003.0 not in trend(run)
    assert follower.view.warnings.count("robust overfitting") == 1
