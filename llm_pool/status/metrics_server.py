"""Answers Prometheus from a thread, for programs that serve no HTTP themselves, such as a worker; and whether one is
ready, where that is told."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from prometheus_client import start_http_server

from llm_pool.status.metrics import Metrics
from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

ReadChecks = Callable[[], Mapping[str, bool]]
"""What must hold for a process to be ready, each by its name."""


class MetricsServer:
    """Listens from its making until it is closed."""

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        """
        Raises:
            ConfigurationError: the address cannot be listened on.
        """
        try:
            self._server: WSGIServer
            self._server, self._thread = start_http_server(port, host, metrics.registry)
        except OSError as error:
            raise ConfigurationError(
                f"LLMYARD_METRICS_PORT is {port}, which cannot be listened on at {host} ({error.strerror}): set it to "
                "a free one, another for each worker of a machine."
            ) from error

    @property
    def port(self) -> int:
        return self._server.server_port

    def show_ready(self, read_checks: ReadChecks) -> None:
        """Answer `/health` and `/ready` too, from now on."""
        tell_metrics = self._server.get_app()
        assert tell_metrics is not None, "set at the start"

        def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            match environ["PATH_INFO"]:
                case "/health":
                    return _answer_checks({"alive": True}, start_response)
                case "/ready":
                    return _answer_checks(read_checks(), start_response)
            return tell_metrics(environ, start_response)

        self._server.set_app(answer)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _answer_checks(checks: Mapping[str, bool], start_response: "StartResponse") -> Iterable[bytes]:
    status = "200 OK" if all(checks.values()) else "503 Service Unavailable"
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(dict(checks)).encode()]
