"""A believable quickstart run, written as the engine writes it, without torch and with times of one's choice."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.contract.plan import plan
from engine.contract.profile import files as profiles
from engine.contract.run.records import (
    Cell,
    CheckpointWritten,
    Message,
    Progress,
    Record,
    Scalars,
    StageChange,
    WarningNote,
    encode,
)
from engine.contract.run.results import Results, headline, make_cell, paired
from engine.contract.run.rundir import Info, RunDir, State, StateName, write_atomically

START = 1_790_000_000.0
"""When a recorded run was created unless told otherwise, in unix seconds."""
STAGES = ("train", "game", "inoculate", "evaluate")
CORRECT = {
    ("train", "clean"): 433,
    ("train", "fgsm"): 335,
    ("train", "pgd"): 299,
    ("inoculate", "clean"): 437,
    ("inoculate", "fgsm"): 341,
    ("inoculate", "pgd"): 313,
}
SECONDS_PER_STEP = 0.2


def record_run(
    runs: Path,
    *,
    run_id: str = "20260921-144000-quickstart-k3f9",
    upto: str = "finished",
    state: StateName | None = None,
    start: float = START,
    tags: tuple[str, ...] = (),
    error: str = "",
    pid: int | None = None,
) -> RunDir:
    """Write a run directory that has come as far as the middle of stage `upto`, or all the way to "finished".

    `state` defaults to finished or running; a running one has the heartbeat of its last record and, unless `pid` is
    given, seems to live on another host.
    """
    run = RunDir(runs / run_id)
    for folder in (run.checkpoints, run.outcomes, run.samples, run.control):
        folder.mkdir(parents=True, exist_ok=True)
    loaded = profiles.load("quickstart")
    run.profile_file.write_text(profiles.dumps(loaded.profile), encoding="utf-8")
    info = Info(
        id=run_id,
        name="quickstart",
        created=start,
        tags=list(tags),
        description=loaded.profile.description,
        command=["cafe", "run", "quickstart"],
        host="gpu1",
        devices=["cpu, 1 thread"],
        versions={"cafe": "0.1.0", "torch": "2.13.0"},
    )
    write_atomically(run.info_file, msgspec.json.encode(info))
    clock = start + 2
    with run.records_file.open("wb") as file:
        for record in story(upto):
            record.t = clock
            clock += SECONDS_PER_STEP if isinstance(record, Scalars) else 0.05
            file.write(encode(record))
    run.log_file.write_text("the engine has nothing to complain about\n", encoding="utf-8")
    write_state(run, upto, state or ("finished" if upto == "finished" else "running"), clock, error, pid)
    if upto == "finished":
        write_atomically(run.results_file, msgspec.json.encode(results()))
    return run


def write_state(
    run: RunDir, upto: str, state: StateName, heartbeat: float, error: str = "", pid: int | None = None
) -> None:
    """Replace state.json as the engine would."""
    stages = {stage.id: stage for stage in plan(profiles.load("quickstart").profile)}
    done = STAGES.index(upto) if upto in STAGES else len(STAGES)
    stage = stages[upto if upto in STAGES else STAGES[-1]]
    costs = [stages[name].cost for name in STAGES]
    current = 0.5 * costs[done] if done < len(STAGES) else 0.0
    run.write_state(
        State(
            state=state,
            stage=stage.id,
            step=stage.steps // 2 if done < len(STAGES) else stage.steps,
            total_steps=stage.steps,
            progress=(sum(costs[:done]) + current) / sum(costs),
            pid=pid if pid is not None else 4242,
            host=socket.gethostname() if pid is not None else "gpu1",
            heartbeat=heartbeat,
            error=error,
        )
    )


def cells() -> list[Cell]:
    """The six cells of the finished table."""
    return [make_cell(model, attack, right, 450, seconds=1.5) for (model, attack), right in CORRECT.items()]


def results() -> Results:
    """results.json of the finished run."""
    differences = [
        paired("clean", "train", "inoculate", only_a=3, only_b=7, n=450),
        paired("fgsm", "train", "inoculate", only_a=9, only_b=15, n=450),
        paired("pgd", "train", "inoculate", only_a=6, only_b=20, n=450),
    ]
    readings = {"accuracy_adv": 66.4, "accuracy_cf": 40.2, "accuracy_cc": 98.9, "accuracy_ac": 98.4}
    return Results(cells=cells(), differences=differences, headline=headline(cells(), readings))


def story(upto: str) -> Iterator[Record]:
    """The records of a run in order, up to the middle of stage `upto`."""
    for planned in plan(profiles.load("quickstart").profile):
        half = planned.id == upto
        steps = planned.steps // 2 if half else planned.steps
        change = {"stage": planned.id, "stage_kind": planned.kind, "total_steps": planned.steps}
        yield StageChange(**change, total_epochs=planned.epochs)  # type: ignore[arg-type]
        if planned.kind == "evaluate":
            yield from evaluation(half)
        else:
            yield from curves(planned.id, planned.kind, steps, planned.steps // planned.epochs)
        if half:
            return
        yield StageChange(**change, state="finished", total_epochs=planned.epochs)  # type: ignore[arg-type]


def curves(stage: str, kind: str, steps: int, steps_per_epoch: int) -> Iterator[Record]:
    """Scalars of a training stage or of the game, every second step, with held-out values after each epoch."""
    for step in range(2, steps + 1, 2):
        share, epoch = step / 300, step / steps_per_epoch
        values = game_values(share, step) if kind == "game" else train_values(share, step, kind)
        yield Scalars(stage=stage, step=step, epoch=epoch, values=values)
        if step % steps_per_epoch == 0 and kind == "game":
            held_out = {f"val_{name}": value for name, value in values.items() if name.startswith("accuracy_")}
            yield Scalars(stage=stage, step=step, epoch=epoch, values=held_out)
        elif step % steps_per_epoch == 0:
            held_out = {
                "val_accuracy": 97 - 30 * math.exp(-3 * share),
                "val_robust_accuracy": 66 - 30 * math.exp(-share),
            }
            yield Scalars(stage=stage, step=step, epoch=epoch, values={**held_out, "val_loss": 0.3})
            yield CheckpointWritten(stage=stage, path=f"checkpoints/{stage}.best.safetensors", step=step, label="best")
    if stage == "inoculate":
        yield WarningNote(stage=stage, text="held-out robust accuracy has not risen for 2 epochs")


def train_values(share: float, step: int, kind: str) -> dict[str, float | str | None]:
    """A loss that falls, with noise that is always the same."""
    noise = 0.05 * math.sin(1.7 * step) + 0.03 * math.sin(0.31 * step)
    loss = 0.6 + 1.6 * math.exp(-4 * share) + noise
    values: dict[str, float | str | None] = {
        "loss": loss,
        "accuracy": 80 - 60 * math.exp(-4 * share) + 20 * noise,
        "lr": 0.1 * (1 - share),
        "images_per_second": 1500.0,
    }
    if kind == "inoculate":
        values |= {"defence_loss": loss - 0.1, "inoculation_loss": 0.1, "kl_inversion": 0.05}
    return values


def game_values(share: float, step: int) -> dict[str, float | str | None]:
    """Two players that swing against each other while the causal part is found."""
    swing = 0.25 * math.exp(-share) * math.sin(0.35 * step)
    psi = 0.5 + 1.5 * math.exp(-5 * share) + swing
    regulariser = 0.8 + 1.2 * math.exp(-3 * share)
    found = 1 - math.exp(-5 * share)
    return {
        "psi": psi,
        "hypothesis_loss": psi + 0.05,
        "test_function_loss": regulariser - psi,
        "regulariser": regulariser,
        "ce_ac": 0.1,
        "ce_cf": 2.5,
        "ce_cc": 0.12,
        "ce_adv": 1.1,
        "accuracy_adv": 66.4,
        "accuracy_cf": 66 - 26 * found + 10 * swing,
        "accuracy_cc": 50 + 48 * found,
        "accuracy_ac": 60 + 38 * found,
        "variation_norm": 15.0,
    }


def evaluation(half: bool) -> Iterator[Record]:
    """Cells in order; half of them, and the next attack in progress, when the run has not finished."""
    table = cells()
    for cell in table[: len(table) // 2] if half else table:
        yield Progress(model=cell.model, attack=cell.attack, done=256, total=450, robust_so_far=200)
        yield cell
    if half:
        yield Progress(model="inoculate", attack="clean", done=256, total=450, robust_so_far=248)
    else:
        yield Message(stage="evaluate", text="8 samples written")
