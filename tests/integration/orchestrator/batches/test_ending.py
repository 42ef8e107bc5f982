"""Cancelling a batch, asking its failed lines again, and what tenants see of one another."""

from decimal import Decimal

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from orchestrator.agents.catalog import TenantProfile, save_tenants
from orchestrator.batches import answers, cancelling, retrying, store
from orchestrator.batches.feeding import feed
from orchestrator.batches.ids import build_job_id
from orchestrator.batches.records import BatchState
from orchestrator.jobs.lifecycle import JobState
from shared.database import Database
from shared.errors import ConflictError, LLMInvalidRequestError, NotFoundError
from tests.integration.orchestrator.batches.bulk_yard import BulkYard
from tests.ledger import ANSWERED, Jobs, count

LINES = [f'"q {n}"' for n in range(5)]


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch, broker: str) -> None:
    monkeypatch.setattr(cancelling, "LINES_AT_ONCE", 2)
    monkeypatch.setattr(retrying, "LINES_AT_ONCE", 2)


async def test_cancel_ends_what_has_not_ended(yard: BulkYard, jobs: Jobs, superuser: asyncpg.Connection) -> None:
    batch = (await yard.take_in(LINES)).batch
    done = await jobs.claim(build_job_id(batch.id, 1))
    running = await jobs.claim(build_job_id(batch.id, 2))
    assert done
    assert running
    assert await jobs.record(done, ANSWERED)
    assert (await yard.desk.cancel(batch)).state is BatchState.CANCELLED
    states = [row["state"] for row in await superuser.fetch("select state from jobs order by id")]
    assert states == ["succeeded", *["cancelled"] * 4]
    assert await count(superuser, "leases") == 0
    assert await count(superuser, "results") == 5
    assert not await jobs.record(running, ANSWERED), "its run can no longer answer"
    assert await feed(yard.database, 0) == []


async def test_what_was_cancelled_is_written_out_as_such(yard: BulkYard) -> None:
    batch = (await yard.take_in(LINES)).batch
    await yard.desk.cancel(batch)
    written = await yard.write_out(batch)
    assert {line["error"] for line in written} == {"Cancelled: the batch was cancelled while this was queued"}
    assert len(written) == 5


async def test_a_batch_whose_canceller_died_is_cancelled_by_the_feeder(
    yard: BulkYard, superuser: asyncpg.Connection
) -> None:
    batch = (await yard.take_in(LINES)).batch
    async with yard.database.as_tenant("default") as connection:
        await store.begin_cancel(connection, batch)
        await cancelling._cancel_some(connection, batch.id, batch.id)
    assert await count(superuser, "jobs where state = 'queued'") == 3
    assert await feed(yard.database, 0) == []
    assert await count(superuser, "jobs where state = 'queued'") == 0
    assert (await yard.desk.get("default", batch.id)).state is BatchState.CANCELLED


async def test_nothing_more_is_taken_into_a_batch_that_was_cancelled(yard: BulkYard) -> None:
    order = yard.build_order(yard.write_input(LINES))
    opened = await yard.desk.open(order)
    await yard.desk.cancel(opened.batch)
    await yard.desk.run(opened, None, yard.seen.append)
    batch = await yard.desk.get("default", opened.batch.id)
    assert (batch.state, batch.imported_lines, batch.total_lines) == (BatchState.CANCELLED, 0, 0)


async def test_cancelling_what_has_ended_changes_nothing(yard: BulkYard) -> None:
    batch = (await yard.take_in(LINES)).batch
    await yard.work()
    await feed(yard.database, 0)
    assert (await yard.desk.cancel(batch)).state is BatchState.DONE


async def fail_some(yard: BulkYard) -> None:
    """Lines 2 and 4 of five fail."""
    wrong = LLMInvalidRequestError("wrong")
    yard.pool.steps = ["fine", wrong, "fine", wrong, "fine"]
    await yard.work()
    await feed(yard.database, 0)
    yard.pool.steps = ["mended"]


async def test_failed_lines_are_asked_again_and_take_their_old_place(yard: BulkYard) -> None:
    batch = (await yard.take_in([*LINES, "{"])).batch
    await fail_some(yard)
    retry = await yard.desk.retry_failed(batch, None)
    assert retry
    assert (retry.lines, retry.batch.parent_id) == (2, batch.id)
    assert await yard.work() == 2
    written = await yard.write_out(batch)
    assert [line["content"] for line in written] == ["fine", "mended", "fine", "mended", "fine", None]
    assert [line["line"] for line in written] == [1, 2, 3, 4, 5, 6]
    assert (yard.seen[-1].failed, len(yard.pool.asked)) == (1, 7)


async def test_they_may_fail_and_be_asked_once_more(yard: BulkYard) -> None:
    batch = (await yard.take_in(LINES)).batch
    await fail_some(yard)
    await yard.desk.retry_failed(batch, None)
    yard.pool.asked, yard.pool.steps = [], ["mended", LLMInvalidRequestError("still wrong")]
    await yard.work()
    await feed(yard.database, 0)
    yard.pool.asked, yard.pool.steps = [], ["at last"]
    again = await yard.desk.retry_failed(batch, None)
    assert again
    assert again.lines == 1
    await yard.work()
    contents = [line["content"] for line in await yard.write_out(batch)]
    assert contents == ["fine", "mended", "fine", "at last", "fine"]
    await feed(yard.database, 0)
    assert await yard.desk.retry_failed(batch, None) is None, "every line has its answer"


async def test_lines_asked_again_hold_up_what_is_written_until_they_have_ended(yard: BulkYard) -> None:
    batch = (await yard.take_in(LINES)).batch
    await fail_some(yard)
    await yard.desk.retry_failed(batch, None)
    family = await yard.desk.show("default", batch.id)
    assert [overview.totals.states for overview in family] == [{"succeeded": 3, "failed": 2}, {"queued": 2}]
    assert family[0].reasons == [("LLMInvalidRequestError", 2, "wrong")]
    async with yard.database.as_tenant("default") as connection:
        written = await answers.read_answers(connection, [overview.batch for overview in family], 0, 100)
    assert [answer.line for answer in written] == [1]
    with pytest.raises(ConflictError, match="wait for its end, or cancel it"):
        await yard.desk.retry_failed(batch, None)


async def test_a_retry_that_was_interrupted_goes_on(yard: BulkYard, superuser: asyncpg.Connection) -> None:
    batch = (await yard.take_in(LINES)).batch
    yard.pool.steps = [LLMInvalidRequestError("wrong")]
    await yard.work()
    await feed(yard.database, 0)
    retry = await yard.desk.retry_failed(batch, None)
    assert retry
    await superuser.execute("delete from messages where job_id > $1", build_job_id(retry.batch.id, 2))
    await superuser.execute("delete from jobs where id > $1", build_job_id(retry.batch.id, 2))
    await superuser.execute(
        "update batches set imported_lines = 2, total_lines = null, state = 'importing' where parent_id is not null"
    )
    again = await yard.desk.retry_failed(batch, None)
    assert again
    assert (again.batch.id, again.lines) == (retry.batch.id, 3)
    assert await count(superuser, "jobs") == 10


async def test_a_retry_has_a_budget_of_its_own(yard: BulkYard, superuser: asyncpg.Connection) -> None:
    batch = (await yard.take_in(LINES, limit_usd=Decimal("5"))).batch
    await fail_some(yard)
    retry = await yard.desk.retry_failed(batch, Decimal("10"))
    assert retry
    purses = await superuser.fetch(
        "select distinct body #>> '{purse,name}', body #>> '{purse,limit_usd}' from messages"
    )
    assert {tuple(row) for row in purses} == {(f"batch:{batch.id}", "5"), (f"batch:{retry.batch.id}", "10")}


async def test_tenants_see_their_own_batches_only(yard: BulkYard, database: Database) -> None:
    await save_tenants(database, [TenantProfile("acme", "Acme", "a", ())])
    batch = (await yard.take_in(LINES)).batch
    assert await yard.desk.list_newest("acme", 10) == []
    with pytest.raises(NotFoundError, match="no batch"):
        await yard.desk.get("acme", batch.id)


async def test_the_system_role_reads_no_options(yard: BulkYard) -> None:
    await yard.take_in(LINES)
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with yard.database.as_system() as connection:
            await connection.execute(text("select options from batches"))


async def test_states_of_the_ledger_and_results_agree(yard: BulkYard, superuser: asyncpg.Connection) -> None:
    await yard.take_in([*LINES, "{"])
    await yard.work()
    rows = await superuser.fetch("select state, body ->> 'state' from jobs join results on job_id = id order by id")
    assert [tuple(row) for row in rows] == [(JobState.SUCCEEDED, "succeeded")] * 5 + [(JobState.FAILED, "failed")]
