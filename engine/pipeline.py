"""A run from top to bottom: stages in order, from wherever an earlier engine stopped, until the end or a stop."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib import metadata
from itertools import product
from pathlib import Path

import torch

from engine import data, distributed
from engine.brake import Brake
from engine.checkpoints import own as checkpoints
from engine.contract import weights
from engine.contract.errors import CheckpointError, Stopped
from engine.contract.plan import StagePlan, columns, plan
from engine.contract.profile import files as profiles
from engine.contract.profile.catalogue import CHECKPOINT, DATA_FACTS
from engine.contract.profile.schema import Evaluate, Game, Profile, Stage
from engine.contract.run.fingerprint import Settings, changed
from engine.contract.run.records import Message, RecordReader, StageChange, WarningNote
from engine.contract.run.results import Results
from engine.contract.run.rundir import RunDir
from engine.defences.train import Training
from engine.device import FORMATS, Compute, emulates, prepare
from engine.evaluation.outcomes import load, outcomes_file, partial_file
from engine.evaluation.table import Evaluation
from engine.game.game import GameRun
from engine.record import Recorder
from engine.stage import Context, EpochStage, StageRun, Step, another_profile, resume_file


def execute(directory: RunDir, recorder: Recorder, brake: Brake) -> None:
    """Do, or go on with, the stages of the profile of a run directory. Raises Stopped and every kind of failure."""
    profile = profiles.load(str(directory.profile_file)).profile
    compute = prepare(profile.compute)
    with distributed.joined(compute.device):
        _execute(profile, directory, compute, recorder, brake)


def _execute(profile: Profile, directory: RunDir, compute: Compute, recorder: Recorder, brake: Brake) -> None:
    recorder.add_facts(versions=versions(), devices=distributed.of_all(compute.describe()))
    splits = data.load(profile.data, seed=profile.seed, compute=compute)
    if splits.streamed:
        recorder.write(Message(text=f"the images stay on the host and are streamed to {compute.device}"))
    context = Context(profile, directory, compute, splits)
    if splits.shared and profile.data.name in DATA_FACTS:
        recorder.write(Message(text=f"{splits.shared:,} of the published test images are in train too"))
    for note in context.doubts(CHECKPOINT if profile.model.checkpoint else ""):
        recorder.write(WarningNote(text=note))
    distributed.of_first(partial(refuse_others, context))
    done = distributed.of_first(partial(_look_back, directory))
    recorder.state("running")
    stages = plan(profile)
    for key in () if done else _emulated(profile, stages, compute.device):
        text = f"{key}: {compute.device} has no instructions for bf16, which takes longer there than fp32"
        recorder.write(WarningNote(text=text))
    for i, (stage, planned) in enumerate(zip(profile.stage, stages, strict=True)):
        if brake.wanted():
            raise Stopped(f"stopped before stage {planned.id}")
        missing = distributed.of_first(partial(lost, context, stage)) if planned.id in done else ""
        if missing:
            recorder.write(WarningNote(stage=planned.id, text=f"{planned.id}: {missing}; the stage is run again"))
        if missing or planned.id not in done:
            _run_stage(context, stage, planned, recorder, brake, _share(stages, i))
        elif distributed.first():
            _clear(directory, planned.id)


def _emulated(profile: Profile, stages: Sequence[StagePlan], device: torch.device) -> Iterator[str]:
    """The keys of the profile that ask for a number format for which the device has no instructions."""
    asked = {"compute.precision": profile.compute.precision}
    for stage, planned in zip(profile.stage, stages, strict=True):
        if isinstance(stage, Evaluate) and stage.precision != "auto":
            asked[f"stage.{planned.id}.precision"] = stage.precision
    return (key for key, name in asked.items() if emulates(device, FORMATS[name]))


def _share(stages: Sequence[StagePlan], i: int) -> Callable[[float], float]:
    """Progress of the whole run (0-1) from the progress of its i-th stage, by cost."""
    costs = [stage.cost for stage in stages]
    before, total = sum(costs[:i]), sum(costs)
    return lambda part: (before + part * costs[i]) / total


def _run_stage(
    context: Context,
    stage: Stage,
    planned: StagePlan,
    recorder: Recorder,
    brake: Brake,
    share: Callable[[float], float],
) -> None:
    recorder.progress(planned.id, 0, planned.steps, share(0.0))
    recorder.flush_state()
    work = make(context, stage)
    warnings = work.resume() if isinstance(work, EpochStage) else []
    change = StageChange(
        stage=work.id,
        stage_kind=planned.kind,
        state="resumed" if work.done else "started",
        total_steps=work.total_steps,
        total_epochs=planned.epochs,
    )
    for record in (change, *warnings):
        recorder.write(record)
    for event in work.run():
        if isinstance(event, Results):
            recorder.results(event)
            continue
        if not isinstance(event, Step):
            recorder.write(event)
            continue
        part = event.done / work.total_steps if event.share is None else event.share
        recorder.progress(work.id, event.done, work.total_steps, share(part))
        if brake.wanted():
            recorder.state("stopping")
            work.save()
            distributed.anywhere(True)  # a rank that has ended must not be missed by one that still writes
            raise Stopped(f"stopped in stage {work.id} after step {event.done} of {work.total_steps}")
    distributed.anywhere(True)  # what rank 0 has written is there for all
    recorder.progress(work.id, work.total_steps, work.total_steps, share(1.0))
    change.state = "finished"
    recorder.write(change)
    if distributed.first():
        work.clear()


def _clear(directory: RunDir, stage_id: str) -> None:
    """Remove what an engine left of a finished stage that was killed before it could. Raises DiskError."""
    checkpoints.remove_resume(resume_file(directory, stage_id))
    partial_file(directory, stage_id).unlink(missing_ok=True)


def make(context: Context, stage: Stage) -> StageRun:
    """The work of a stage of a profile."""
    if isinstance(stage, Evaluate):
        return Evaluation(context, stage)
    return GameRun(context, stage) if isinstance(stage, Game) else Training(context, stage)


def _look_back(directory: RunDir) -> set[str]:
    """Clear away what a killed engine left half written; returns the stages whose end is in the records.

    That is the last thing that an engine tells of a stage.
    """
    half_written = [path for name in ("state", "results") for path in directory.path.glob(f".{name}.json.*")]
    for folder in (directory.checkpoints, directory.outcomes, directory.samples):
        half_written += folder.glob(".*.*")
    for path in half_written:
        if not path.name.endswith(f".{os.getpid()}"):  # our heart is writing its own
            with suppress(OSError):
                path.unlink()
    finished, reader = set(), RecordReader(directory.records_file)
    while records := reader.read():
        finished |= {r.stage for r in records if isinstance(r, StageChange) and r.state == "finished"}
    return finished


def refuse_others(context: Context) -> None:
    """Raise CheckpointError, before more is made, if files of the run were made under another profile."""
    differences = {path: words for path, then, now in _made_under(context) if (words := changed(then, now))}
    if differences:
        raise another_profile(list(differences), next(iter(differences.values())))


def _made_under(context: Context) -> Iterator[tuple[Path, Settings, Settings]]:
    """The files that stages have left, what each was made under, and what that is now."""
    profile, run = context.profile, context.run
    for stage in profile.stage:
        name = str(stage.id)
        if isinstance(stage, Evaluate):
            for model, column in product(stage.models or (), columns(profile, stage)):
                now = context.cell_settings(name, model, column)
                finished, at_work = outcomes_file(run, name, model, column.name), partial_file(run, name)
                for path in (finished, at_work):
                    if outcomes := load(path, model, column.name):
                        yield path, outcomes.settings, now
            continue
        made = [path for label in ("last", "best") if (path := context.weights_file(name, label)).is_file()]
        for path in made:
            then = (weights.read_facts(path) or {}).get("settings", {})
            for file in (path, *run.checkpoints.glob(f"{name}.resume*")):
                yield file, then, context.settings(name)


def lost(context: Context, stage: Stage) -> str:
    """What later stages need of a finished one and is damaged or gone, in words; empty if nothing is.

    Raises DiskError where something cannot be read now.
    """
    if isinstance(stage, Evaluate):
        return _lost_cells(context, stage)
    last = context.weights_file(str(stage.id))
    try:
        if not checkpoints.read_facts(last).get("finished"):
            return f"{last.name} is not of its end"
        selected = "last" if isinstance(stage, Game) else stage.select
        checkpoints.check_weights(context.weights_file(str(stage.id), selected))
    except CheckpointError as error:
        return error.message
    return ""


def _lost_cells(context: Context, stage: Evaluate) -> str:
    """Which outcomes of a finished evaluation are damaged or gone, or that its results are."""
    cells = [(model, column.name) for model in stage.models or () for column in columns(context.profile, stage)]
    for model, column in cells:
        if load(path := outcomes_file(context.run, str(stage.id), model, column), model, column) is None:
            return f"{path.name} is damaged or gone"
    results = context.run.results()
    there = {(cell.model, cell.attack) for cell in results.cells} if results else set()
    return "" if there.issuperset(cells) else "results.json is damaged or gone"


def versions() -> dict[str, str]:
    """What the numbers of a run may depend on."""
    try:
        cafe = metadata.version("cafe-tui")
    except metadata.PackageNotFoundError:
        cafe = "not installed"
    packages = {
        "cafe": cafe,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": metadata.version("numpy"),
        "platform": platform.platform(),
    }
    commit = _commit()
    return packages | {"git": commit} if commit else packages


def _commit() -> str:
    """The commit this code is a checkout of, with -dirty if it was changed since; empty for an installed package."""
    folder = Path(__file__).resolve().parents[1]
    if not (folder / ".git").exists():
        return ""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
