"""Most messages do not go Celery's own way: whoever polls, listens, inspects or counts must not be able to tell."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from celery import Task
from celery.exceptions import BackendStoreError, Ignore, Reject
from celery.worker import state
from kombu.message import Message
from structlog.testing import capture_logs

from orchestrator import event_loop
from orchestrator.plain_calls import PlainCalls
from tests.unit.orchestrator.two_ways import HOST, Listener, TwoWays, open_two_ways


class ExpectedError(Exception):
    pass


class UnshownError(Exception):
    def __repr__(self) -> str:
        raise ValueError("no word for it")


# What `inspect` shows of Celery's own requests.
SHOWN_OF_REQUESTS: Final = (
    *("id", "name", "type", "args", "kwargs", "hostname"),
    *("time_start", "acknowledged", "delivery_info", "worker_pid"),
)


@pytest.fixture
def yard() -> Iterator[TwoWays]:
    with open_two_ways() as opened:
        yield opened


def answer(*arguments: Any, **options: Any) -> dict[str, Any]:
    return event_loop.run(_answer_later(arguments, options))


async def _answer_later(arguments: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    return {"arguments": list(arguments), "options": options}


def answer_no_json() -> set[int]:
    return {1, 2}


def say_nothing() -> None:
    pass


def raising(error: BaseException) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> None:
        raise error

    return call


ENDS: Final[dict[str, Callable[..., Any]]] = {
    "success": answer,
    "success without a word": say_nothing,
    "expected": raising(ExpectedError("as foreseen")),
    "surprise": raising(KeyError("surprise")),
    "wrong arguments": say_nothing,
    "ignored": raising(Ignore()),
    "back to the queue": raising(Reject("stopping", requeue=True)),
}
ARGUMENTS: Final = {"success": ("one", {"two": "ü"}), "wrong arguments": ("only one",)}
STORED: Final = ("status", "result", "task_id", "children")
# What Flower shows; how much of a result, and whose lines a traceback has, may differ.
SHOWN: Final = ("uuid", "name", "args", "kwargs", "root_id", "parent_id", "exception", "requeue")


def see(yard: TwoWays, message: Message) -> dict[str, Any]:
    """All that anybody can see of how a message ended."""
    meta = yard.meta(message)
    return {
        "stored": meta and {name: meta[name] for name in STORED},
        "traceback": bool(meta and meta["traceback"]),
        "broker": yard.channel.heard,
        "events": [(name, {key: fields.get(key) for key in SHOWN}) for name, fields in yard.listener.sent],
        "in hand": (len(state.requests), len(state.active_requests), len(state.reserved_requests)),
        "counted": dict(state.total_count),
    }


@pytest.mark.parametrize("options", [{}, {"ignore_result": True}], ids=["told", "untold"])
@pytest.mark.parametrize("is_text", [True, False], ids=["text", "bytes"])
@pytest.mark.parametrize("end", ENDS)
def test_both_ways_end_alike(yard: TwoWays, end: str, is_text: bool, options: dict[str, Any]) -> None:
    yard.task(ENDS[end], throws=(ExpectedError,))
    first = yard.message(*ARGUMENTS.get(end, ()), is_text=is_text, **options)
    yard.run("celery", first)
    celerys = see(yard, first)
    yard.channel.heard, yard.listener.sent, yard.results.kept = [], [], {}
    state.total_count.clear()
    again = yard.raw_message(first.body, dict(first.headers), properties=first.properties)
    yard.run("ours", again)
    assert see(yard, again) == celerys
    assert celerys["in hand"] == (0, 0, 0)
    assert celerys["counted"] == {"called": 1}


@pytest.mark.parametrize("way", ["celery", "ours"])
@pytest.mark.parametrize(
    ("of_task", "of_message", "is_stored"),
    [(False, None, True), (True, None, False), (False, True, False), (True, False, True)],
)
def test_the_messages_own_word_on_its_result_goes_first(
    yard: TwoWays, way: str, of_task: bool, of_message: bool | None, is_stored: bool
) -> None:
    yard.task(answer, ignore_result=of_task)
    message = yard.message(ignore_result=False)
    message.headers["ignore_result"] = of_message
    yard.run(way, message)
    assert (yard.meta(message) is not None) == is_stored


@pytest.mark.parametrize("way", ["celery", "ours"])
def test_the_task_knows_its_own_id_even_where_several_wait(yard: TwoWays, way: str) -> None:
    seen = {}

    def remember(task: Task, name: str) -> None:
        event_loop.run(_answer_later((), {}))
        seen[name] = task.request.id

    task = yard.task(remember, bind=True)
    messages = {name: yard.message(name) for name in ("a", "b", "c")}
    for message in messages.values():
        {"ours": yard.take, "celery": yard.hand_to_celery}[way](message)
    while yard.pool.info["in-hand"]:
        yard.hub.turn()
    assert seen == {name: message.headers["id"] for name, message in messages.items()}
    assert task.request.id is None


def test_only_a_surprise_is_logged(yard: TwoWays) -> None:
    yard.task(ENDS["expected"], throws=(ExpectedError,))
    yard.task(ENDS["surprise"], name="surprising")
    with capture_logs() as logs:
        yard.run("ours", yard.message())
        yard.run("ours", yard.message(task="surprising"))
    assert [(line["event"], line["task"]) for line in logs] == [("task_failed", "surprising")]


@pytest.mark.parametrize("end", ["success", "surprise"])
def test_where_the_backend_is_away_the_message_is_done_with_and_that_is_logged(yard: TwoWays, end: str) -> None:
    yard.task(ENDS[end])
    yard.results.fault = BackendStoreError("away")
    with capture_logs() as logs:
        yard.run("ours", yard.message())
    assert "result_not_told" in {line["event"] for line in logs}
    assert yard.channel.heard == [("ack", False)]
    assert not state.requests


@pytest.mark.parametrize(
    "listener", [Listener(enabled=False), Listener(groups={"worker"})], ids=["switched off", "of others"]
)
def test_nobody_is_told_who_does_not_listen(yard: TwoWays, listener: Listener) -> None:
    yard.task(answer)
    yard.calls = PlainCalls(yard.pool, yard.app.tasks, listener, HOST, ())
    yard.run("ours", yard.message())
    assert not listener.sent
    yard.calls = PlainCalls(yard.pool, yard.app.tasks, None, HOST, ())
    yard.take(yard.message())


def test_a_task_that_sends_no_events_sends_none(yard: TwoWays) -> None:
    yard.task(answer, send_events=False)
    yard.run("ours", yard.message())
    assert not yard.listener.sent


def test_what_is_in_hand_is_shown_as_celery_shows_it(yard: TwoWays) -> None:
    yard.task(answer)
    message = yard.message("one")
    yard.take(message)
    (shown,) = [request.info() for request in state.active_requests]
    assert (shown["id"], shown["name"], shown["args"], shown["kwargs"]) == (
        message.headers["id"],
        "called",
        ["one"],
        {},
    )
    (safe,) = [request.info(safe=True) for request in state.active_requests]
    assert (shown["hostname"], set(shown)) == (HOST, set(SHOWN_OF_REQUESTS))
    assert safe["args"] == message.headers["argsrepr"]
    json.dumps([shown, safe])
    while state.requests:
        yard.hub.turn()


@pytest.mark.parametrize("end", ["not JSON", "cannot be shown"])
def test_what_cannot_be_told_as_it_is_ends_as_celery_ends_it(yard: TwoWays, end: str) -> None:
    yard.task({"not JSON": answer_no_json, "cannot be shown": raising(UnshownError())}[end])
    for way in ("celery", "ours"):
        yard.channel.heard = []
        message = yard.message()
        yard.run(way, message)
        meta = yard.meta(message)
        assert meta is not None
        assert (meta["status"], yard.channel.heard, len(state.requests)) == ("FAILURE", [("ack", False)], 0), way


@pytest.mark.parametrize("end", ["success", "surprise"])
def test_whatever_the_backend_raises_the_message_is_not_kept_for_ever(yard: TwoWays, end: str) -> None:
    """As Redis does when it is out of memory."""
    yard.task(ENDS[end])
    yard.results.fault = ValueError("OOM")
    with capture_logs() as logs:
        yard.run("ours", yard.message())
    assert "result_not_told" in {line["event"] for line in logs}
    assert (yard.channel.heard, len(state.requests)) == ([("ack", False)], 0)


def test_a_task_that_would_end_the_process_ends_alone(yard: TwoWays) -> None:
    yard.task(raising(SystemExit(3)))
    message = yard.message()
    yard.run("ours", message)
    meta = yard.meta(message)
    assert meta is not None
    assert (meta["status"], meta["result"]["exc_type"], len(state.requests)) == ("FAILURE", "WorkerLostError", 0)
    assert event_loop.run(_answer_later((), {})), "the loop goes on"


def test_what_a_producer_puts_among_the_headers_is_not_obeyed(yard: TwoWays) -> None:
    yard.task(raising(KeyError("surprise")))
    message = yard.message()
    message.headers |= {"errbacks": [{"task": "called"}], "chain": ["x"], "chord": {"task": "called"}}
    with capture_logs() as logs:
        yard.run("ours", message)
    assert [line["event"] for line in logs] == ["task_failed"]
    assert (yard.channel.heard, len(state.requests)) == ([("ack", False)], 0)
