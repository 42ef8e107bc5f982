"""A RabbitMQ of the tests' own: a node on the loopback, with its data, name, ports and cookie in one directory."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final, Self

from kombu import Connection

from orchestrator.beat import MAINTENANCE_QUEUE
from orchestrator.celery_app import BULK_QUEUE, JOBS_QUEUE
from orchestrator.stack.children import Child, ChildSpec
from orchestrator.stack.ports import LOOPBACK, accepts_connections, find_any_port
from shared.settings import child_environment
from tests.acceptance.yard import wait_until

NOT_INSTALLED: Final = "rabbitmq-server is not installed: apt-get install rabbitmq-server"

# Debian's command on the PATH is a wrapper that goes over to a user of its own.
_DEBIAN: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

CONSUMER_MILLISECONDS: Final = 1_800_000
"""RabbitMQ's own limit."""

QUORUM_BY_DEFAULT: Final = "quorum"
"""A virtual host where a queue of no declared kind is a quorum queue."""

_QUORUM: Final = {"default_queue_type": "quorum", "description": "", "tags": []}
_EVERYTHING: Final = {"configure": ".*", "write": ".*", "read": ".*"}
_DEFINITIONS: Final = {
    "users": [{"name": "llmyard", "password": "llmyard", "tags": []}],
    "vhosts": [{"name": "/"}, {"name": QUORUM_BY_DEFAULT, "metadata": _QUORUM}],
    "permissions": [{"user": "llmyard", "vhost": vhost, **_EVERYTHING} for vhost in ("/", QUORUM_BY_DEFAULT)],
}


class RabbitMQ:
    """A node that a test may end and start again; leaving it ends what was started."""

    def __init__(self, directory: Path, program: Path) -> None:
        self._directory = directory
        self._program = program
        self._port = find_any_port()
        self._epmd_port = find_any_port()
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        self._start(self._build_epmd())
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._children):
            child.end()

    @property
    def url(self) -> str:
        return self.url_of("")

    @property
    def port(self) -> int:
        return self._port

    def url_of(self, vhost: str) -> str:
        """The empty name is the default virtual host."""
        return f"amqp://llmyard:llmyard@{LOOPBACK}:{self._port}/{vhost}"

    def start(self) -> None:
        self.node = self._start(self._build_node())

    def clear(self) -> None:
        """Whatever a test has left, in every virtual host."""
        for vhost in ("", QUORUM_BY_DEFAULT):
            with Connection(self.url_of(vhost)) as connection:
                for queue in (JOBS_QUEUE, MAINTENANCE_QUEUE, BULK_QUEUE):
                    connection.default_channel.queue_delete(queue)

    def limit_consumers(self, milliseconds: int) -> None:
        """For how long a message may be unacknowledged, in channels opened from now on; looked at as often."""
        settings = {"consumer_timeout": milliseconds, "channel_tick_interval": min(milliseconds, 60_000)}
        changes = ", ".join(f"application:set_env(rabbit, {name}, {value})" for name, value in settings.items())
        command = (str(self._program.with_name("rabbitmqctl")), "eval", f"{changes}.")
        subprocess.run(command, env=child_environment(self._environment()), check=True, capture_output=True)

    def _start(self, spec: ChildSpec) -> Child:
        child = Child(spec, self._directory)
        self._children.append(child)
        wait_until(lambda: child.is_ready() or child.exit_status() is not None, seconds=60)
        assert child.exit_status() is None, f"{spec.name} did not start:\n{child.log_tail()}"
        return child

    def _build_epmd(self) -> ChildSpec:
        """Erlang's table of nodes, which the node would else start as a daemon."""
        command = ("epmd", "-port", str(self._epmd_port), "-address", LOOPBACK)
        return ChildSpec("epmd", command, is_ready=lambda _: accepts_connections(self._epmd_port))

    def _build_node(self) -> ChildSpec:
        return ChildSpec(
            "rabbitmq",
            (str(self._program),),
            environment=self._environment(),
            working_directory=self._directory,
            is_ready=lambda child: "Server startup complete" in child.new_log(),
        )

    def _environment(self) -> dict[str, str]:
        return {
            "HOME": str(self._directory),
            "RABBITMQ_NODENAME": f"llmyard{self._port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(self._directory / "data"),
            "RABBITMQ_LOG_BASE": str(self._directory / "log"),
            "RABBITMQ_CONFIG_FILE": str(self._directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self._directory / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._directory / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_DIST_PORT": str(find_any_port()),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            # One process instead of a shell that waits for one.
            "RUNNING_UNDER_SYSTEMD": "true",
        }


def find_program() -> Path | None:
    """RabbitMQ's own start script."""
    if _DEBIAN.exists():
        return _DEBIAN
    found = shutil.which("rabbitmq-server")
    return Path(found) if found else None


def prepare_rabbitmq(directory: Path, program: Path) -> RabbitMQ:
    """Write what the node reads when it starts."""
    directory.mkdir()
    rabbitmq = RabbitMQ(directory, program)
    (directory / "definitions.json").write_text(json.dumps(_DEFINITIONS))
    (directory / "enabled_plugins").write_text("[].\n")
    (directory / "rabbitmq-env.conf").touch()
    settings = {
        "listeners.tcp.1": f"{LOOPBACK}:{rabbitmq.port}",
        "load_definitions": str(directory / "definitions.json"),
        "log.file": "false",
        "log.console": "true",
    }
    (directory / "rabbitmq.conf").write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
    return rabbitmq
