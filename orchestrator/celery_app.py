"""The Celery application: broker, queues, and each setting that is not Celery's own, with its reason.

Read when Celery first asks for it, not at import, so that a wrong environment stops the program with one sentence
and a test may import tasks without any.
"""

from functools import partial
from typing import Any, Final

from celery import Celery
from kombu.entity import Queue

from orchestrator import redis_transport
from orchestrator.beat import MAINTENANCE_QUEUE, SCHEDULE
from orchestrator.rabbitmq_queue import QuorumQueue
from shared.errors import ConfigurationError
from shared.settings import Settings, load_settings

JOBS_QUEUE: Final = "celery"
"""A producer needs nothing but send_task("handle_message", [message]), so jobs come on Celery's default queue."""
BULK_QUEUE: Final = "bulk"
"""Slices, apart from single jobs: somebody waits for those."""

# kombu remembers a transport from its first use on, so before anything can connect.
redis_transport.install()

app = Celery("llmyard", include=["orchestrator.tasks", "orchestrator.worker"])
# Celery's own Redis backend takes two round trips a result.
app.loader.override_backends = dict.fromkeys(("redis", "rediss"), "orchestrator.result_backend:ResultBackend")


@app.add_defaults
def read_configuration() -> dict[str, Any]:
    """Celery's configuration from the environment; a `SystemExit` with one sentence where that cannot be."""
    try:
        settings = load_settings()
        return {**QUEUES, **WORKER, **CONNECTIONS, **RESULTS, **_build_for_broker(settings), **_build_own(settings)}
    except ConfigurationError as error:
        raise SystemExit(f"llmyard: {error}") from error


def _build_own(settings: Settings) -> dict[str, Any]:
    """What each installation sets for itself."""
    return {
        "broker_url": settings.require_broker_url(),
        "result_backend": settings.require_redis_url(),
        "worker_concurrency": settings.llmyard_concurrency,
    }


def _build_for_broker(settings: Settings) -> dict[str, Any]:
    """What differs between the two kinds of broker.

    Raises:
        ConfigurationError: it is of a third kind.
    """
    scheme = settings.require_broker_url().partition("://")[0]
    if scheme in RABBITMQ_SCHEMES:
        return RABBITMQ
    if scheme not in REDIS_SCHEMES:
        raise ConfigurationError(
            f"BROKER_URL begins with {scheme!r}: set it to redis://… or amqp://…, or leave it out to use REDIS_URL."
        )
    # A message whose worker died before it was a row comes back after this long; as a lease does, once it is one.
    # A living worker keeps its own from coming back: see redis_transport.QoS.
    waits = {"visibility_timeout": settings.llmyard_lease_seconds}
    return {**REDIS, "broker_transport_options": {**REDIS_TRANSPORT, **waits}}


REDIS_SCHEMES: Final = ("redis", "rediss")
RABBITMQ_SCHEMES: Final = ("amqp", "amqps", "pyamqp")

QUEUES: Final[dict[str, Any]] = {
    # Where jobs come, whoever sends them.
    "task_default_queue": JOBS_QUEUE,
    # The one table of what is sent when nobody asks.
    "beat_schedule": SCHEDULE,
    # A clock that is set back delays nothing.
    "beat_scheduler": "orchestrator.beat_scheduler:SteadyScheduler",
    # JSON only: a pickle from the broker would be code.
    "accept_content": ["json"],
    "task_serializer": "json",
    "result_serializer": "json",
}

RESULTS: Final[dict[str, Any]] = {
    # The database keeps results; the backend only tells them.
    "result_expires": 24 * 3600,
    # One pool of connections for all threads of a worker; without it each thread keeps one of its own.
    "result_backend_thread_safe": True,
    # A Redis that restarts loses no news: tried again for some 2.5 s, where Celery's own is to give up at once, and its
    # poller would wait for ever.
    "result_backend_always_retry": True,
    "result_backend_max_retries": 8,
    # A Redis that went silent is noticed, not waited for.
    "redis_socket_timeout": 2,
    "redis_socket_connect_timeout": 2,
    "redis_socket_keepalive": True,
    "redis_backend_health_check_interval": 25,
}

WORKER: Final[dict[str, Any]] = {
    # Jobs wait, they do not compute: greenlets of one event loop hold thousands of them in one process, at a third of
    # what a message costs on threads (docs/decisions/0019-greenlets-and-plain-calls.md).
    "worker_pool": "orchestrator.greenlet_pool:TaskPool",
    # Acknowledge when the outcome is stored. A message delivered twice is harmless: the ledger's fence sees to it.
    "task_acks_late": True,
    # Would put a job that kills its worker back for ever; the ledger counts its crashes instead.
    "task_reject_on_worker_lost": False,
    # Reserve nothing: a reserved job would stay with a worker that cannot start it. As acknowledging is late, this is
    # all there is to it on RabbitMQ: as many messages unacknowledged as there are threads.
    "worker_prefetch_multiplier": 1,
    # A run goes on while the broker is away; delivered again meanwhile, it changes nothing.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    # Keeps a garbled message as evidence, where Celery's own only logs it.
    "worker_consumer": "orchestrator.consumer:EvidenceConsumer",
    # Flower asks for events when it runs; without it nobody pays for them.
    "worker_send_task_events": False,
}

CONNECTIONS: Final[dict[str, Any]] = {
    # A worker may be up before its broker.
    "broker_connection_retry_on_startup": True,
    # None is for ever: a worker outlives its broker, however long that is away.
    "broker_connection_max_retries": None,
    # An answer that is an error (RabbitMQ's to a message held too long, that of a Redis that is full) would else end
    # the worker; connecting anew does.
    "broker_channel_error_retry": True,
}

REDIS: Final[dict[str, Any]] = {
    # Each with a key of its own: what somebody publishes on the exchange would else come to both.
    # Who is full takes nothing: see consumer.Appetite.
    "task_queues": tuple(Queue(name, routing_key=name) for name in (JOBS_QUEUE, MAINTENANCE_QUEUE, BULK_QUEUE)),
}

REDIS_TRANSPORT: Final[dict[str, Any]] = {
    # How often kombu looks for messages of dead workers: interval x throttle seconds. Its own 10 x 10 is far too slow.
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
    # Who looks holds a lock, and may be killed with it: nobody would look for kombu's own 300 s. Two that look at once
    # do no harm.
    "unacked_mutex_expire": 5,
    # A broker that went silent is noticed, not waited for. Acknowledging goes over several connections, one after the
    # other: each that is half open costs this.
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
}

RABBITMQ: Final[dict[str, Any]] = {
    # Kept by a majority of the nodes, and on disk before they are confirmed.
    "task_queues": tuple(QuorumQueue(name) for name in (JOBS_QUEUE, MAINTENANCE_QUEUE, BULK_QUEUE)),
    # Unconfirmed, what is sent while RabbitMQ is short of memory or disk vanishes without a word.
    "broker_transport_options": {"confirm_publish": True},
    # A connection that went silent is noticed after two of these; Celery's own 120 is longer than a lease.
    "broker_heartbeat": 10,
    # After a reconnect Celery asks for fewer messages, and for more as runs end. For quorum queues RabbitMQ heeds only
    # the first of the two (celery #9512): a busy worker would go on with one job at a time, for ever.
    "worker_enable_prefetch_count_reduction": False,
    # Commands and events: RabbitMQ 4.3 refuses queues that are neither durable nor exclusive, as Celery's own are, and
    # an exclusive one locks a worker out that is back before its old connection is given up. They expire unused.
    "control_queue_durable": True,
    "event_queue_durable": True,
}

# A connection that lay in a pool may have been closed by the broker meanwhile. At once: kombu's own is after 2 s.
ONE_MORE_TRY: Final = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}


def build_sending_options(timeout_seconds: float) -> dict[str, Any]:
    """Transport options of a connection that only sends, and whose user does not wait for a broker gone silent."""
    if app.conf.broker_url.partition("://")[0] in REDIS_SCHEMES:
        return {**ONE_MORE_TRY, "socket_timeout": timeout_seconds, "socket_connect_timeout": timeout_seconds}
    # py-amqp waits for ever for an answer to a declaration, and reads on through its own `read_timeout`.
    return {**ONE_MORE_TRY, "on_open": partial(_limit_waiting, timeout_seconds)}


def _limit_waiting(timeout_seconds: float, connection: Any) -> None:
    connection.transport.sock.settimeout(timeout_seconds)
