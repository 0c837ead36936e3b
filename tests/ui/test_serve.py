"""The UI in a browser: what is refused, and once through headless Chromium."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pyte
import pytest

from tests.patience import PATIENCE, kill, wait_until
from tests.recorded import record_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1200,800", "about:blank"),
]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Served:
    """`cafe serve` on a free port."""

    def __init__(self, runs: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "cafe_tui", "serve", "--port", str(self.port), "--runs", str(runs)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"cafe is at {self.url}; ctrl-C ends it\n".encode()

    def listens(self) -> bool:
        """Whether it takes connections."""
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    runs = tmp_path / "runs of 'me'; $HOME"
    record_run(runs)
    server = Served(runs)
    try:
        yield server
        if server.process.poll() is None:
            server.end()
    finally:
        kill(server.process)


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cafe_tui", "serve", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, env={**os.environ, **environment}
    )


def test_a_port_that_is_taken_is_one_message() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answer = serve("--port", str(taken.getsockname()[1]))
    assert answer.returncode == 2
    assert "cannot listen on 127.0.0.1" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_other_addresses_are_warned_of_before_anything_listens() -> None:
    answer = serve("--host", "203.0.113.7")  # of nobody, so it cannot be listened on
    assert answer.returncode == 2
    warning, failure = answer.stderr.splitlines()[:2]
    assert warning.startswith("warning: whoever reaches 203.0.113.7:8000 can start, stop and delete runs")
    assert "cannot listen" in failure


def test_without_the_extra_it_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "textual_serve.py").write_text("raise ImportError")
    answer = serve(PYTHONPATH=str(tmp_path))
    assert answer.returncode == 2
    assert "pip install 'cafe-tui[serve]'" in answer.stderr


def test_pages_from_elsewhere_cannot_reach_the_terminal_and_nothing_comes_from_elsewhere(served: Served) -> None:
    wait_until(served.listens)  # it tells its address a moment before
    page = urllib.request.urlopen(served.url).read().decode()
    assert "textual-terminal" in page
    assert "googleapis" not in page

    async def connect(origin: str) -> int:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.ws_connect(f"{served.url}/ws", headers={"Origin": origin}):
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status

    assert asyncio.run(connect("http://elsewhere.example")) == 403
    assert asyncio.run(connect(served.url)) == 101


class Page:
    """A page in headless Chromium, through its DevTools protocol; the terminal is read from what the page receives."""

    def __init__(self, socket_: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket_
        self._numbers = itertools.count(1)
        self.screen = pyte.Screen(400, 200)  # larger than the page makes it
        self._stream = pyte.ByteStream(self.screen)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while (message := await self._receive()).get("id") != number:
            pass
        return dict(message.get("result", {}))

    async def _receive(self) -> dict[str, Any]:
        message = json.loads((await self._socket.receive(PATIENCE)).data)
        if message.get("method") == "Network.webSocketFrameReceived":
            frame = message["params"]["response"]
            if frame["opcode"] == 2:
                self._stream.feed(base64.b64decode(frame["payloadData"]))
        return dict(message)

    async def until(self, text: str) -> None:
        end = time.monotonic() + PATIENCE
        while text not in "\n".join(self.screen.display):
            assert time.monotonic() < end, "\n".join(self.screen.display)
            await self.call("Runtime.evaluate", expression="0")

    async def key(self, key: str, code: str, number: int) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=number, **text
            )


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_run_is_opened_in_headless_chromium(served: Served, tmp_path: Path) -> None:
    asyncio.run(_visit(served, tmp_path))
    children = psutil.Process(served.process.pid).children(recursive=True)
    assert served.end() in (0, 130)
    _, alive = psutil.wait_procs(children, PATIENCE)
    assert alive == []


async def _visit(served: Served, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    port, profile = free_port(), tmp_path / "chromium"
    browser = subprocess.Popen(
        [CHROMIUM, f"--remote-debugging-port={port}", f"--user-data-dir={profile}", *FLAGS],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(await _page_address(session, port), max_msg_size=0) as socket_,
        ):
            page = Page(socket_)
            await page.call("Network.enable")
            await page.call("Page.enable")
            await page.call("Page.navigate", url=served.url)
            await page.until("finished")
            await page.call("Page.bringToFront")
            await page.call("Runtime.evaluate", expression="document.querySelector('textarea').focus()")
            await page.key("Enter", "Enter", 13)
            await page.until("train")
            await page.until("Back")
            picture = await page.call("Page.captureScreenshot", format="png")
            assert len(base64.b64decode(picture["data"])) > 10_000, "a page with a terminal in it"
    finally:
        kill(browser)


async def _page_address(session: aiohttp.ClientSession, port: int) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [page for page in await answer.json() if page["type"] == "page"]
                if pages:
                    return str(pages[0]["webSocketDebuggerUrl"])
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError("Chromium did not start")
