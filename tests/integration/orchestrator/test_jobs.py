"""One job in the ledger: taken in once, owned by one run, ended once."""

import asyncio
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from orchestrator.jobs.endings import Ending
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import Claim
from shared.errors import NotFoundError
from tests.builders import build_message
from tests.ledger import ANSWERED, FAILED, HANDED_BACK, OVERTAKE, PARKED, Jobs, count


async def test_the_same_message_twice_is_one_job(jobs: Jobs) -> None:
    message = build_message(id="m-1")
    job_id = await jobs.add(message)
    assert job_id
    assert await jobs.add(message, "task-2") is None
    claim = await jobs.add_and_claim(message, "task-3")
    assert claim
    assert (claim.job_id, claim.task_id) == (job_id, "task-1")
    assert set(await jobs.find_waiting_tasks(job_id)) == {"task-1", "task-3"}
    assert await jobs.add_and_claim(message, "task-4") is None, "it is in hand"


@pytest.mark.parametrize("enter", ["add", "add_and_claim"])
async def test_the_same_message_from_twenty_at_once_is_one_job(
    jobs: Jobs, superuser: asyncpg.Connection, enter: str
) -> None:
    message = build_message(id="m-1")
    entered = await asyncio.gather(*(getattr(jobs, enter)(message, f"task-{n}") for n in range(20)))
    assert len([one for one in entered if one]) == 1
    assert await count(superuser, "jobs") == await count(superuser, "messages") == 1


async def test_the_same_id_of_another_tenant_is_another_job(jobs: Jobs, superuser: asyncpg.Connection) -> None:
    await superuser.execute("insert into tenants (id, name, default_agent_id) values ('acme', 'Acme', 'x')")
    assert await jobs.add(build_message(id="m-1"))
    assert await jobs.add(build_message(id="m-1", tenant_id="acme"))


async def test_an_unknown_tenant_is_told_and_nothing_is_stored(jobs: Jobs, superuser: asyncpg.Connection) -> None:
    with pytest.raises(NotFoundError, match="no tenant 'nobody'"):
        await jobs.add(build_message(tenant_id="nobody"))
    assert await count(superuser, "jobs") == 0


async def test_taken_in_and_claimed_in_one_step(jobs: Jobs, superuser: asyncpg.Connection) -> None:
    message = build_message(context={"locale": "de"})
    claim = await jobs.add_and_claim(message)
    assert claim
    assert (claim.run, claim.message, claim.task_id) == (1, message, "task-1")
    row = await superuser.fetchrow(
        "select jobs.state, leases.*, lease_until - now() as left from leases join jobs on id = job_id"
    )
    assert (row["state"], row["worker"], row["run"]) == ("running", "w-1", 1)
    assert 25 < row["left"].total_seconds() <= 30
    assert await superuser.fetchval("select worker from runs where number = 1 and outcome is null") == "w-1"


async def test_a_claim_brings_the_message_back_as_it_came(jobs: Jobs) -> None:
    message = build_message(content="ü 😀 \x01", context={"history": [{"role": "user", "content": "hi"}]}, mood="fine")
    job_id = await jobs.add(message)
    assert job_id
    claim = await jobs.claim(job_id)
    assert claim
    assert (claim.message, claim.run, claim.tenant_id) == (message, 1, "default")


async def test_only_a_queued_job_is_claimed(jobs: Jobs) -> None:
    claim = await jobs.start()
    for ending in (PARKED, None):
        assert await jobs.claim(claim.job_id) is None
        if ending:
            await jobs.record(claim, ending)
    assert await jobs.claim(uuid7()) is None


async def test_a_claim_whose_reply_was_lost_is_asked_for_again(jobs: Jobs, superuser: asyncpg.Connection) -> None:
    job_id = await jobs.add(build_message())
    assert job_id
    claim_id = uuid7()
    first, again = await jobs.claim(job_id, claim_id), await jobs.claim(job_id, claim_id)
    assert first == again
    assert first
    assert await jobs.claim(job_id) is None, "another delivery to the same worker"
    assert await count(superuser, "runs") == 1
    await jobs.record(first, HANDED_BACK)
    successor = await jobs.claim(job_id)
    assert successor
    assert await jobs.claim(job_id, claim_id) is None, "its run is over"


async def test_a_claim_knows_the_crashes_before_it(jobs: Jobs, superuser: asyncpg.Connection) -> None:
    job_id = await jobs.add(build_message())
    assert job_id
    await superuser.execute("update jobs set crash_count = 3")
    claim = await jobs.claim(job_id)
    assert claim
    assert claim.crash_count == 3


async def test_two_claims_at_once_have_one_winner(jobs: Jobs, superuser: asyncpg.Connection) -> None:
    for _ in range(10):
        job_id = await jobs.add(build_message())
        assert job_id
        claims = await asyncio.gather(*(jobs.claim(job_id) for _ in range(5)))
        assert [claim.run for claim in claims if claim] == [1]
    assert await count(superuser, "runs") == 10


async def test_the_owner_records_everything_together(jobs: Jobs, superuser: asyncpg.Connection) -> None:
    claim = await jobs.start()
    assert await jobs.record(claim, ANSWERED)
    job = await jobs.find(claim.job_id)
    assert (job.state, job.result, job.run) == (JobState.SUCCEEDED, {"content": "fine"}, 1)
    assert job.finished_at
    assert await count(superuser, "leases") == 0
    assert await superuser.fetchval("select outcome from runs where ended_at is not null") == "succeeded"
    paid = await superuser.fetchrow(
        "select run, position, deployment, prompt_tokens, cost_usd, error_type from attempts"
    )
    assert tuple(paid) == (1, 1, "a", 3, Decimal("0.000000075"), None)


async def test_a_stale_run_changes_nothing_but_keeps_its_cost(jobs: Jobs, superuser: asyncpg.Connection) -> None:
    stale = await jobs.start()
    await superuser.execute(OVERTAKE)
    current = await jobs.claim(stale.job_id)
    assert current
    assert current.run == 2
    assert not await jobs.record(stale, ANSWERED)
    assert (await jobs.find(stale.job_id)).state is JobState.RUNNING
    assert (await count(superuser, "results"), await count(superuser, "attempts")) == (0, 1)
    assert await superuser.fetchval("select outcome from runs where number = 1") == "stale"
    assert await superuser.fetchval("select outcome from runs where number = 2") is None
    assert await jobs.record(current, FAILED)
    assert (await jobs.find(stale.job_id)).result == {"content": "sorry"}


async def test_recording_twice_pays_once(jobs: Jobs, superuser: asyncpg.Connection) -> None:
    claim = await jobs.start()
    assert await jobs.record(claim, ANSWERED)
    assert not await jobs.record(claim, ANSWERED)
    assert (await count(superuser, "attempts"), await count(superuser, "results")) == (1, 1)
    assert await superuser.fetchval("select outcome from runs") == "succeeded"


@pytest.mark.parametrize("final", [ANSWERED, FAILED])
@pytest.mark.parametrize("later", [ANSWERED, FAILED, PARKED, HANDED_BACK])
async def test_a_final_state_never_changes(jobs: Jobs, final: Ending, later: Ending) -> None:
    claim = await jobs.start()
    assert await jobs.record(claim, final)
    ended = await jobs.find(claim.job_id)
    assert not await jobs.record(claim, later)
    assert await jobs.claim(claim.job_id) is None
    assert await jobs.find(claim.job_id) == ended


async def test_two_endings_at_once_have_one_winner(jobs: Jobs, superuser: asyncpg.Connection) -> None:
    for _ in range(10):
        claim = await jobs.start()
        won = await asyncio.gather(*(jobs.record(claim, ending) for ending in (ANSWERED, FAILED, PARKED)))
        assert sum(won) == 1
    assert await superuser.fetchval("select max(n) from (select count(*) n from results group by job_id) x") == 1


@pytest.mark.parametrize(("ending", "state"), [(PARKED, "parked"), (HANDED_BACK, "queued")])
async def test_a_run_that_ends_without_an_end_of_the_job(
    jobs: Jobs, superuser: asyncpg.Connection, ending: Ending, state: str
) -> None:
    claim = await jobs.start()
    assert await jobs.record(claim, ending)
    row: Any = await superuser.fetchrow("select state, finished_at, crash_count from jobs")
    assert tuple(row) == (state, None, 0)
    assert (await count(superuser, "results"), await count(superuser, "leases")) == (0, 0)
    assert await superuser.fetchval("select outcome from runs") == ending.outcome


async def test_run_numbers_rise(jobs: Jobs) -> None:
    claim: Claim | None = await jobs.start()
    for number in range(2, 5):
        assert claim
        await jobs.record(claim, HANDED_BACK)
        claim = await jobs.claim(claim.job_id)
        assert claim
        assert claim.run == number
