"""What becomes of a client's request that nobody answers: it is kept, its id is told, and it is asked again later."""

import pytest

from llm_pool.client.client import Client
from llm_pool.client.failed_requests import FailedRequestQueue
from shared.errors import LLMInvalidRequestError, LLMOverloadedError, LLMUnavailableError
from tests.fakes.scripted_client import MOCK, Scripted
from tests.fakes.scripted_provider import Script

TRIED = [LLMOverloadedError("down")] * 3
"""By a first try and two retries."""


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.mark.parametrize("operation", ["chat", "generate"])
async def test_what_nobody_answers_is_kept_and_its_id_told(script: Script, operation: str) -> None:
    script.steps = [LLMOverloadedError("down", retry_after_seconds=90)]
    client = Scripted(script).client
    with pytest.raises(LLMUnavailableError) as caught:
        await getattr(client, operation)("hello")
    request_id = caught.value.request_id
    assert str(caught.value) == f"LLM unavailable. Request queued for retry. ID: {request_id}"
    assert caught.value.retry_after_seconds == 90
    assert [attempt.error_type for attempt in caught.value.attempts] == ["LLMOverloadedError"]
    assert request_id is not None
    kept = await client.find_failed_request(request_id)
    assert kept is not None
    assert (kept.operation, kept.state) == (operation, "parked")


async def test_what_was_kept_is_answered_later(script: Script) -> None:
    script.steps = [*TRIED, "fine"]
    client = Scripted(script).client
    with pytest.raises(LLMUnavailableError) as caught:
        await client.chat("hello")
    processed = await client.process_queue()
    assert (processed.answered, processed.still_failing) == (1, 0)
    kept = await client.find_failed_request(caught.value.request_id or "")
    assert kept is not None
    assert kept.response is not None
    assert kept.response.content == "fine"
    assert script.asked[0] == script.asked[-1]


async def test_what_fails_again_is_kept_once(script: Script) -> None:
    script.steps = [LLMOverloadedError("down", retry_after_seconds=90)]
    client = Scripted(script).client
    with pytest.raises(LLMUnavailableError):
        await client.chat("hello")
    processed = await client.process_queue()
    assert (processed.answered, processed.still_failing) == (0, 1)
    assert (await client.get_queue_stats()).by_state == {"parked": 1}


async def test_what_asking_again_would_not_mend_is_not_kept(script: Script) -> None:
    script.steps = [LLMInvalidRequestError("no")]
    client = Scripted(script).client
    with pytest.raises(LLMInvalidRequestError):
        await client.chat("hello")
    assert (await client.get_queue_stats()).by_state == {}


async def test_a_queue_may_be_shared(script: Script) -> None:
    queue = FailedRequestQueue()
    script.steps = [*TRIED, "fine"]
    pools = Scripted(script)
    first, second = (Client(MOCK, queue=queue, pools=pools.client._pools) for _ in range(2))
    with pytest.raises(LLMUnavailableError):
        await first.chat("hello")
    assert (await second.process_queue()).answered == 1


async def test_what_was_not_answered_in_time_is_kept_too(script: Script) -> None:
    client = Scripted(script).client
    with pytest.raises(LLMUnavailableError, match=r"^LLM unavailable. Request queued for retry. ID: ") as caught:
        await client.chat("hello", timeout_seconds=1e-9)
    kept = await client.find_failed_request(caught.value.request_id or "")
    assert kept is not None
    assert (kept.state, kept.error_type) == ("parked", "LLMTimeoutError")
    assert (await client.process_queue()).still_failing == 1
