"""A run from top to bottom: stages in order, from wherever an earlier engine stopped, until the end or a stop."""

from __future__ import annotations

import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from types import FrameType

import torch

from engine import checkpoints, data
from engine.contract import profile as profiles
from engine.contract.errors import CafeError, RunFailed, Stopped, UsageError
from engine.contract.plan import StagePlan, plan
from engine.contract.records import ErrorNote, Message, StageChange
from engine.contract.rundir import RunDir
from engine.contract.schema import Evaluate, Game, Stage
from engine.defences.train import Training
from engine.device import prepare
from engine.evaluation.table import Evaluation, outcomes_file
from engine.game.game import GameRun
from engine.record import Recorder
from engine.stage import Context, EpochStage, StageRun, Step

STOP_POLL_SECONDS = 0.25


class Brake:
    """Whether somebody wants the run to stop: by signal, or by the file control/stop (also from another host)."""

    def __init__(self, run: RunDir) -> None:
        self._file = run.stop_file
        self._signalled = False
        self._looked = 0.0

    @contextmanager
    def listening(self) -> Iterator[Brake]:
        """Turn SIGTERM and SIGINT into a wish to stop within this context; the file of an earlier stop is removed."""
        self._file.unlink(missing_ok=True)
        old = {number: signal.signal(number, self._signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True

    def wanted(self) -> bool:
        """Looked up on disk a few times a second at most."""
        now = time.monotonic()
        if not self._signalled and now - self._looked > STOP_POLL_SECONDS:
            self._looked = now
            self._signalled = self._file.exists()
        return self._signalled


def run(directory: RunDir) -> int:
    """Run, or go on with, the profile of a run directory; returns the exit code of the contract.

    Whatever happens is told in state.json, records.jsonl and (with tracebacks) on stderr, which is engine.log.
    """
    status = directory.status()
    if status.state in ("running", "stopping") and not status.final:
        raise UsageError(f"{directory.id} is already running", "`cafe watch` follows it.")
    brake = Brake(directory)
    with Recorder(directory) as recorder, brake.listening():
        try:
            _run(directory, recorder, brake)
        except Stopped as stop:
            recorder.write(Message(text=stop.message))
            recorder.state("stopped")
            return Stopped.exit_code
        except Exception as error:
            return _fail(recorder, error)
        recorder.state("finished")
        return 0


def _fail(recorder: Recorder, error: Exception) -> int:
    """Tell why, as far as the disk still lets us, and return the exit code."""
    traceback.print_exc(file=sys.stderr)
    known = _known(error)
    for tell in (
        lambda: recorder.write(ErrorNote(text=known.message, hint=known.hint)),
        lambda: recorder.state("failed", error=known.message, hint=known.hint),
    ):
        try:
            tell()
        except CafeError as also:
            print(also, file=sys.stderr)
    return known.exit_code


def _known(error: Exception) -> CafeError:
    if isinstance(error, CafeError):
        return error
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return RunFailed("out of memory", "Use smaller batches, such as --set stage.train.batch_size=64.")
    return RunFailed(
        f"internal error: {type(error).__name__}: {error}", "This is a defect; its traceback is in engine.log."
    )


def _run(directory: RunDir, recorder: Recorder, brake: Brake) -> None:
    profile = profiles.load(str(directory.profile_file)).profile
    compute = prepare(profile.compute)
    recorder.add_facts(versions=versions(), devices=[compute.describe()])
    splits = data.load(profile.data.name, validation=profile.data.validation, seed=profile.seed, compute=compute)
    context = Context(profile, directory, compute, splits)
    recorder.state("running")
    stages = plan(profile)
    for i, (stage, planned) in enumerate(zip(profile.stage, stages, strict=True)):
        if not finished(context, stage):
            _run_stage(context, stage, planned, recorder, brake, _share(stages, i))


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
    resumed = isinstance(work, EpochStage) and work.resume()
    change = StageChange(
        stage=work.id,
        stage_kind=planned.kind,
        state="resumed" if resumed else "started",
        total_steps=work.total_steps,
        total_epochs=planned.epochs,
    )
    recorder.write(change)
    for event in work.run():
        if not isinstance(event, Step):
            recorder.write(event)
            continue
        recorder.progress(work.id, event.done, work.total_steps, share(event.done / work.total_steps))
        if brake.wanted():
            recorder.state("stopping")
            work.save()
            raise Stopped(f"stopped in stage {work.id} after step {event.done} of {work.total_steps}")
    recorder.progress(work.id, work.total_steps, work.total_steps, share(1.0))
    change.state = "finished"
    recorder.write(change)


def make(context: Context, stage: Stage) -> StageRun:
    """The work of a stage of a profile."""
    if isinstance(stage, Evaluate):
        return Evaluation(context, stage)
    return GameRun(context, stage) if isinstance(stage, Game) else Training(context, stage)


def finished(context: Context, stage: Stage) -> bool:
    """Whether an earlier engine has brought this stage to its end."""
    if isinstance(stage, Evaluate):
        wanted = [
            outcomes_file(context.run, str(stage.id), model, attack)
            for model in stage.models or []
            for attack in stage.attacks
        ]
        return context.run.results_file.exists() and all(path.exists() for path in wanted)
    path = context.weights_file(str(stage.id))
    return path.exists() and bool(checkpoints.read_facts(path).get("finished"))


def versions() -> dict[str, str]:
    """What the numbers of a run may depend on."""
    try:
        cafe = metadata.version("cafe-tui")
    except metadata.PackageNotFoundError:
        cafe = "not installed"
    return {
        "cafe": cafe,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": metadata.version("numpy"),
        "platform": platform.platform(),
    }
