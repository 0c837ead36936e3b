"""The terminal UI in a browser: textual-serve, with what it lacks to stand on a machine that others use too."""

from __future__ import annotations

import re
import shlex
from urllib.parse import urlsplit

from aiohttp import web
from textual_serve.server import Server

from cafe_tui.launch.spawn import python

FOREIGN_STYLES = re.compile(r"<link\b[^>]*https?://fonts\.[^>]*>")
"""Fonts that the page would fetch from elsewhere: there may be no network, and it is nobody's business."""


class UiServer(Server):
    """Serves `cafe` to pages of its own only. Raises OSError from `run` when it cannot listen."""

    def __init__(self, host: str, port: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{port}"
        super().__init__(shlex.join(python("-m", "cafe_tui")), host, port, title="cafe", public_url=url)

    async def on_startup(self, app: web.Application) -> None:
        """Say where it is."""
        print(f"cafe is at {self.public_url}; ctrl-C ends it", flush=True)

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """The page, without anything from elsewhere."""
        response = await super().handle_index(request)
        if isinstance(response, web.Response) and response.text:
            response.text = FOREIGN_STYLES.sub("", response.text)
        return response

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """A terminal, for pages that came from here: any other page in the same browser could press keys in it."""
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text="this page did not come from here")
        return await super().handle_websocket(request)

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM."""
        web.run_app(
            self._make_app(),
            host=self.host,
            port=self.port,
            print=lambda *_: None,
            access_log=None,
            shutdown_timeout=1.0,
        )
