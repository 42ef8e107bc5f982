"""What asks for more than a call is Celery's to handle, and is left to it untouched."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from celery import signals
from celery.worker import state
from kombu.message import Message

from orchestrator.plain_calls import read_call
from tests.unit.orchestrator.two_ways import TwoWays, open_two_ways


def answer(*_: Any) -> None:
    pass


@pytest.fixture
def yard() -> Iterator[TwoWays]:
    with open_two_ways() as opened:
        yield opened


def _with(yard: TwoWays, **headers: Any) -> Message:
    message = yard.message()
    message.headers.update(headers)
    return message


ETA: Final = "2099-01-01T00:00:00+00:00"
LEFT: Final[dict[str, Callable[[TwoWays], Message]]] = {
    "no headers": lambda yard: yard.raw_message(b"[[], {}, {}]", {}),
    "protocol 1": lambda yard: yard.raw_message(json.dumps(yard.app.amqp.as_task_v1("i", "called", [])[2]), {}),
    "no id": lambda yard: _with(yard, id=None),
    "unknown task": lambda yard: yard.message(task="nobody's"),
    "later": lambda yard: _with(yard, eta=ETA),
    "expires": lambda yard: _with(yard, expires=ETA),
    "of a group": lambda yard: _with(yard, group="g"),
    "stamped": lambda yard: _with(yard, stamped_headers=["s"]),
    "compressed": lambda yard: _with(yard, compression="gzip"),
    "time limit": lambda yard: _with(yard, timelimit=[None, 5]),
    "not JSON": lambda yard: yard.raw_message(b"x", yard.message().headers, content_type="text/plain"),
    "garbage": lambda yard: yard.raw_message(b"[[], {", yard.message().headers),
    "bytes that are no text": lambda yard: yard.raw_message(b'[["\xff"], {}, {}]', yard.message().headers),
    "too deep": lambda yard: yard.raw_message(b"[" * 100_000, yard.message().headers),
    "two parts": lambda yard: yard.raw_message(b"[[], {}]", yard.message().headers),
    "a mapping of three": lambda yard: yard.raw_message(b'{"a": 1, "b": 2, "c": 3}', yard.message().headers),
    "arguments of another kind": lambda yard: yard.raw_message(b'["ab", {}, {}]', yard.message().headers),
    "options of another kind": lambda yard: yard.raw_message(b"[[], [], {}]", yard.message().headers),
    "callbacks": lambda yard: yard.raw_message(b'[[], {}, {"callbacks": [{}]}]', yard.message().headers),
    "a chord": lambda yard: yard.raw_message(b'[[], {}, {"chord": {"task": "t"}}]', yard.message().headers),
    "a date": lambda yard: yard.raw_message(
        b'[[{"__type__": "date", "__value__": "2026-01-01"}], {}, {}]', yard.message().headers
    ),
}


@pytest.mark.parametrize("reason", LEFT)
def test_what_asks_for_more_is_left_to_celery_untouched(yard: TwoWays, reason: str) -> None:
    yard.task(answer)
    assert read_call(yard.message(), yard.app.tasks) is not None
    message = LEFT[reason](yard)
    assert not yard.calls.take(message)
    assert (yard.channel.heard, yard.listener.sent, dict(state.requests)) == ([], [], {})


def test_what_was_revoked_is_left_to_celery(yard: TwoWays) -> None:
    yard.task(answer)
    message = yard.message()
    state.revoked.add(message.headers["id"])
    assert not yard.calls.take(message)


@contextmanager
def watched(signal: Any) -> Iterator[None]:
    def watcher(**_: Any) -> None:
        pass

    signal.connect(watcher, weak=False)
    yield
    signal.disconnect(watcher)


@pytest.mark.parametrize("name", ["task_received", "task_prerun", "task_postrun", "task_success", "task_failure"])
def test_where_somebody_watches_tasks_by_signals_celery_runs_them(yard: TwoWays, name: str) -> None:
    yard.task(answer)
    with watched(getattr(signals, name)):
        assert not yard.calls.take(yard.message())
    yard.run("ours", yard.message())


def test_where_somebody_limits_a_tasks_rate_celery_keeps_it(yard: TwoWays) -> None:
    yard.task(answer).rate_limit = "10/s"
    assert not yard.calls.take(yard.message())
