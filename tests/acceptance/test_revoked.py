"""Celery's own revoke ends jobs: one that runs, one that no worker has seen yet, and one that comes back."""

import asyncio

from orchestrator.messages import parse_message
from shared.database import Database, create_engine
from tests.acceptance.yard import Yard, build_message, wait_until
from tests.ledger import Jobs


def test_a_revoked_task_is_a_cancelled_job_wherever_it_is(yard: Yard) -> None:
    yard.model.delay_seconds = 600
    # The heartbeat would tell too, ten seconds later.
    yard.environment |= {"LLMYARD_CONCURRENCY": "1", "LLMYARD_LEASE_SECONDS": "30"}
    worker = yard.start_worker()
    running, waiting = yard.send(["running", "waiting"])
    wait_until(lambda: yard.model.calls["running"] == 1, seconds=20)
    for reply in (waiting, running):
        yard.producer().control.revoke(reply.task_id, terminate=True)

    wait_until(lambda: yard.model.hung_up == 1, seconds=4)
    query = "select count(*) from jobs where state = 'cancelled'"
    wait_until(lambda: yard.count(query) == 2, seconds=10)
    wait_until(lambda: {running.state, waiting.state} == {"REVOKED"}, seconds=10)
    assert yard.model.calls == {"running": 1}
    yard.model.delay_seconds = 0
    assert yard.send(["next"])[0].get(timeout=20)["state"] == "succeeded"
    assert worker.exit_status() is None


def test_a_job_that_comes_back_under_a_revoked_task_is_cancelled_too(yard: Yard) -> None:
    """As one that was open when its revoke could not be written down: Celery drops each message that brings it."""
    yard.start_worker()
    app = yard.producer()
    assert app.control.revoke("the-task", reply=True, timeout=10, limit=1)
    job_id = asyncio.run(add(yard.database_url))
    app.send_task("run_job", ("default", job_id), task_id="the-task")
    wait_until(lambda: yard.count("select count(*) from jobs where state = 'cancelled'") == 1, seconds=10)
    assert not yard.model.calls


async def add(database_url: str) -> str:
    engine = create_engine(database_url)
    database = Database(engine, engine)
    job_id = await Jobs(database).add(parse_message(build_message("waiting")), task_id="the-task")
    await database.aclose()
    return str(job_id)
