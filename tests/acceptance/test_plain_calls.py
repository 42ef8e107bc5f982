"""Operators see through Celery's own tools what the worker does, though most of it goes past Celery's own code."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from tests.acceptance.yard import Reply, Yard, build_message, wait_until


def test_inspect_shows_what_runs_by_name_and_id(yard: Yard) -> None:
    yard.model.delay_seconds = 600
    yard.start_worker()
    (running,) = yard.send(["running"])
    wait_until(lambda: yard.model.calls["running"] == 1, seconds=20)

    def ask(command: str, **options: Any) -> Any:
        (answer,) = yard.producer().control.broadcast(command, options, reply=True, timeout=10, limit=1)
        return answer["worker@test"]

    (active,) = ask("active")
    assert (active["name"], active["id"]) == ("handle_message", running.task_id)
    assert active["args"][0]["content"] == "running"
    assert ask("reserved") == []
    assert ask("stats")["total"]["handle_message"] == 1
    assert ask("query_task", ids=[running.task_id])[running.task_id][0] == "active"


def test_events_arrive_once_somebody_asks_for_them(yard: Yard) -> None:
    yard.start_worker()
    app = yard.producer()
    yard.send(["unheard"])[0].get(timeout=20)
    seen: list[dict[str, Any]] = []

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        with receiver.consumer_context(wakeup=False) as (listening, *_):
            assert app.control.enable_events(reply=True, timeout=10, limit=1)
            (heard,) = yard.send(["heard"])
            heard.get(timeout=20)

            def hears_the_end() -> bool:
                with suppress(TimeoutError):
                    listening.drain_events(timeout=1)
                return any(event["type"] == "task-succeeded" for event in seen)

            wait_until(hears_the_end, seconds=20)
    about_tasks = [event for event in seen if event["type"].startswith("task-")]
    assert [event["type"] for event in about_tasks] == ["task-received", "task-started", "task-succeeded"]
    assert {event["uuid"] for event in about_tasks} == {heard.task_id}, "nobody listened to the first"


def test_what_came_too_late_is_not_run_and_told_revoked(yard: Yard) -> None:
    yard.start_worker()
    task_id = str(uuid4())
    past = datetime.now(UTC) - timedelta(minutes=1)
    yard.producer().send_task("handle_message", [build_message("late")], task_id=task_id, expires=past)
    reply = Reply(yard.redis_url, task_id)
    wait_until(lambda: reply.state == "REVOKED", seconds=20)
    assert yard.send(["next"])[0].get(timeout=20)["state"] == "succeeded"
    assert yard.model.calls == {"next": 1}
    assert yard.count("select count(*) from jobs where state = 'cancelled'") == 1
