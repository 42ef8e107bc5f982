"""Commands that become one of our programs: for a container, a batch script or a service manager to supervise.

What must be set is checked first, so that a missing setting is one sentence and not a program's traceback.
"""

import os
import sys
from collections.abc import Mapping
from typing import Annotated

import typer

from llm_pool.service import open_service
from orchestrator.api.app import open_api
from orchestrator.cli.serve import serve
from orchestrator.stack.ports import LOOPBACK
from orchestrator.stack.programs import (
    build_beat_command,
    build_flower_command,
    build_kept_command,
    build_worker_command,
)
from shared.errors import ConfigurationError
from shared.settings import child_environment, find_secret, load_settings

_LOOPBACK_NAMES = frozenset({LOOPBACK, "localhost", "::1"})

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=1, max=65535)]
LogLevel = Annotated[
    str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR; without it LLMYARD_LOG_LEVEL.", show_default=False)
]


def worker(
    concurrency: Annotated[int | None, typer.Option(min=1, help="Jobs to wait for at once.")] = None,
    hostname: Annotated[str, typer.Option(help="Unique per worker; %h is the machine's name.")] = "llmyard@%h",
    log_level: LogLevel = None,
    keep_alive: Annotated[bool, typer.Option("--keep-alive", help="Start it again when it dies.")] = False,
) -> None:
    """Run jobs."""
    _require_servers()
    overrides = _build_overrides({"LLMYARD_CONCURRENCY": concurrency, "LLMYARD_LOG_LEVEL": log_level})
    command = build_worker_command(hostname)
    _become(build_kept_command(command) if keep_alive else command, overrides)


def beat(log_level: LogLevel = None) -> None:
    """Send the periodic tasks."""
    _require_servers()
    _become(build_beat_command(None, log_level or load_settings().llmyard_log_level))


def api(host: Host = LOOPBACK, port: Port = 8000) -> None:
    """Serve the jobs API."""
    serve(open_api, host, port)


def pool(host: Host = LOOPBACK, port: Port = 8002) -> None:
    """Serve the pool of providers."""
    serve(open_service, host, port)


def flower(
    address: Host = LOOPBACK,
    port: Port = 5555,
    basic_auth: Annotated[
        str | None, typer.Option(help="USER:PASSWORD; FLOWER_BASIC_AUTH does not show it in the process list.")
    ] = None,
) -> None:
    """Watch tasks and workers in a browser."""
    load_settings().require_broker_url()
    credentials = basic_auth or find_secret("FLOWER_BASIC_AUTH")
    if address not in _LOOPBACK_NAMES and credentials is None:
        raise ConfigurationError(
            f"Flower shows every task, so it listens on {address} with credentials only:"
            " set FLOWER_BASIC_AUTH (or --basic-auth) to USER:PASSWORD."
        )
    _become(build_flower_command(address, port), {} if credentials is None else {"FLOWER_BASIC_AUTH": credentials})


def _require_servers() -> None:
    settings = load_settings()
    settings.require_redis_url()
    settings.require_broker_url()


def _build_overrides(options: Mapping[str, object]) -> dict[str, str]:
    """What stands on the command line goes before what stands in the environment."""
    return {name: str(value) for name, value in options.items() if value is not None}


def _become(command: tuple[str, ...], overrides: Mapping[str, str] | None = None) -> None:
    sys.stdout.flush()
    os.execvpe(command[0], command, child_environment(overrides or {}))  # noqa: S606 (a fixed program, no shell)
