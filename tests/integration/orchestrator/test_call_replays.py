"""The library's parked calls, answered by the workers without anybody asking for it."""

import asyncio
from uuid import UUID

import asyncpg
import pytest

from llm_pool.client.failed_requests import FailedRequest
from llm_pool.types import ChatMessage, CompletionRequest, CompletionResponse, EmbeddingRequest, EmbeddingResponse
from orchestrator.failed_requests.call_replays import MOST_AT_ONCE, CallReplayer
from orchestrator.failed_requests.calls import PostgresFailedCalls
from orchestrator.failed_requests.desk import FailedRequestDesk
from orchestrator.failed_requests.replay import discard_expired
from shared.attempts import Usage
from shared.database import Database
from shared.errors import LLMInvalidRequestError, LLMUnavailableError, NotFoundError
from tests.fakes.postgres_gate import PostgresGate
from tests.fakes.scripted_pool import ScriptedPool, Step

DOWN = LLMUnavailableError()
DUE = "update failed_calls set next_try_at = now() - interval '1 s'"
CALM = "insert into sweeps (name, ran_at, calm_since) values ('calls', now(), now() - interval '1 hour')"
GAP = "update sweeps set ran_at = now() - interval '40 s' where name = 'calls'"
CALM_AGAIN = "update sweeps set calm_since = now() - interval '1 min' where name = 'calls'"
RUN_OUT = "update failed_calls set lease_until = now() - interval '1 s'"
VECTORS = EmbeddingResponse(((1.0, 2.5),), "m", "p", "d", Usage(3, 0), 0.25, ())


class Pool(ScriptedPool):
    """Knows vectors too."""

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResponse:
        return VECTORS


class Fleet:
    """One worker's replayer, on a pool that follows a script."""

    def __init__(self, database: Database, superuser: asyncpg.Connection) -> None:
        self.database = database
        self.superuser = superuser
        self.calls = PostgresFailedCalls(database)

    async def park(self, content: str = "hello", model: str = "fast", tenant: str = "acme") -> str:
        request = CompletionRequest(model, (ChatMessage("user", content),), tenant_id=tenant)
        request_id = await self.calls.add("chat", request, DOWN)
        await self.superuser.execute(DUE)
        return request_id

    def worker(self, *steps: Step, is_held: bool = False) -> tuple[CallReplayer, Pool]:
        pool = Pool(*steps, is_held=is_held)
        return CallReplayer(self.database, pool), pool

    async def find(self, request_id: str) -> FailedRequest:
        found = await self.calls.find(request_id)
        assert found is not None
        return found


@pytest.fixture
def fleet(database: Database, superuser: asyncpg.Connection) -> Fleet:
    return Fleet(database, superuser)


async def test_a_parked_call_is_answered_by_a_worker(fleet: Fleet) -> None:
    chat = await fleet.park()
    embed = await fleet.calls.add("embed", EmbeddingRequest("embedding", ("one",), tenant_id="acme"), DOWN)
    await fleet.superuser.execute(DUE)
    worker, pool = fleet.worker("fine")
    assert await worker.start_due() == 2
    await worker.wait()
    assert [request.messages[0].content for request in pool.asked] == ["hello"]
    response = (await fleet.find(chat)).response
    assert isinstance(response, CompletionResponse)
    assert response.content == "fine"
    assert (await fleet.find(embed)).response == VECTORS


async def test_one_probe_then_twice_as_many_each_round(fleet: Fleet) -> None:
    for number in range(9):
        await fleet.park(str(number))
    worker, pool = fleet.worker("fine")
    waves = []
    while count := await worker.start_due():
        waves.append(count)
        await worker.wait()
    assert waves == [1, 2, 4, 2]
    assert pool.asked[0].messages[0].content == "0"


async def test_what_is_not_due_is_left_alone(fleet: Fleet) -> None:
    await fleet.park()
    await fleet.superuser.execute("update failed_calls set next_try_at = now() + interval '1 min'")
    worker, _ = fleet.worker("fine")
    assert await worker.start_due() == 0


async def test_one_that_is_turned_away_waits_and_so_does_its_model(fleet: Fleet) -> None:
    first = await fleet.park("first")
    await fleet.park("second")
    await fleet.park("other", model="quality")
    worker, _ = fleet.worker(DOWN)
    assert await worker.start_due() == 2
    await worker.wait()
    assert await worker.start_due() == 0
    found = await fleet.find(first)
    assert (found.state, found.tries, found.error_type) == ("parked", 1, "LLMUnavailableError")


async def test_what_no_time_will_mend_is_discarded(fleet: Fleet) -> None:
    request_id = await fleet.park()
    worker, _ = fleet.worker(LLMInvalidRequestError("no"))
    await worker.start_due()
    await worker.wait()
    assert (await fleet.find(request_id)).state == "discarded"


async def test_a_model_that_only_its_client_knows_is_left_to_that_client(fleet: Fleet) -> None:
    request_id = await fleet.park(model="mine")
    worker, _ = fleet.worker(NotFoundError("model", "no group 'mine'", "name one"))
    await worker.start_due()
    await worker.wait()
    found = await fleet.find(request_id)
    assert (found.state, found.error_type) == ("parked", "LLMModelNotFoundError")


async def test_a_worker_that_stops_puts_back_what_it_has_in_hand(fleet: Fleet) -> None:
    request_id = await fleet.park()
    worker, pool = fleet.worker("fine", is_held=True)
    await worker.start_due()
    await pool.is_thinking(1)
    await worker.aclose()
    assert (await fleet.find(request_id)).state == "parked"


async def test_an_answer_is_kept_through_an_outage_of_the_database(
    gated: Database, gate: PostgresGate, fleet: Fleet, superuser: asyncpg.Connection
) -> None:
    request_id = await fleet.park()
    pool = Pool("at last", is_held=True)
    worker = CallReplayer(gated, pool)
    assert await worker.start_due() == 1
    await pool.is_thinking(1)
    await gate.shut()
    pool.released.set()
    await asyncio.sleep(0.3)
    await gate.open()
    await worker.wait()
    found = await fleet.find(request_id)
    assert found.state == "answered"
    assert len(pool.asked) == 1


async def test_a_refusal_is_kept_through_an_outage_of_the_database(
    gated: Database, gate: PostgresGate, fleet: Fleet
) -> None:
    request_id = await fleet.park()
    pool = Pool(DOWN, is_held=True)
    worker = CallReplayer(gated, pool)
    assert await worker.start_due() == 1
    await pool.is_thinking(1)
    await gate.shut()
    pool.released.set()
    await asyncio.sleep(0.3)
    await gate.open()
    await worker.wait()
    found = await fleet.find(request_id)
    assert (found.state, found.tries) == ("parked", 1)


async def test_an_outage_in_which_nobody_could_renew_it_takes_no_call_away(fleet: Fleet) -> None:
    await fleet.superuser.execute(CALM)
    request_id = await fleet.park()
    first, other = (fleet.worker("fine", is_held=True)[0] for _ in range(2))
    assert await first.start_due() == 1
    for change in (GAP, RUN_OUT):
        await fleet.superuser.execute(change)
    assert await other.start_due() == 0, "its worker may live, and has not been able to say so"
    assert (await fleet.calls.claim(None, ())) is None
    await fleet.superuser.execute(CALM_AGAIN)
    assert await other.start_due() == 1
    assert await fleet.superuser.fetchval("select crash_count from failed_calls") == 1
    await asyncio.gather(first.aclose(), other.aclose())
    assert (await fleet.find(request_id)).tries == 2


async def test_what_is_wanted_at_once_waits_for_no_calm(fleet: Fleet) -> None:
    request_id = await fleet.park()
    await FailedRequestDesk(fleet.database).replay(UUID(request_id))
    await fleet.superuser.execute(CALM)
    await fleet.superuser.execute(GAP)
    worker, _ = fleet.worker("fine")
    assert await worker.start_due() == 1
    await worker.wait()


async def test_one_that_takes_its_workers_down_is_given_to_no_more_than_five(fleet: Fleet) -> None:
    request_id = await fleet.park()
    await fleet.superuser.execute(CALM)
    await FailedRequestDesk(fleet.database).replay(UUID(request_id))
    workers = [fleet.worker(is_held=True)[0] for _ in range(6)]
    started = []
    for worker in workers:
        started.append(await worker.start_due())
        await fleet.superuser.execute(RUN_OUT)
    assert started == [1, 1, 1, 1, 1, 0]
    await asyncio.gather(*(worker.aclose() for worker in workers))
    found = await fleet.find(request_id)
    assert (found.state, found.tries, found.error_type) == ("discarded", 5, "Quarantined")
    assert found.error_message == "5 replays were never heard of again"


async def test_two_workers_ask_each_call_once_and_no_more_than_the_bound_at_once(fleet: Fleet) -> None:
    for number in range(MOST_AT_ONCE + 4):
        await fleet.park(str(number), model=("fast", "quality")[number % 2])
    await fleet.superuser.execute(
        """
        insert into drains (queue, model, allowed, answered_at)
        values ('calls', 'fast', 99, now()), ('calls', 'quality', 99, now())
        """
    )
    one, pool = fleet.worker("fine", is_held=True)
    other, other_pool = fleet.worker("fine", is_held=True)
    started = await asyncio.gather(one.start_due(), other.start_due(), one.start_due(), other.start_due())
    assert sum(started) == MOST_AT_ONCE
    assert await one.start_due() + await other.start_due() == 0
    pool.released.set()
    other_pool.released.set()
    await asyncio.gather(one.wait(), other.wait())
    asked = [request.messages[0].content for request in (*pool.asked, *other_pool.asked)]
    assert len(asked) == len(set(asked)) == MOST_AT_ONCE


async def test_a_call_that_waited_too_long_is_discarded(fleet: Fleet) -> None:
    old = await fleet.park()
    await fleet.superuser.execute("update failed_calls set created_at = now() - interval '2 h'")
    new = await fleet.park()
    assert await discard_expired(fleet.database, expires_seconds=3600) == []
    found = await fleet.find(old)
    assert (found.state, found.error_type) == ("discarded", "ParkedTooLong")
    assert found.error_message == (
        "nobody could answer it within 1:00:00; it had been parked because of LLMUnavailableError"
    )
    assert (await fleet.find(new)).state == "parked"
