"""cafe serve: the terminal UI in a browser."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cafe_tui.cli.options import Runs
from cafe_tui.launch.spawn import environment
from cafe_tui.locations import runs_folder


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    runs: Runs = None,
) -> None:
    """Serve the terminal UI to a browser, on this machine only unless another address is given."""
    from engine.contract.errors import UsageError

    try:
        from cafe_tui.ui.serving import UiServer
    except ImportError:
        raise UsageError("serving needs textual-serve", "pip install 'cafe-tui[serve]' brings it.") from None
    if not _loopback(host):
        print(
            f"warning: whoever reaches {host}:{port} can start, stop and delete runs here, and nobody is asked who "
            "they are; 127.0.0.1 and ssh -L are safer",
            file=sys.stderr,
        )
    # textual-serve has a shell start the UI, in our environment: no name passes through its command.
    os.environ |= environment() | {"CAFE_RUNS": str(runs_folder(runs).absolute())}
    try:
        UiServer(host, port).run()
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror or error}", "Choose another --port."
        ) from None


def _loopback(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
