"""Celery's way of handling a message and ours, side by side: real tasks, messages and pool, no broker."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from celery import Celery, Task
from celery.app import trace
from celery.backends.base import KeyValueStoreBackend
from celery.worker import state, strategy
from kombu.message import Message

from orchestrator.greenlet_pool import TaskPool
from orchestrator.plain_calls import PlainCalls

HOST: Final = "worker@test"


class Results(KeyValueStoreBackend):  # type: ignore[misc] # Celery publishes no types
    """Where pollers look, in memory."""

    def __init__(self, app: Celery) -> None:
        super().__init__(app=app)
        self.kept: dict[Any, Any] = {}
        self.fault: Exception | None = None

    def get(self, key: Any) -> Any:
        return self.kept.get(key)

    def set(self, key: Any, value: Any) -> None:
        if self.fault is not None:
            raise self.fault
        self.kept[key] = value


@dataclass
class Channel:
    """What a broker hears of its messages."""

    heard: list[tuple[str, bool]] = field(default_factory=list)
    no_ack_consumers: None = None

    def basic_ack(self, _tag: str, multiple: bool = False) -> None:
        self.heard.append(("ack", multiple))

    def basic_reject(self, _tag: str, requeue: bool = False) -> None:
        self.heard.append(("reject", requeue))


@dataclass
class Listener:
    """Celery's dispatcher of events, with somebody who listens."""

    enabled: bool = True
    groups: set[str] = field(default_factory=set)
    sent: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def send(self, event: str, **fields: Any) -> None:
        self.sent.append((event, fields))


class Hub:
    """Celery's loop, as far as the pool needs it."""

    def __init__(self) -> None:
        self.has_something = threading.Event()
        self.told: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.told.append(callback)
        self.has_something.set()

    def turn(self) -> None:
        assert self.has_something.wait(5), "nothing ended"
        self.has_something.clear()
        while self.told:
            self.told.pop(0)()


class TwoWays:
    """One process's pool, and both ways to it."""

    def __init__(self) -> None:
        self.app = Celery("plain-calls", broker="memory://", set_as_current=False)
        self.app.conf.update(task_acks_late=True, task_reject_on_worker_lost=False)
        self.results, self.channel, self.listener, self.hub = Results(self.app), Channel(), Listener(), Hub()
        self.pool = TaskPool(limit=4)
        self.pool.register_with_event_loop(self.hub)
        self.calls = PlainCalls(self.pool, self.app.tasks, self.listener, HOST, ())
        # What Celery's own way needs of a consumer.
        self.event_dispatcher, self.hostname, self.connection_errors = self.listener, HOST, ()
        self.controller, self.state, self.timer = self, state, self
        self.call_at = self.apply_eta_task = self._limit_task = self._limit_post_eta = None
        self.disable_rate_limits, self.task_buckets = True, dict[str, Any]()

    def task(self, function: Callable[..., Any], name: str = "called", **options: Any) -> Task:
        # Shared, it would be in each later app of this process.
        self.app.task(name=name, shared=False, **options)(function)
        task = self.app.tasks[name]
        task.backend = self.results
        task.__trace__ = trace.build_tracer(name, task, self.app.loader, HOST, app=self.app)
        return task

    def message(self, *arguments: Any, task: str = "called", is_text: bool = False, **options: Any) -> Message:
        """As a producer sends it."""
        headers, properties, body, _ = self.app.amqp.as_task_v2(str(uuid4()), task, list(arguments), **options)
        text = json.dumps(body)
        return self.raw_message(text if is_text else text.encode(), headers, properties=properties)

    def raw_message(self, body: Any, headers: dict[str, Any], **options: Any) -> Message:
        known: dict[str, Any] = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_tag": "tag"}
        address = {"exchange": "", "routing_key": "celery"}
        return Message(
            body=body,
            headers=headers,
            delivery_info=address,
            channel=self.channel,
            accept={"application/json"},
            **{**known, **options},
        )

    def take(self, message: Message) -> None:
        assert self.calls.take(message)

    def hand_to_celery(self, message: Message) -> None:
        handle = strategy.default(self.app.tasks[message.headers["task"]], self.app, self)
        handle(message, None, message.ack_log_error, message.reject_log_error, ())

    def on_task_request(self, request: Any) -> None:
        request.execute_using_pool(self.pool)

    def run(self, way: str, message: Message) -> None:
        {"ours": self.take, "celery": self.hand_to_celery}[way](message)
        while self.channel.heard == [] or self.pool.info["in-hand"]:
            self.hub.turn()

    def meta(self, message: Message) -> dict[str, Any] | None:
        kept = self.results.kept.get(self.results.get_key_for_task(message.headers["id"]))
        return json.loads(kept) if kept else None


@contextmanager
def open_two_ways() -> Iterator[TwoWays]:
    """Leave nothing behind in what Celery keeps for the whole process."""
    opened = TwoWays()
    opened.app.use_fast_trace_task = True
    trace._localized[:] = [opened.app._tasks, {"application/json"}, HOST]
    yield opened
    trace._localized.clear()
    state.reset_state()
