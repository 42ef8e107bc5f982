"""The whole of `llmyard up` as one value: which servers are ours, which are the user's, and what runs where."""

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.stack.children import StackError
from orchestrator.stack.configuration import StackOptions, StackUrls, build_service_environment, hide_password
from orchestrator.stack.data_directory import (
    make_data_directory,
    make_metrics_directory,
    only_stack_in,
    write_private,
)
from orchestrator.stack.embedded_postgres import EmbeddedPostgres, prepare_postgres
from orchestrator.stack.embedded_valkey import prepare_valkey
from orchestrator.stack.leftovers import end_leftovers
from orchestrator.stack.ports import find_port_from
from orchestrator.stack.services import ServicePlan
from orchestrator.stack.supervisor import Supervisor
from shared.settings import RUNNING_STACK_FILE, Settings

# The worker's own limit is the grace for its jobs; what comes after is closing connections.
_WORKER_CLOSING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Part:
    """A line of the table that tells people what runs where."""

    name: str
    address: str
    pid: int | None = None
    """None for a server that is not ours."""
    log: Path | None = None
    note: str = ""


class Stack:
    """Entering it starts everything, leaving it ends everything; `watch` waits for a reason to leave."""

    def __init__(self, options: StackOptions, settings: Settings, say: Callable[[str], None] = print) -> None:
        """`settings` must be the environment's own: its URLs name servers to use instead of embedded ones."""
        self._options = options
        self._settings = settings
        self._say = say
        self.directory = make_data_directory(options.data_directory)
        self._supervisor = Supervisor(self.directory, say)
        self._postgres: EmbeddedPostgres | None = None
        self._cleanup = ExitStack()
        self._notes: dict[str, str] = {}
        self._foreign: list[Part] = []

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            cleanup.enter_context(only_stack_in(self.directory))
            self._running_file.unlink(missing_ok=True)
            end_leftovers(self.directory, self._say)
            cleanup.callback(self._discard_socket)
            cleanup.callback(self._supervisor.stop)
            cleanup.callback(self._running_file.unlink, missing_ok=True)
            self._start()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, StackError):
            self._say("A part is gone that the others need: stopping them.")
        self._cleanup.close()

    def request_stop(self) -> None:
        """For signal handlers: once for an orderly end, twice for an end at once."""
        self._supervisor.request_stop()

    def watch(self) -> None:
        """Until the end is asked for; raises `StackError` when a part died that the rest cannot do without."""
        self._supervisor.watch()

    @property
    def parts(self) -> tuple[Part, ...]:
        ours = (
            Part(child.spec.name, child.spec.address, child.pid, child.log, self._notes.get(child.spec.name, ""))
            for child in self._supervisor.children
        )
        return (*self._foreign, *ours)

    @property
    def _running_file(self) -> Path:
        return self.directory / RUNNING_STACK_FILE

    def _start(self) -> None:
        urls = self._start_servers()
        plan = self._plan_services(urls)
        self._supervisor.run_to_end(plan.migration())
        self._supervisor.start_together(*plan.services())
        self._write_running_file(urls, plan)

    def _start_servers(self) -> StackUrls:
        given = self._settings
        database_url = self._use("postgres", "DATABASE_URL", given.database_url) or self._start_postgres()
        redis_url = self._use("redis", "REDIS_URL", given.redis_url) or self._start_valkey()
        broker_url = self._use("broker", "BROKER_URL", given.broker_url) or redis_url
        return StackUrls(database_url, redis_url, broker_url)

    def _use(self, name: str, variable: str, url: str | None) -> str | None:
        if url is not None:
            self._foreign.append(Part(name, hide_password(url), note=f"from {variable}"))
        return url

    def _start_postgres(self) -> str:
        self._postgres = prepare_postgres(self.directory / "postgres", self._say)
        self._supervisor.start(self._postgres.child())
        return self._postgres.url

    def _start_valkey(self) -> str:
        valkey = prepare_valkey(self.directory / "valkey")
        if valkey.former_port is not None:
            self._notes["valkey"] = f"port {valkey.former_port}, used until now, is taken: its URL has changed"
        self._supervisor.start(valkey.child())
        return valkey.url

    def _discard_socket(self) -> None:
        if self._postgres is not None:
            self._postgres.discard_socket_directory()

    def _plan_services(self, urls: StackUrls) -> ServicePlan:
        return ServicePlan(
            directory=self.directory,
            environment=build_service_environment(urls, self._options, self._settings, self.directory),
            metrics_directory=make_metrics_directory(self.directory),
            api_port=self._find_port("api", self._options.api_port),
            flower_port=self._find_port("flower", self._options.flower_port),
            worker_grace_seconds=self._settings.llmyard_shutdown_grace_seconds + _WORKER_CLOSING_SECONDS,
        )

    def _find_port(self, name: str, wanted: int) -> int:
        port = find_port_from(wanted)
        if port != wanted:
            self._notes[name] = f"port {wanted} is taken"
        return port

    def _write_running_file(self, urls: StackUrls, plan: ServicePlan) -> None:
        running = {
            "pid": os.getpid(),
            "urls": {name: getattr(urls, name) for name in StackUrls.__slots__},
            "addresses": {"api": plan.api_url, "flower": plan.flower_url},
        }
        write_private(self._running_file, json.dumps(running, indent=1))
