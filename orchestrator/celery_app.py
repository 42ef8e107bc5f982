"""The Celery application: broker, queues, and each setting that is not Celery's own, with its reason.

Read when Celery first asks for it, not at import, so that a wrong environment stops the program with one sentence
and a test may import tasks without any.
"""

from typing import Any, Final

from celery import Celery
from kombu.entity import Queue

from orchestrator import redis_transport
from orchestrator.beat import MAINTENANCE_QUEUE, SCHEDULE
from shared.errors import ConfigurationError
from shared.settings import load_settings

# kombu remembers a transport from its first use on, so before anything can connect.
redis_transport.install()

app = Celery("llmyard", include=["orchestrator.tasks", "orchestrator.worker"])


@app.add_defaults
def read_configuration() -> dict[str, Any]:
    """Celery's configuration from the environment; a `SystemExit` with one sentence where that cannot be."""
    try:
        settings = load_settings()
        addresses = {"broker_url": settings.require_broker_url(), "result_backend": settings.require_redis_url()}
    except ConfigurationError as error:
        raise SystemExit(f"llmyard: {error}") from error
    return {
        **QUEUES,
        **WORKER,
        **CONNECTIONS,
        **addresses,
        "worker_concurrency": settings.llmyard_concurrency,
        "broker_transport_options": {
            **TRANSPORT,
            # A message whose worker died before it was a row comes back after this long; as a lease does, once it is
            # one. Coming back while its job still runs changes nothing.
            "visibility_timeout": settings.llmyard_lease_seconds,
        },
    }


QUEUES: Final[dict[str, Any]] = {
    # A producer needs nothing but send_task("handle_message", [message]), so jobs come on Celery's default queue.
    "task_default_queue": "celery",
    "task_queues": (Queue("celery"), Queue(MAINTENANCE_QUEUE)),
    "beat_schedule": SCHEDULE,
    # JSON only: a pickle from the broker would be code.
    "accept_content": ["json"],
    "task_serializer": "json",
    "result_serializer": "json",
    # The database keeps results; the backend only tells them.
    "result_expires": 24 * 3600,
}

WORKER: Final[dict[str, Any]] = {
    # Jobs wait, they do not compute: threads over one event loop hold a thousand of them in one process.
    "worker_pool": "threads",
    # Acknowledge when the outcome is stored. A message delivered twice is harmless: the ledger's fence sees to it.
    "task_acks_late": True,
    # Would put a job that kills its worker back for ever; the ledger counts its crashes instead.
    "task_reject_on_worker_lost": False,
    # Reserve nothing: a reserved job would stay with a worker that cannot start it.
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    # A run goes on while the broker is away; delivered again meanwhile, it changes nothing.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    # Keeps a garbled message as evidence, where Celery's own only logs it.
    "worker_consumer": "orchestrator.worker:EvidenceConsumer",
    # Flower lives on events.
    "worker_send_task_events": True,
}

TRANSPORT: Final[dict[str, Any]] = {
    # How often kombu looks for messages of dead workers: interval x throttle seconds. Its own 10 x 10 is far too slow.
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
    # Who looks holds a lock, and may be killed with it: nobody would look for kombu's own 300 s. Two that look at once
    # do no harm.
    "unacked_mutex_expire": 5,
    # A broker that went silent is noticed, not waited for.
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 25,
}

CONNECTIONS: Final[dict[str, Any]] = {
    "broker_connection_retry_on_startup": True,
    # None is for ever: a worker outlives its broker, however long that is away.
    "broker_connection_max_retries": None,
    "redis_socket_timeout": 30,
    "redis_socket_connect_timeout": 5,
    "redis_socket_keepalive": True,
    "redis_backend_health_check_interval": 25,
}
