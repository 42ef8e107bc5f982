"""Serves one of our web applications: opened first, so that what is missing is a sentence, not a server's traceback."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import uvicorn
from fastapi import FastAPI

from shared.settings import Settings, load_settings
from shared.telemetry import configure_logging

STOP_SECONDS: Final = 5
"""Somebody who waits for a result holds a connection open; a stop must not wait for them longer than this."""


def serve(open_app: Callable[[Settings], Awaitable[FastAPI]], host: str, port: int) -> None:
    """Open the application and serve it until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: it cannot work as configured.
    """
    settings = load_settings()
    configure_logging(settings)

    async def run() -> None:
        app = await open_app(settings)
        config = uvicorn.Config(app, host=host, port=port, timeout_graceful_shutdown=STOP_SECONDS, access_log=False)
        await uvicorn.Server(config).serve()

    asyncio.run(run())
