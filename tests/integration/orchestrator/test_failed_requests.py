"""What could not be done now, and what could not be taken in at all."""

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from llm_pool.client.failed_requests import LONGEST_ASKED_SECONDS, decide_wait_seconds
from orchestrator.failed_requests import store
from orchestrator.failed_requests.replay import send_back
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import Claim
from orchestrator.outcomes import Failed, Parked, Succeeded
from shared.database import Database
from shared.errors import InputError
from tests.builders import build_message
from tests.ledger import Jobs
from tests.running import build_recorder

ANSWER = Succeeded({"content": "fine"})
FAILURE = Failed({"error": {"type": "T", "message": "m"}})

WAIT = "select extract(epoch from next_try_at - updated_at) from failed_requests order by updated_at desc limit 1"


class Outage:
    """Parks jobs, and lets a test act as the worker that gets them back."""

    def __init__(self, database: Database, jobs: Jobs) -> None:
        self.database = database
        self.jobs = jobs
        self.recorder = build_recorder(database)

    async def park(self, claim: Claim | None = None, retry_after_seconds: float | None = None) -> tuple[UUID, Claim]:
        claim = claim or await self.jobs.start()
        parked = await self.recorder.record(claim, Parked("LLMOverloadedError", "down", retry_after_seconds))
        assert isinstance(parked, Parked)
        assert parked.result
        return UUID(parked.result["failed_request_id"]), claim

    async def replay(self, claim: Claim) -> Claim:
        async with self.database.as_system() as connection:
            assert [job.job_id for job in await send_back(connection, [claim.job_id])] == [claim.job_id]
        replay = await self.jobs.claim(claim.job_id)
        assert replay
        return replay


@pytest.fixture
def outage(database: Database, jobs: Jobs) -> Outage:
    return Outage(database, jobs)


async def test_a_parked_job_says_where_and_until_when(outage: Outage, superuser: asyncpg.Connection) -> None:
    request_id, claim = await outage.park(retry_after_seconds=60)
    job = await outage.jobs.find(claim.job_id)
    assert (job.state, job.failed_request_id, job.result) == (JobState.PARKED, request_id, None)
    row = await superuser.fetchrow("select *, next_try_at - now() as left from failed_requests")
    assert (row["state"], row["parks"], row["operation"]) == ("parked", 1, "message")
    assert (row["error_type"], row["error_message"]) == ("LLMOverloadedError", "down")
    assert 55 < row["left"].total_seconds() <= 60


async def test_parked_again_it_keeps_its_id(outage: Outage, superuser: asyncpg.Connection) -> None:
    request_id, claim = await outage.park()
    again, _ = await outage.park(await outage.replay(claim))
    assert again == request_id
    assert tuple(await superuser.fetchrow("select state, parks from failed_requests")) == ("parked", 2)


async def test_who_comes_back_again_and_again_waits_longer_each_time(
    outage: Outage, superuser: asyncpg.Connection
) -> None:
    _, claim = await outage.park()
    waits = [await read_wait(superuser)]
    for _ in range(8):
        claim = await outage.replay(claim)
        await outage.park(claim)
        waits.append(await read_wait(superuser))
    assert waits == [5, 10, 20, 30, 30, 30, 30, 30, 30]
    assert waits == [decide_wait_seconds(None, tries) for tries in range(9)]


async def test_what_the_provider_asks_for_wins_when_it_is_longer(outage: Outage, superuser: asyncpg.Connection) -> None:
    for asked, wait in [(0.5, 5), (86_400.0 * 2, 86_400 * 2), (1e300, LONGEST_ASKED_SECONDS), (-1.0, 5)]:
        await outage.park(retry_after_seconds=asked)
        assert await read_wait(superuser) == wait == decide_wait_seconds(asked, 0)


async def read_wait(superuser: asyncpg.Connection) -> float:
    """As it was when it was parked."""
    return float(await superuser.fetchval(WAIT))


@pytest.mark.parametrize(("named", "group"), [(None, "quality"), ("fast", "fast")])
async def test_it_waits_for_the_group_of_its_message_or_else_of_its_agent(
    outage: Outage, superuser: asyncpg.Connection, named: str | None, group: str
) -> None:
    claim = await outage.jobs.add_and_claim(build_message(model=named))
    assert claim
    await outage.park(claim)
    assert await superuser.fetchval("select model from failed_requests") == group


@pytest.mark.parametrize(("outcome", "state"), [(ANSWER, "answered"), (FAILURE, "discarded")])
async def test_the_end_of_the_job_settles_it(
    outage: Outage, superuser: asyncpg.Connection, outcome: Any, state: str
) -> None:
    _, claim = await outage.park()
    await outage.recorder.record(await outage.replay(claim), outcome)
    assert await superuser.fetchval("select state from failed_requests") == state


@pytest.mark.parametrize(
    ("evidence", "kept"),
    [
        ("plain", "plain"),
        ("", ""),
        (b"\xff\x00", "b'\\xff\\x00'"),
        ("a\x00b", "a\\x00b"),
        ("\ud800", "\\ud800"),
        ({"a": [None, float("nan")]}, "{'a': [None, nan]}"),
        (None, "None"),
        ("x" * 10_000_000, "x" * 10_000),
        (["\x00\ud800"] * 9, "['\\x00\\ud800', "),
    ],
    ids=range(9),
)
async def test_anything_can_be_evidence(
    database: Database, superuser: asyncpg.Connection, evidence: object, kept: str
) -> None:
    error = InputError("message", "is not JSON", "send JSON")
    async with database.as_system() as connection:
        await store.keep_rejected(connection, task_id="task-1", error=error, evidence=evidence)
    row = await superuser.fetchrow("select task_id, error ->> 'problem' as problem, evidence from rejected_messages")
    assert (row["task_id"], row["problem"]) == ("task-1", "is not JSON")
    assert row["evidence"].startswith(kept)
    assert len(row["evidence"]) <= 10_000
