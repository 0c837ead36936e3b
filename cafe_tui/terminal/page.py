"""Textual's driver for a page in a browser, which ends with the server that started it."""

from __future__ import annotations

import asyncio
import os
import threading
from functools import partial
from typing import Final

from textual.drivers.web_driver import WebDriver
from textual.messages import ExitApp

ENDING_SECONDS: Final = 2.0
"""How long the UI may take to end in order once its server is gone."""


class PageDriver(WebDriver):
    """The usual one leaves the UI running, for ever, when its input ends: so it does where the server was killed."""

    def run_input_thread(self) -> None:
        """Read keys until the UI ends or the server is gone."""
        super().run_input_thread()
        if self.exit_event.is_set():
            return
        give_up = threading.Timer(ENDING_SECONDS, os._exit, (1,))  # also where the UI is busy or blocked
        give_up.daemon = True
        give_up.start()
        self._write = partial(len)  # nobody reads it any more
        asyncio.run_coroutine_threadsafe(self._app._post_message(ExitApp()), self._loop)
