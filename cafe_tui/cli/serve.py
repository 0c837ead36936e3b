"""cafe serve: the terminal UI in a browser."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cafe_tui.cli.options import Runs
from cafe_tui.locations import runs_folder


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    runs: Runs = None,
) -> None:
    """Serve the terminal UI to a browser, on this machine only unless another address is given.

    The address that is printed has a key in it, a new one each time. Whoever has it acts as you.
    """
    from engine.contract.errors import UsageError

    try:
        from cafe_tui.ui.serving import UiServer, is_loopback
    except ImportError:
        raise UsageError("serving needs textual-serve", "pip install 'cafe-tui[serve]' brings it.") from None
    if not is_loopback(host):
        print(
            f"warning: {host}:{port} can be reached from other machines, without encryption: whoever reads along on "
            "the way has the key, and can start, stop and delete runs; 127.0.0.1 and ssh -L are safer",
            file=sys.stderr,
        )
    # The UIs inherit our environment: no name passes through a command.
    os.environ |= {"CAFE_RUNS": str(runs_folder(runs).absolute())}
    try:
        UiServer(host, port).run()
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror or error}", "Choose another --port."
        ) from None
