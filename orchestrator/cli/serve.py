"""Serves one of our web applications: opened first, so that what is missing is a sentence, not a server's traceback."""

import asyncio
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from shared.settings import Settings, load_settings
from shared.telemetry import configure_logging

STOP_SECONDS: Final = 5
"""Somebody who waits for a result holds a connection open; a stop must not wait for them longer than this."""


class DatedState(ServerState):
    """Looks at the clock when an answer is written, and not each second in case one might be."""

    def __init__(self, config: uvicorn.Config) -> None:
        self._config = config
        super().__init__()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Of every answer."""
        return [(b"date", formatdate(usegmt=True).encode()), *self._config.encoded_headers]

    @default_headers.setter
    def default_headers(self, _: list[tuple[bytes, bytes]]) -> None:
        """uvicorn would have them as they were when it last looked."""


class QuietServer(uvicorn.Server):
    """Sleeps while nobody asks: uvicorn's own looks ten times a second what time it is, and whether it is to end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = DatedState(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end_wanted = asyncio.Event()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal handler."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end_wanted.set)

    async def main_loop(self) -> None:
        """Until the end is wanted."""
        self._loop = asyncio.get_running_loop()
        await self._end_wanted.wait()


def serve(open_app: Callable[[Settings], Awaitable[FastAPI]], host: str, port: int) -> None:
    """Open the application and serve it until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: it cannot work as configured.
    """
    settings = load_settings()
    configure_logging(settings)

    async def run() -> None:
        app = await open_app(settings)
        await QuietServer(build_configuration(app, host, port)).serve()

    asyncio.run(run())


def build_configuration(app: FastAPI, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        timeout_graceful_shutdown=STOP_SECONDS,
        access_log=False,
        # Its own handlers would write past ours, secrets and all.
        log_config=None,
    )
