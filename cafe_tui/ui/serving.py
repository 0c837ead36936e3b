"""The terminal UI in a browser: textual-serve, with what it lacks to stand on a machine that others use too.

Any account of this machine can open a loopback port, and any page in a browser can try to. So the page and its socket
need a key, which is in the path of the address that is printed: a cookie would go to every other port of this machine
as well, and a path is sent to no other server, as the pages forbid a Referer.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shlex
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hmac import compare_digest
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web
from textual_serve.app_service import AppService
from textual_serve.server import Server

from cafe_tui.launch import spawn

FOREIGN_STYLES = re.compile(r"<link\b[^>]*https?://fonts\.[^>]*>")
"""Fonts that the page would fetch from elsewhere: there may be no network, and it is nobody's business."""
PLACE: Final = "cafe.invalid"
"""Stands in the page that textual-serve makes for where this server is, until it is known from where it was opened."""
KEYLESS: Final = ("/static/", "/download/")
"""Paths without the key: files of textual-serve that everybody may read, and downloads, each with a key of its own."""
HEADERS: Final = {
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
}
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
USUAL_SIZE: Final = (80, 24)
LARGEST_SIZE: Final = (500, 200)
"""Columns and lines: no screen has more in a legible font, and memory and time grow with their product."""
ENDING_SECONDS: Final = 5.0
"""For how long a UI whose page was closed may take to end."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def bound_names(host: str) -> frozenset[str]:
    """By what a browser may call a server that listens on `host`, in lower case: never by a name that only points here.

    That is what a page does which lets its own name point to this machine, to be taken for a page of ours.
    """
    here = () if is_loopback(host) else (socket.gethostname().lower(), socket.getfqdn().lower())
    return frozenset({host.lower(), *LOOPBACK, *here})


def sane_size(width: object, height: object, usual: tuple[int, int] = USUAL_SIZE) -> tuple[int, int]:
    """Columns and lines that a page asked for, as numbers or as text, between 1x1 and the largest.

    What is no number is as `usual`.
    """
    wanted = [width, height]
    for place, value in enumerate(wanted):
        try:
            number = usual[place] if isinstance(value, bool) else int(value)  # type: ignore[call-overload]
        except (TypeError, ValueError, OverflowError):
            number = usual[place]
        wanted[place] = max(1, min(number, LARGEST_SIZE[place]))
    return wanted[0], wanted[1]  # type: ignore[return-value]


class UiService(AppService):
    """One UI, for one page. It ends with the page and with the server, if it must by force."""

    def __init__(self, argv: list[str], websocket: web.WebSocketResponse, server: Server) -> None:
        super().__init__(
            shlex.join(argv),
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=websocket.close,  # type: ignore[arg-type] # says afterwards whether it was open
            download_manager=server.download_manager,
        )
        self._argv = argv
        self._size = USUAL_SIZE

    def _variables(self, width: int, height: int) -> dict[str, str]:
        """What the environment of the UI has beyond ours."""
        built = self._build_environment(width, height)
        more = {name: value for name, value in built.items() if os.environ.get(name) != value}
        return {**more, "TEXTUAL_DRIVER": "cafe_tui.terminal.page:PageDriver"}

    async def _open_app_process(self, width: int = 80, height: int = 24) -> asyncio.subprocess.Process:
        """Start the UI, without the shell that textual-serve puts in between and that a signal would end instead."""
        process = await spawn.serving(self._argv, self._variables(width, height))
        self._process, self._stdin = process, process.stdin
        return process

    async def start(self, width: int, height: int) -> None:
        """Start the UI in a terminal of this size, within limits."""
        self._size = sane_size(width, height)
        await super().start(*self._size)

    async def set_terminal_size(self, width: int, height: int) -> None:
        """Tell the UI of a new size, within limits."""
        self._size = sane_size(width, height, self._size)
        await super().set_terminal_size(*self._size)

    async def stop(self) -> None:
        """Ask the UI to end, and end it where it does not."""
        process = self._process
        if process is None:
            return
        ending = asyncio.gather(super().stop(), process.wait(), return_exceptions=True)
        try:
            await asyncio.wait([ending], timeout=ENDING_SECONDS)  # cancelling would not end it: it is swallowed
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
        await ending


class UiServer(Server):
    """Serves `cafe` to pages of its own only, and to those who know `secret`. Raises OSError from `run`."""

    def __init__(self, host: str, port: int) -> None:
        self._argv = spawn.python("-m", "cafe_tui")
        super().__init__(shlex.join(self._argv), host, port, title="cafe", public_url=f"http://{PLACE}")
        self.secret = secrets.token_urlsafe(32)
        self._names = bound_names(host)
        self._services: set[UiService] = set()

    @property
    def address(self) -> str:
        """Where the page is, with the key in it."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{shown}:{self.port}/{self.secret}/"

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        # The paths of textual-serve remain, by which its page finds names; without the key they are refused.
        app.add_routes([web.get("/{key}/", self.handle_index), web.get("/{key}/ws", self.handle_websocket)])
        app.middlewares.append(self._guard)
        app.on_response_prepare.append(_add_headers)
        return app

    @property
    def _guard(self) -> Any:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not self._comes_from_here(request):
                raise web.HTTPForbidden(text="this page did not come from here")
            if not (request.path.startswith(KEYLESS) or self._has_key(request)):
                raise web.HTTPForbidden(text="open the whole address that `cafe serve` printed: it has the key in it")
            return await handler(request)

        return guard

    def _comes_from_here(self, request: web.Request) -> bool:
        """Whether it was sent to one of our names and, where a page sent it, by a page of that same place."""
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        reached = request.transport.get_extra_info("sockname")[0] if request.transport else ""
        return name in (*self._names, reached) and (origin is None or origin in (f"http://{host}", f"https://{host}"))

    def _has_key(self, request: web.Request) -> bool:
        return compare_digest(request.match_info.get("key", "").encode(), self.secret.encode())

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing yet: nobody listens so far."""

    async def on_shutdown(self, app: web.Application) -> None:
        """End every UI."""
        await asyncio.gather(*(service.stop() for service in tuple(self._services)), return_exceptions=True)

    def _announce(self, *_: object) -> None:
        print(f"cafe is at {self.address}", flush=True)
        print("Whoever has this address can start, stop and delete runs. ctrl-C ends it.", flush=True)

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """The page, without anything from elsewhere; its socket is where the page was opened, also through a tunnel."""
        response = await super().handle_index(request)
        if isinstance(response, web.Response) and response.text:
            text = FOREIGN_STYLES.sub("", response.text)
            text = text.replace(f"ws://{PLACE}/ws", f"ws://{request.headers['Host']}/{self.secret}/ws")
            response.text = text.replace(f"http://{PLACE}/", "/")
        return response

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """A terminal for a page. What the page sends and nobody understands ends it."""
        websocket = web.WebSocketResponse(heartbeat=15)
        await websocket.prepare(request)
        service = UiService(self._argv, websocket, self)
        self._services.add(service)
        try:
            width, height = sane_size(request.query.get("width"), request.query.get("height"))
            await service.start(width, height)
            with suppress(ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError):
                await self._process_messages(websocket, service)
        finally:
            try:
                await service.stop()
            finally:
                self._services.discard(service)
                await websocket.close()
        return websocket

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM."""
        web.run_app(
            self._make_app(),
            host=self.host,
            port=self.port,
            print=self._announce,  # is called once the server listens
            access_log=None,  # it would hold the key
            shutdown_timeout=1.0,
        )


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
