"""cafe watch: follow runs that somebody else started."""

from __future__ import annotations

from cafe_tui.cli.options import Plain, RunOrTag, Runs, find_runs


def watch(run: RunOrTag, plain: Plain = False, runs: Runs = None) -> None:
    """The live view of a run that is going on, or the final one; of a tag, all its runs.

    ctrl-C leaves the view; what runs goes on.
    """
    directories = find_runs(runs, run)
    if len(directories) == 1:
        from cafe_tui.console.follow import watch as look_on

        look_on(directories[0], plain=plain)
        return
    from cafe_tui.console.follow_sweep import follow

    follow(run, lambda: directories, plain=plain, stops=False)
