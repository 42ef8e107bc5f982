"""Handles a message that asks for nothing but a call of one of our tasks, for a third of what Celery's own way costs.

Celery is made for every task there may be: one that comes later, expires, belongs to a chord, or is watched by signals.
Whatever asks for any of that goes Celery's own way. What is left, and that is nearly all, is to be read, called, told
and acknowledged; its result, its events and what `inspect` shows are the same.
"""

import json
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, time
from typing import Any, Final

import structlog
from celery import Task, signals
from celery.app.task import Context
from celery.exceptions import Ignore, Reject, WorkerLostError
from celery.utils.saferepr import saferepr
from celery.worker import state
from kombu.exceptions import EncodeError
from kombu.utils.encoding import safe_repr

from orchestrator.greenlet_pool import TaskPool

log = structlog.get_logger()

ASKS_FOR_MORE: Final = ("eta", "expires", "group", "stamped_headers", "compression")
"""Headers that Celery heeds when they say something."""
WATCHED_BY: Final = (
    signals.task_received,
    signals.task_prerun,
    signals.task_postrun,
    signals.task_success,
    signals.task_failure,
)
NOT_ASKED: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None, "called_directly": False}
"""A message asks for the former in its body, which asks for none; among its headers they are a mistake."""
RESULT_CHARACTERS: Final = 48
"""What Flower shows of a result: enough to find the job by."""


@dataclass(eq=False)
class PlainCall:
    """A call in hand, as Celery's counts and its `inspect` know a request."""

    message: Any
    task: Task
    arguments: Sequence[Any]
    options: Mapping[str, Any]
    id: str = field(init=False)
    name: str = field(init=False)
    hostname: str = ""
    began_at: float = field(default_factory=time)

    def __post_init__(self) -> None:
        self.id, self.name = self.message.headers["id"], self.task.name

    @property
    def stores_result(self) -> bool:
        ignored = self.message.headers.get("ignore_result")
        return not (self.task.ignore_result if ignored is None else ignored)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What `celery inspect active` shows."""
        headers = self.message.headers
        return {
            "id": self.id,
            "name": self.name,
            "type": self.name,
            "args": headers.get("argsrepr") if safe else self.arguments,
            "kwargs": headers.get("kwargsrepr") if safe else self.options,
            "hostname": self.hostname,
            "time_start": self.began_at,
            "acknowledged": False,
            "delivery_info": self.message.delivery_info,
            "worker_pid": os.getpid(),
        }


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended: what is to be heard of it, and what becomes of its message."""

    event: str | None
    fields: Mapping[str, Any] = field(default_factory=dict)
    is_taken: bool = True
    """False: the message goes back to its queue."""


def read_call(message: Any, tasks: Mapping[str, Task]) -> PlainCall | None:
    """The call that a message asks for; None if it asks for more, or cannot be read: Celery sees to it then."""
    headers = message.headers or {}
    task = tasks.get(headers.get("task", ""))
    if task is None or headers.get("id") is None or message.content_type != "application/json":
        return None
    if headers["id"] in state.revoked or any(headers.get(name) for name in ASKS_FOR_MORE):
        return None
    # A limit of its rate may be set by `celery control rate_limit` while the worker runs.
    if task.rate_limit or any(headers.get("timelimit") or ()) or any(signal.receivers for signal in WATCHED_BY):
        return None
    return _read_body(message, task)


def _read_body(message: Any, task: Task) -> PlainCall | None:
    try:
        body = message.body if isinstance(message.body, str) else message.body.decode()
        # kombu's mark of a value that JSON does not know.
        if '"__type__"' in body:
            return None
        arguments, options, embedded = json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return None
    if not (isinstance(arguments, list) and isinstance(options, dict) and isinstance(embedded, dict)):
        return None
    return None if any(embedded.values()) else PlainCall(message, task, arguments, options)


class PlainCalls:
    """Of one consumer."""

    def __init__(
        self, pool: TaskPool, tasks: Mapping[str, Task], events: Any, hostname: str, connection_errors: tuple[Any, ...]
    ) -> None:
        """`events` is Celery's dispatcher of events; None where it has none."""
        self._pool = pool
        self._tasks = tasks
        self._events = events
        self._hostname = hostname
        self._connection_errors = connection_errors

    def take(self, message: Any) -> bool:
        """Begin the call that a message asks for; False where Celery is to see to it. On Celery's thread, as `_end`."""
        call = read_call(message, self._tasks)
        if call is None:
            return False
        call.hostname = self._hostname
        state.task_reserved(call)
        state.task_accepted(call)
        headers = message.headers
        known = {name: headers.get(name) for name in ("root_id", "parent_id", "retries")}
        shown = {"args": headers.get("argsrepr"), "kwargs": headers.get("kwargsrepr")}
        self._tell(call, "task-received", name=call.name, **shown, **known)
        self._tell(call, "task-started")
        self._pool.begin(call.name, partial(self._call, call), partial(self._end, call))
        return True

    def _call(self, call: PlainCall) -> Ended:
        """On the event loop, where it stands aside whenever the task does."""
        context = Context(call.message.headers, **NOT_ASKED, hostname=self._hostname, is_eager=False, headers={})
        began_at = monotonic()
        call.task.request_stack.push(context)
        try:
            result = call.task.run(*call.arguments, **call.options)
        except Ignore:
            return Ended(None)
        except Reject as rejection:
            return Ended("task-rejected", {"requeue": rejection.requeue}, is_taken=not rejection.requeue)
        except SystemExit as error:  # it would end the event loop
            return self._fail(call, context, WorkerLostError(repr(error)))
        except Exception as error:  # noqa: BLE001 - it is told to whoever waits, and logged unless it was expected
            return self._fail(call, context, error)
        finally:
            call.task.request_stack.pop()
        return self._succeed(call, context, result, began_at)

    def _succeed(self, call: PlainCall, context: Context, result: object, began_at: float) -> Ended:
        try:
            self._store(call, partial(call.task.backend.mark_as_done, call.id, result, request=context))
        except EncodeError as error:
            return self._fail(call, context, error)
        shown = saferepr(result, RESULT_CHARACTERS) if self._has_listeners() else None
        return Ended("task-succeeded", {"result": shown, "runtime": monotonic() - began_at})

    def _fail(self, call: PlainCall, context: Context, error: Exception) -> Ended:
        told = "".join(traceback.format_exception(error))
        if not isinstance(error, call.task.throws):
            log.error("task_failed", task=call.name, task_id=call.id, exc_info=error)
        self._store(call, partial(call.task.backend.mark_as_failure, call.id, error, traceback=told, request=context))
        return Ended("task-failed", {"exception": safe_repr(error), "traceback": told})

    def _store(self, call: PlainCall, store: Callable[[], object]) -> None:
        """Where the backend does not take it for as long as it is tried, pollers wait on: the database has the result.

        Whatever it raises, the message is done with: it would else be in this worker's hand for ever.

        Raises:
            EncodeError: the result is not JSON, which is told as a failure.
            CancelledError: the worker is stopping; with it goes its connection, and the message comes back.
        """
        if not call.stores_result:
            return
        try:
            store()
        except (EncodeError, CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - logged; nobody else would hear of it
            log.warning("result_not_told", task_ids=[call.id], error=repr(error))

    def _end(self, call: PlainCall, ended: Ended) -> None:
        state.task_ready(call)
        if ended.is_taken:
            call.message.ack_log_error(log, self._connection_errors)
        else:
            call.message.reject_log_error(log, self._connection_errors, requeue=True)
        if ended.event is not None:
            self._tell(call, ended.event, **ended.fields)

    def _tell(self, call: PlainCall, event: str, **fields: Any) -> None:
        if self._has_listeners() and call.task.send_events:
            self._events.send(event, uuid=call.id, **fields)

    def _has_listeners(self) -> bool:
        events = self._events
        return bool(events is not None and events.enabled and (not events.groups or "task" in events.groups))
