"""What many runs claim and how they end is one commit; each gets its own answer, and a bad step fails alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from orchestrator.group_commit import GroupCommit
from orchestrator.jobs.endings import Ending
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import Claim
from orchestrator.messages import Message
from shared.database import Database, create_engine
from shared.errors import NotFoundError
from tests.builders import build_message
from tests.ledger import ANSWERED, FAILED, Jobs
from tests.running import open_ledger

SECOND_TENANT = "insert into tenants (id, name, default_agent_id) values ('acme', 'Acme', 'x')"
COMMITTED = "select count(distinct xmin::text) from runs"


@pytest.fixture
def ledger(database: Database) -> GroupCommit:
    return open_ledger(database)


class LockedOut(Database):
    """A tenant's group always loses against another one."""

    def as_tenant(self, tenant_id: str, settings: str = "") -> AbstractAsyncContextManager[AsyncConnection]:
        if settings:
            raise asyncpg.DeadlockDetectedError("deadlock detected")
        return super().as_tenant(tenant_id)


@pytest.fixture
async def locked_out(database_url: str) -> AsyncIterator[Database]:
    opened = LockedOut(create_engine(database_url), create_engine(database_url))
    yield opened
    await opened.aclose()


async def add(jobs: Jobs, message: Message) -> UUID:
    job_id = await jobs.add(message)
    assert job_id
    return job_id


def messages(count: int) -> list[Message]:
    return [build_message(id=f"m-{n}") for n in range(count)]


async def claim_all(ledger: GroupCommit, asked: list[Message]) -> list[Claim]:
    claims = await asyncio.gather(*(ledger.claim_new(message, f"task-{message.id}") for message in asked))
    assert all(claims)
    return [claim for claim in claims if claim]


async def test_claims_of_many_messages_are_one_commit(ledger: GroupCommit, superuser: asyncpg.Connection) -> None:
    asked = messages(50)
    claims = await claim_all(ledger, asked)
    assert [claim.message for claim in claims] == asked
    assert {claim.run for claim in claims} == {1}
    assert await superuser.fetchval(COMMITTED) == 1


async def test_ends_and_claims_are_one_commit(ledger: GroupCommit, superuser: asyncpg.Connection) -> None:
    first = await claim_all(ledger, messages(3))
    more = build_message(id="another")
    *recorded, claim = await asyncio.gather(
        *(ledger.end(each, ANSWERED) for each in first), ledger.claim_new(more, "task-x")
    )
    assert [each.counts for each in recorded] == [True] * 3
    assert claim
    assert await superuser.fetchval(COMMITTED) == 1, "three runs ended and one began"


async def test_a_job_that_has_its_row_comes_with_what_its_tenant_asked(ledger: GroupCommit, jobs: Jobs) -> None:
    asked = [build_message(id="a", content="first"), build_message(id="b", content="second")]
    ids = [await jobs.add(message) for message in asked]
    claims = await asyncio.gather(*(ledger.claim(job_id, "task-1") for job_id in ids if job_id))
    assert [claim and claim.message.content for claim in claims] == ["first", "second"]


async def test_a_slice_is_claimed_in_one_commit_with_what_its_tenant_asked(
    ledger: GroupCommit, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    ids = [await add(jobs, build_message(id=f"m-{n}", content=f"question {n}")) for n in range(20)]
    claims = await ledger.claim_slice("default", ids)
    assert {claim.job_id: claim.message.content for claim in claims} == {
        job_id: f"question {n}" for n, job_id in enumerate(ids)
    }
    assert {(claim.tenant_id, claim.run) for claim in claims} == {("default", 1)}
    assert await superuser.fetchval(COMMITTED) == 1


async def test_of_a_slice_only_what_is_queued_and_its_tenants_is_claimed(
    ledger: GroupCommit, jobs: Jobs, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(SECOND_TENANT)
    queued = await add(jobs, build_message(id="a"))
    others = await add(jobs, build_message(id="b", tenant_id="acme"))
    running = (await jobs.start()).job_id
    claims = await ledger.claim_slice("default", [queued, others, running, uuid7()])
    assert [claim.job_id for claim in claims] == [queued]
    assert await ledger.claim_slice("default", [queued]) == [], "it has a run now"


async def test_a_slice_that_was_locked_out_is_claimed_one_by_one(locked_out: Database, jobs: Jobs) -> None:
    ids = [await add(jobs, build_message(id=f"m-{n}")) for n in range(3)]
    claims = await open_ledger(locked_out).claim_slice("default", ids)
    assert [claim.job_id for claim in claims] == ids


async def test_what_is_not_queued_is_not_claimed(ledger: GroupCommit, jobs: Jobs) -> None:
    claim = await jobs.start()
    assert await ledger.claim(claim.job_id, "task-1") is None
    assert await ledger.claim(uuid7(), "task-1") is None


async def test_the_same_message_twice_in_one_group_is_one_job_and_one_run(ledger: GroupCommit) -> None:
    message = build_message()
    claims = await asyncio.gather(ledger.claim_new(message, "task-1"), ledger.claim_new(message, "task-2"))
    assert sum(claim is not None for claim in claims) == 1


async def test_a_message_that_was_sent_before_runs_as_it_was_stored(ledger: GroupCommit, jobs: Jobs) -> None:
    await jobs.add(build_message(id="m", content="as it was"))
    claim = await ledger.claim_new(build_message(id="m", content="as it is now"), "task-2")
    assert claim
    assert claim.message.content == "as it was"


async def test_an_unknown_tenant_fails_alone(ledger: GroupCommit) -> None:
    good, bad = await asyncio.gather(
        ledger.claim_new(build_message(), "task-1"),
        ledger.claim_new(build_message(tenant_id="nobody"), "task-2"),
        return_exceptions=True,
    )
    assert isinstance(good, Claim)
    assert isinstance(bad, NotFoundError)
    assert bad.field == "tenant_id"


@pytest.mark.parametrize("unstorable", ["\x00", "\ud800"])
async def test_a_row_the_database_refuses_fails_alone(
    ledger: GroupCommit, superuser: asyncpg.Connection, unstorable: str
) -> None:
    claims = await claim_all(ledger, messages(3))
    refused = Ending(JobState.SUCCEEDED, "succeeded", {"content": unstorable})
    *good, bad = await asyncio.gather(
        ledger.end(claims[0], ANSWERED), ledger.end(claims[1], FAILED), ledger.end(claims[2], refused),
        return_exceptions=True,
    )  # fmt: skip
    assert [getattr(each, "counts", None) for each in good] == [True, True]
    assert isinstance(bad, asyncpg.PostgresError)
    assert await superuser.fetchval("select count(*) from results") == 2


async def test_a_run_that_lost_its_job_is_told_so(ledger: GroupCommit, jobs: Jobs) -> None:
    claim = await jobs.start()
    assert (await ledger.end(claim, ANSWERED)).counts
    assert not (await ledger.end(claim, FAILED)).counts


async def test_who_else_waits_is_told_with_the_end(ledger: GroupCommit, jobs: Jobs) -> None:
    claim = await jobs.start()
    await jobs.wait_for(claim.job_id, "task-2")
    assert (await ledger.end(claim, ANSWERED)).waiting_tasks == ("task-2",)


@pytest.mark.parametrize(("ending", "state"), [(ANSWERED, "answered"), (FAILED, "discarded")])
async def test_a_replayed_jobs_failed_request_ends_with_it(
    ledger: GroupCommit, jobs: Jobs, superuser: asyncpg.Connection, ending: Ending, state: str
) -> None:
    first = await jobs.start()
    await superuser.execute("update jobs set state = 'queued'; delete from leases")
    await superuser.execute(
        "insert into failed_requests (id, tenant_id, job_id, state, parks, next_try_at, error_type, error_message)"
        f" values (gen_random_uuid(), 'default', '{first.job_id}', 'replaying', 1, now(), 'T', 'm')"
    )
    again = await ledger.claim(first.job_id, "task-1")
    assert again
    await ledger.end(again, ending)
    assert await superuser.fetchval("select state from failed_requests") == state
