"""What every queue of failed requests does, in memory or in Postgres: one suite over both."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from llm_pool.client.failed_requests import FailedRequest, FailedRequestQueue, FailedRequestStore, MemoryFailedRequests
from llm_pool.types import (
    ChatMessage,
    CompletionRequest,
    EmbeddingRequest,
    EmbeddingResponse,
    JsonFormat,
    Response,
    Tool,
)
from orchestrator.failed_requests.calls import PostgresFailedCalls
from shared.attempts import Usage
from shared.database import Database
from shared.errors import (
    InputError,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMRateLimitedError,
    LLMUnavailableError,
)
from tests.builders import build_response

DOWN = LLMUnavailableError()


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> FailedRequestStore:
    if request.param == "memory":
        return MemoryFailedRequests()
    return PostgresFailedCalls(request.getfixturevalue("database"))


@pytest.fixture
def queue(store: FailedRequestStore) -> FailedRequestQueue:
    return FailedRequestQueue(store)


def ask(content: str, model: str = "fast", **fields: object) -> CompletionRequest:
    return CompletionRequest(model, (ChatMessage("user", content),), **fields)


async def answer(failed: FailedRequest) -> Response:
    return build_response(f"answer to {failed.request.messages[-1].content}")


async def refuse(failed: FailedRequest) -> Response:
    raise LLMUnavailableError


async def test_what_was_queued_is_answered_and_found_by_its_id(queue: FailedRequestQueue) -> None:
    first = await queue.enqueue("chat", ask("one"), DOWN)
    second = await queue.enqueue("generate", ask("two"), DOWN)
    processed = await queue.process_all(answer)
    assert (processed.answered, processed.still_failing) == (2, 0)
    for request_id, content in ((first, "answer to one"), (second, "answer to two")):
        found = await queue.find(request_id)
        assert found is not None
        assert (found.state, found.response) == ("answered", build_response(content))


async def test_the_oldest_goes_first(queue: FailedRequestQueue) -> None:
    for content in ("one", "two", "three"):
        await queue.enqueue("chat", ask(content), DOWN)
    asked = []

    async def note(failed: FailedRequest) -> Response:
        asked.append(failed.request.messages[-1].content)
        return build_response()

    await queue.process_all(note)
    assert asked == ["one", "two", "three"]


async def test_the_whole_request_is_kept(queue: FailedRequestQueue) -> None:
    request = ask(
        "ü 😀",
        tenant_id="acme",
        key_id="key-1",
        timeout_seconds=9.0,
        temperature=0.0,
        max_tokens=7,
        top_p=0.25,
        stop=("END",),
        tools=(Tool("look_up", "a dictionary", {"type": "object"}, strict=True),),
        tool_choice="required",
        json_format=JsonFormat({"type": "object"}, "word"),
        user="u-1",
        metadata={"purpose": "a test"},
    )
    found = await queue.find(await queue.enqueue("generate", request, LLMRateLimitedError("full")))
    assert found is not None
    assert (found.operation, found.request, found.state, found.tries) == ("generate", request, "parked", 0)
    assert (found.error_type, found.error_message) == ("LLMRateLimitedError", "full")


async def test_vectors_too(queue: FailedRequestQueue) -> None:
    vectors = EmbeddingResponse(((1.0, 2.5),), "m", "p", "d", Usage(3, 0), 0.25, ())

    async def embed(failed: FailedRequest) -> Response:
        assert failed.request == EmbeddingRequest("embedding", ("one",), dimensions=2, tenant_id="acme")
        return vectors

    request_id = await queue.enqueue(
        "embed", EmbeddingRequest("embedding", ("one",), dimensions=2, tenant_id="acme"), DOWN
    )
    assert (await queue.process_all(embed)).answered == 1
    found = await queue.find(request_id)
    assert found is not None
    assert found.response == vectors


async def test_what_fails_again_stays(queue: FailedRequestQueue) -> None:
    request_id = await queue.enqueue("chat", ask("one"), LLMRateLimitedError("full"))
    processed = await queue.process_all(refuse)
    assert (processed.answered, processed.still_failing) == (0, 1)
    found = await queue.find(request_id)
    assert found is not None
    assert (found.state, found.tries, found.error_type) == ("parked", 1, "LLMUnavailableError")
    assert (await queue.process_all(answer)).answered == 1


async def test_a_model_that_is_out_is_asked_once_a_walk(queue: FailedRequestQueue) -> None:
    for number in range(3):
        await queue.enqueue("chat", ask(str(number), "quality"), DOWN)
    await queue.enqueue("chat", ask("other", "fast"), DOWN)
    asked = []

    async def fail_for_quality(failed: FailedRequest) -> Response:
        asked.append(failed.request.model)
        return await (refuse if failed.request.model == "quality" else answer)(failed)

    processed = await queue.process_all(fail_for_quality)
    assert asked == ["quality", "fast"]
    assert (processed.answered, processed.still_failing) == (1, 3)


async def test_one_that_is_only_overloaded_does_not_hold_up_the_next(queue: FailedRequestQueue) -> None:
    await queue.enqueue("chat", ask("one"), DOWN)
    await queue.enqueue("chat", ask("two"), DOWN)

    async def fail_once(failed: FailedRequest) -> Response:
        if failed.request.messages[0].content == "one":
            raise LLMOverloadedError("down")
        return build_response()

    processed = await queue.process_all(fail_once)
    assert (processed.answered, processed.still_failing) == (1, 1)


@pytest.mark.parametrize("error", [LLMInvalidRequestError("no"), InputError("model", "there is none", "name one")])
async def test_what_no_time_will_mend_is_discarded(queue: FailedRequestQueue, error: Exception) -> None:
    request_id = await queue.enqueue("chat", ask("one"), DOWN)

    async def fail(failed: FailedRequest) -> Response:
        raise error

    processed = await queue.process_all(fail)
    assert (processed.answered, processed.still_failing, processed.discarded) == (0, 0, 1)
    found = await queue.find(request_id)
    assert found is not None
    assert found.state == "discarded"


async def test_a_surprise_is_raised_and_the_request_stays(queue: FailedRequestQueue) -> None:
    await queue.enqueue("chat", ask("one"), DOWN)

    async def crash(failed: FailedRequest) -> Response:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await queue.process_all(crash)
    assert (await queue.process_all(answer)).answered == 1


async def test_a_walk_that_is_cancelled_loses_nothing(queue: FailedRequestQueue) -> None:
    await queue.enqueue("chat", ask("one"), DOWN)
    asking = asyncio.Event()

    async def hang(failed: FailedRequest) -> Response:
        asking.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    walk = asyncio.create_task(queue.process_all(hang))
    await asyncio.wait_for(asking.wait(), 5)
    walk.cancel()
    await asyncio.gather(walk, return_exceptions=True)
    assert (await queue.process_all(answer)).answered == 1


async def test_two_walks_at_once_ask_each_request_once(queue: FailedRequestQueue) -> None:
    for number in range(20):
        await queue.enqueue("chat", ask(str(number)), DOWN)
    asked: list[str] = []

    async def note(failed: FailedRequest) -> Response:
        asked.append(failed.request.messages[-1].content)
        await asyncio.sleep(0)
        return build_response()

    first, second = await asyncio.gather(queue.process_all(note), queue.process_all(note))
    assert sorted(asked, key=int) == [str(number) for number in range(20)]
    assert first.answered + second.answered == 20


async def test_stats_by_state_and_age(queue: FailedRequestQueue) -> None:
    stats = await queue.get_stats()
    assert (stats.by_state, stats.oldest_parked_seconds, stats.parked_by_age) == ({}, None, {})
    await queue.enqueue("chat", ask("one"), DOWN)
    await queue.process_all(answer)
    await queue.enqueue("chat", ask("two"), DOWN)
    stats = await queue.get_stats()
    assert stats.by_state == {"answered": 1, "parked": 1}
    assert stats.parked_by_age == {"under_a_minute": 1}
    assert stats.oldest_parked_seconds is not None
    assert 0 <= stats.oldest_parked_seconds < 60


async def test_it_is_told_when_a_worker_asks_again_and_later_each_time(queue: FailedRequestQueue) -> None:
    request_id = await queue.enqueue("chat", ask("one"), DOWN)
    waits = []
    for _ in range(8):
        found = await queue.find(request_id)
        assert found is not None
        waits.append(round((found.next_try_at - datetime.now(UTC)).total_seconds()))
        await queue.process_all(refuse)
    assert waits == [5, 10, 20, 30, 30, 30, 30, 30]


async def test_what_the_provider_asks_for_is_waited_for(queue: FailedRequestQueue) -> None:
    resets = LLMUnavailableError(retry_after_seconds=48 * 3600.0)
    found = await queue.find(await queue.enqueue("chat", ask("one"), resets))
    assert found is not None
    assert found.next_try_at - datetime.now(UTC) == pytest.approx(timedelta(hours=48), abs=timedelta(seconds=5))


async def test_a_walk_by_hand_does_not_wait(queue: FailedRequestQueue) -> None:
    await queue.enqueue("chat", ask("one"), LLMUnavailableError(retry_after_seconds=48 * 3600.0))
    assert (await queue.process_all(answer)).answered == 1


@pytest.mark.parametrize("request_id", ["", "nothing", "01890a5d-ac96-774b-bcce-b302099a8057"])
async def test_an_id_of_no_one(queue: FailedRequestQueue, request_id: str) -> None:
    assert await queue.find(request_id) is None


async def test_only_the_latest_claim_may_record(store: FailedRequestStore) -> None:
    request_id = await store.add("chat", ask("one"), DOWN)
    stale = await store.claim(None, ())
    assert stale is not None
    await store.record_failure(stale, DOWN, "parked")
    latest = await store.claim(None, ())
    assert latest is not None
    await store.record_answer(stale, build_response("stale"))
    await store.record_answer(latest, build_response("latest"))
    await store.record_failure(latest, DOWN, "parked")
    found = await store.find(request_id)
    assert found is not None
    assert (found.state, found.response) == ("answered", build_response("latest"))


async def test_a_claim_that_was_never_heard_of_again_ends(database: Database) -> None:
    queue = FailedRequestQueue(PostgresFailedCalls(database))
    await queue.enqueue("chat", ask("one"), DOWN)
    assert await PostgresFailedCalls(database, lease_seconds=0.4).claim(None, ())
    assert (await queue.process_all(answer)).answered == 0
    await asyncio.sleep(0.5)
    assert (await queue.process_all(answer)).answered == 1


async def test_a_claim_lasts_as_long_as_the_model_thinks(database: Database) -> None:
    queue = FailedRequestQueue(PostgresFailedCalls(database, lease_seconds=0.3))
    await queue.enqueue("chat", ask("one"), DOWN)

    async def think(failed: FailedRequest) -> Response:
        await asyncio.sleep(0.8)
        return await answer(failed)

    async def look_twice() -> int:
        await asyncio.sleep(0.4)
        first = await queue.process_all(answer)
        await asyncio.sleep(0.3)
        return first.answered + (await queue.process_all(answer)).answered

    walked, answered_meanwhile = await asyncio.gather(queue.process_all(think), look_twice())
    assert (walked.answered, answered_meanwhile) == (1, 0)


async def test_who_claims_for_all_reads_nothing_of_what_was_asked(database: Database) -> None:
    await PostgresFailedCalls(database).add("chat", replace(ask("one"), tenant_id="acme"), DOWN)
    for column in ("request", "response", "error_message"):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with database.as_system() as connection:
                await connection.execute(text(f"select {column} from failed_calls"))
