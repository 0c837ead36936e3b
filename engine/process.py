"""The life of an engine process: from its first sign of life to its last word. Light, so that both come early.

torch is imported inside, after the heartbeat has begun and signals are listened to.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType

import msgspec
from msgspec.structs import replace

from engine import distributed
from engine.brake import STOP_POLL_SECONDS, Brake, answering
from engine.contract.errors import CafeError, DiskError, RunFailed, Stopped, UsageError
from engine.contract.profile import files as profiles
from engine.contract.run import liveness, space
from engine.contract.run.records import ErrorNote, Message, to_json
from engine.contract.run.rundir import FINAL, RunDir, write_atomically
from engine.oom import out_of_memory
from engine.record import Recorder, Silent, first_state

WAIT_SECONDS = 30.0
"""How long an engine waits for one before it that is ending: freeing the memory of GPUs takes a while."""
END_POLL_SECONDS = 1.0
END_GRACE_SECONDS = 5.0
"""How long after the last words of a run each of its processes may take to end by itself."""


def run(directory: RunDir) -> int:
    """Run, or go on with, the profile of a run directory; returns the exit code of the contract.

    Whatever happens is told in state.json, records.jsonl and (with tracebacks) on stderr, which is engine.log. Raises
    UsageError if another engine is at work, and DiskError if not even the first sign of life can be written.
    """
    if not distributed.elastic():
        return _run_here(directory)
    distributed.die_with_agent()
    if distributed.restarted() and _ended(directory):
        return 0  # the last attempt was not cut short, it has told its end: nothing to do again
    if distributed.on_one_host():
        threading.Thread(target=_end_in_time, args=(directory,), daemon=True).start()
    brake = Brake(directory)
    with brake.listening():  # from the first moment, and while it waits for an engine before it
        if not distributed.first():
            return _work(directory, brake)
        # The agent of `launch` holds the lock of the run for all its ranks. Rank 0, which may outlive it by a moment,
        # has one of its own.
        with _alone(directory, directory.rank_lock_file if distributed.on_one_host() else directory.lock_file):
            if directory.state().pid != distributed.engine_pid():
                _begin(directory)
            return _work(directory, brake)


def _run_here(directory: RunDir) -> int:
    """Be the engine of a run that torchrun did not start, or the agent of its ranks."""
    brake = Brake(directory)
    with brake.listening(), _alone(directory, directory.lock_file):
        _wait_for_rank(directory)
        _begin(directory)
        processes = _processes(directory)
        if processes == 1:
            return _work(directory, brake)
        with _reported(directory), Recorder(directory):  # a sign of life and a pid, before torch is there and any rank
            pass
        with answering(partial(_pass_on, directory)):
            if brake.pulled:
                _pass_on(directory)
            return _supervise(directory, processes)


def _wait_for_rank(directory: RunDir) -> None:
    """Wait for the rank of an engine before this one that was killed. Raises UsageError where it does not end."""
    if not liveness.released(directory.rank_lock_file, WAIT_SECONDS):
        raise _still_held(directory, directory.rank_lock_file)


def _still_held(directory: RunDir, lock: Path) -> UsageError:
    return UsageError(f"{directory.id}: another engine still holds {lock}", "Find and end its process.")


def _pass_on(directory: RunDir, number: int = 0, frame: FrameType | None = None) -> None:
    """Hand a wish to stop to the ranks: by the file, which leaves them all the time they need, or else by a signal."""
    try:
        directory.request_stop()
    except DiskError:
        import psutil

        for rank in psutil.Process().children():
            rank.terminate()


@contextmanager
def _alone(directory: RunDir, file: Path) -> Iterator[None]:
    """Within this context no other engine holds `file` of the run. Raises UsageError where one is at work.

    The kernel, or the NFS server, lets go of the lock when the process that holds it ends, however it ends. On a file
    system without locks the state of the run alone keeps a second engine away.
    """
    from filelock import FileLock, Timeout  # 80 ms, which those who only read the run need not pay

    deadline = time.monotonic() + WAIT_SECONDS
    with suppress(OSError):
        directory.control.mkdir(exist_ok=True)
    lock = FileLock(file, timeout=0, fallback_to_soft=False)
    while True:
        try:
            lock.acquire()
        except Timeout:  # by a reader's look, by one that is beginning, or by one that is about to be gone
            _refuse_second(directory)
            if time.monotonic() > deadline:
                raise _still_held(directory, file) from None
            time.sleep(STOP_POLL_SECONDS)
            continue
        except PermissionError:  # it may be held: it is another account's, and its folder is not shared
            raise UsageError(
                f"{file} cannot be opened for writing, so whether another engine is at work cannot be told",
                "Its owner can resume the run, or share it with your group: chmod -R g+w on its folder.",
            ) from None
        except OSError:
            pass
        break
    try:
        yield
    finally:
        lock.release()


def _refuse_second(directory: RunDir) -> None:
    """Refuse where the process of another engine lives. Its lock is our own affair: it may be about to be gone."""
    state = directory.state()
    others = state.pid not in (None, distributed.engine_pid()) and state.state != "queued"  # that is a queue's pid
    if others and not directory.status(state, held=False).final:
        raise UsageError(f"{directory.id} is already running", "`cafe watch` follows it.")


def _ended(directory: RunDir) -> bool:
    """Whether a rank has told how the run ended."""
    return directory.state().state in FINAL or _last_words(directory).exists()


def _end_in_time(directory: RunDir) -> None:
    """Follow the ranks that have told the end of the run: one that waits for them, or for a GPU, hears no signal.

    On one host alone: over NFS the end of an earlier engine may still be seen.
    """
    while not _ended(directory):
        time.sleep(END_POLL_SECONDS)
    time.sleep(END_GRACE_SECONDS)
    os._exit(0)


def _begin(directory: RunDir) -> None:
    """Refuse where another engine is at work, and clear away what was meant for an earlier one."""
    _refuse_second(directory)
    if directory.status(held=False).final:  # a request that an earlier engine has obeyed, or did not live to obey
        directory.stop_file.unlink(missing_ok=True)
    _last_words(directory).unlink(missing_ok=True)
    with suppress(OSError):  # of a run of an older version, or one whose last engine had to use it
        space.reserve(directory.reserve_file)


def _processes(directory: RunDir) -> int:
    """How many ranks the profile asks for; one that cannot be read is left to the run to tell."""
    with suppress(CafeError):
        return len(profiles.load(str(directory.profile_file)).profile.compute.places)
    return 1


def _supervise(directory: RunDir, processes: int) -> int:
    """Let torchrun run the ranks, and say how it ended where none of them could."""
    begun = liveness.process(os.getpid())
    lost = distributed.launch(directory.path, processes)
    state = directory.state()
    if state.state not in FINAL:
        with _reported(directory), Recorder(directory) as recorder:
            again = f"{distributed.RESTARTS + 1} times in a row"
            words = _read_last_words(directory) or Words(
                message=f"the processes of the run lost each other, {again}; the last time: {lost}"
                if lost
                else f"a process of the run was killed, {again}{_for_memory(begun)}",
                hint="See engine.log; `cafe resume` goes on from the last checkpoint.",
            )
            _tell(recorder, words)
        return words.exit_code
    return {"finished": 0, "stopped": Stopped.exit_code}.get(state.state, RunFailed.exit_code)


def _for_memory(begun: liveness.Process) -> str:
    """That the kernel killed for memory since then, where it did."""
    kills = liveness.kills_since(begun)
    return f": {kills}" if kills else ""


@contextmanager
def _reported(directory: RunDir) -> Iterator[None]:
    """Write into the state, in the room kept for it, why not even a first word could be written. Raises DiskError."""
    try:
        yield
    except DiskError as error:
        if distributed.first() and space.release(directory.reserve_file):
            with suppress(DiskError):
                directory.write_state(
                    replace(first_state(directory), state="failed", error=error.message, hint=error.hint)
                )
        raise


def _work(directory: RunDir, brake: Brake) -> int:
    """Do the share of this rank."""
    kind = Recorder if distributed.first() else Silent
    with _reported(directory), kind(directory) as recorder:
        try:
            from engine.pipeline import execute

            execute(directory, recorder, brake)
        except Stopped as stop:
            with suppress(DiskError):
                recorder.write(Message(text=stop.message))
            recorder.end("stopped")
            return 0 if distributed.elastic() else Stopped.exit_code  # torchrun would start again what ends otherwise
        except distributed.RankLost as error:
            distributed.tell_loss(str(error))
            words = _read_last_words(directory) if distributed.first() else None
            if words:
                _tell(recorder, words)
            return RunFailed.exit_code
        except Exception as error:
            return _fail(recorder, error)
        recorder.end("finished")
        return 0


def _fail(recorder: Recorder, error: Exception) -> int:
    """Tell why, as far as the disk still lets us, and return the exit code."""
    known = _known(error, recorder.run)
    cause = known.__cause__
    if space.full(recorder.run.path) or (isinstance(cause, OSError) and cause.errno in space.FULL):  # a quota
        recorder.make_room()  # the log is on the same disk
    with suppress(OSError):
        traceback.print_exc(file=sys.stderr)
    words = Words(message=known.message, hint=known.hint, exit_code=known.exit_code)
    if distributed.first():
        _tell(recorder, words)
    else:  # rank 0 writes them into the run, or the agent does when all ranks are gone
        words.message = f"{words.message} (process {distributed.rank()} of {distributed.world()})"
        with suppress(DiskError):
            write_atomically(_last_words(recorder.run), to_json(words))
    return known.exit_code


class Words(msgspec.Struct, kw_only=True):
    """Why a run failed."""

    message: str
    hint: str = ""
    exit_code: int = RunFailed.exit_code


def _last_words(directory: RunDir) -> Path:
    """Where a rank that fails says why, if it is not the one that writes the run."""
    return directory.control / "failed.json"


def _read_last_words(directory: RunDir) -> Words | None:
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(_last_words(directory).read_bytes(), type=Words)
    return None


def _tell(recorder: Recorder, words: Words) -> None:
    for tell in (
        lambda: recorder.write(ErrorNote(text=words.message, hint=words.hint)),
        lambda: recorder.end("failed", error=words.message, hint=words.hint),
    ):
        try:
            tell()
        except CafeError as also:
            with suppress(OSError):
                print(also, file=sys.stderr)


def _known(error: Exception, run: RunDir) -> CafeError:
    if isinstance(error, CafeError):
        return error
    if isinstance(error, OSError) and error.errno in space.FULL:
        path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else run.path / "."
        return space.disk_error(f"cannot write {path}", path, error)
    stage = run.state().stage
    if out_of_memory(error):
        return RunFailed(
            "out of memory", f"Use smaller batches: --set stage.{stage or 'train'}.batch_size=32, or fewer."
        )
    return RunFailed(
        f"internal error: {type(error).__name__}: {error}", "This is a defect; its traceback is in engine.log."
    )
