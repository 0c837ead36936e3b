"""The UI in a browser: who is refused, how large a terminal gets, what ends when, and once in headless Chromium."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import math
import os
import re
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

from cafe_tui.ui.serving import sane_size
from tests.patience import PATIENCE, kill
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
        self.origin = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "cafe_tui", "serve", "--port", str(self.port), "--runs", str(runs)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self.process.stdout is not None
        said = self.process.stdout.readline().decode()
        assert said.startswith(f"cafe is at {self.origin}/")
        self.url = said.split()[-1]
        assert len(self.url.split("/")[3]) >= 32
        assert b"ctrl-C ends it" in self.process.stdout.readline()

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
        elif server.process.stdout:
            server.process.stdout.close()
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
    assert warning.startswith("warning: 203.0.113.7:8000 can be reached from other machines, without encryption")
    assert "cannot listen" in failure


def test_without_the_extra_it_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "textual_serve.py").write_text("raise ImportError")
    answer = serve(PYTHONPATH=str(tmp_path))
    assert answer.returncode == 2
    assert "pip install 'cafe-tui[serve]'" in answer.stderr


async def answers(served: Served, *asked: tuple[str, dict[str, str]]) -> list[int]:
    """The status of the answers to (path, headers): 101 where a socket was opened."""
    found = []
    async with aiohttp.ClientSession() as session:
        for path, headers in asked:
            address = served.origin + path
            try:
                if path.partition("?")[0].endswith("ws"):
                    async with session.ws_connect(address, headers=headers):
                        found.append(101)
                else:
                    async with session.get(address, headers=headers) as answer:
                        found.append(answer.status)
                        assert answer.headers["Referrer-Policy"] == "no-referrer"
            except aiohttp.WSServerHandshakeError as error:
                found.append(error.status)
    return found


def test_page_and_socket_need_the_key(served: Served) -> None:
    key = served.url.split("/")[3]
    wrong = [f"{key[:-1]}-", key[:-1], f"{key}x", "%C3%A9", "statics", "a/b", ""]
    paths = [f"/{each}/" for each in wrong] + [f"/{each}/ws" for each in wrong] + ["/", "/ws", f"/?key={key}", "/x"]
    assert set(asyncio.run(answers(served, *((path, {}) for path in paths)))) <= {403, 404}
    assert psutil.Process(served.process.pid).children() == [], "no terminal was started for any of them"
    assert asyncio.run(answers(served, (f"/{key}/", {}), (f"/{key}/ws", {}))) == [200, 101]


def test_only_names_of_this_server_and_its_own_pages_are_answered(served: Served) -> None:
    key, port = served.url.split("/")[3], served.port
    elsewhere = [
        {"Host": "elsewhere.example"},
        {"Host": f"elsewhere.example:{port}"},
        {"Host": f"127.0.0.1.elsewhere.example:{port}"},
        {"Host": "[::1"},
        {"Origin": "http://elsewhere.example"},
        {"Origin": f"http://127.0.0.1:{port + 1}"},
        {"Origin": "null"},
    ]
    here = [
        {"Host": f"localhost:{port}"},
        {"Host": "localhost:1234"},  # through ssh -L
        {"Host": f"[::1]:{port}"},
        {"Origin": served.origin},
        {"Host": "localhost:1234", "Origin": "http://localhost:1234"},
    ]
    for path, good in ((f"/{key}/", 200), (f"/{key}/ws", 101)):
        assert asyncio.run(answers(served, *((path, each) for each in elsewhere))) == [403] * len(elsewhere)
        assert asyncio.run(answers(served, *((path, each) for each in here))) == [good] * len(here)


def test_the_page_has_nothing_from_elsewhere_and_its_socket_is_where_it_was_opened(served: Served) -> None:
    key = served.url.split("/")[3]
    request = urllib.request.Request(served.url, headers={"Host": "localhost:1234"})
    page = urllib.request.urlopen(request).read().decode()
    assert "textual-terminal" in page
    assert "googleapis" not in page
    assert f"ws://localhost:1234/{key}/ws" in page
    assert "invalid" not in page
    assert asyncio.run(answers(served, ("/static/js/textual.js", {}))) == [200]


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        (("120", "40"), (120, 40)),
        ((120, 40.0), (120, 40)),
        (("600", "300"), (500, 200)),
        ((10**30, "9" * 30), (500, 200)),
        ((0, -5), (1, 1)),
        ((None, "x"), (80, 24)),
        ((True, []), (80, 24)),
        ((math.nan, math.inf), (80, 24)),
        (("9" * 5000, {}), (80, 24)),
    ],
)
def test_sizes_are_clamped(asked: tuple[object, object], size: tuple[int, int]) -> None:
    assert sane_size(*asked) == size


async def shown(socket_: aiohttp.ClientWebSocketResponse, lines: int = 24) -> None:
    """Wait until the UI has drawn its list down to a last line; fails where it goes further."""
    seen, last = b"", 0
    while b"Quit" not in seen or b"finished" not in seen or last != lines:
        message = await socket_.receive(PATIENCE)
        assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), "ended"
        seen += message.data if isinstance(message.data, bytes) else b""
        last = max([last, *(int(row) for row in re.findall(rb"\x1b\[(\d+);\d+H", seen))])
        assert last <= lines


def test_no_page_gets_a_terminal_larger_than_any_screen(served: Served) -> None:
    async def ask() -> None:
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{served.url}ws?width=600&height=300") as socket_:
                await shown(socket_, 200)
            async with session.ws_connect(f"{served.url}ws?width=100&height=x") as socket_:
                await shown(socket_, 24)
                await socket_.send_json(["resize", {"width": 600, "height": 300}])
                await shown(socket_, 200)

    asyncio.run(ask())


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, PATIENCE)
    return not alive


def test_what_nobody_understands_ends_one_page_without_a_word(served: Served) -> None:
    async def send(text: str) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{served.url}ws") as socket_:
            await socket_.send_str(text)
            while (message := await socket_.receive(PATIENCE)).type in (
                aiohttp.WSMsgType.BINARY,
                aiohttp.WSMsgType.TEXT,
            ):
                pass
            assert message.type == aiohttp.WSMsgType.CLOSE

    for text in ("no json", "[]", '["resize"]', '["stdin", 1]'):
        asyncio.run(send(text))
    assert gone(psutil.Process(served.process.pid).children(recursive=True))
    served.process.send_signal(signal.SIGINT)
    output, _ = served.process.communicate(timeout=PATIENCE)
    assert output == b""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_uis_end_with_their_server(served: Served, number: signal.Signals) -> None:
    async def open_and_end() -> list[psutil.Process]:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{served.url}ws") as socket_:
            await shown(socket_)
            children = psutil.Process(served.process.pid).children(recursive=True)
            assert children
            served.process.send_signal(number)
            return children

    children = asyncio.run(open_and_end())
    assert gone(children)
    served.process.wait(PATIENCE)


def test_a_ui_that_does_not_answer_is_ended_with_its_page(served: Served) -> None:
    async def open_and_stop() -> list[psutil.Process]:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{served.url}ws") as socket_:
            await shown(socket_)
            [child] = psutil.Process(served.process.pid).children()
            child.suspend()
            return [child]

    assert gone(asyncio.run(open_and_stop()))


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
