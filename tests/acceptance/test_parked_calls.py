"""A script's call that nobody could answer, answered by the workers while the script is long gone."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.wiring import open_client
from shared.errors import LLMUnavailableError
from shared.settings import Settings
from tests.acceptance.yard import Yard, wait_until


@pytest.mark.long
def test_a_call_that_was_parked_is_answered_without_anybody_asking(yard: Yard) -> None:
    yard.model.is_down = True
    request_id = asyncio.run(ask(yard))
    yard.model.is_down = False
    yard.start_worker()
    yard.start_beat()
    state = "select state from failed_calls where id::text = $1"
    wait_until(lambda: yard.rows(state, request_id)[0][0] == "answered", seconds=30)
    (answered,) = yard.rows("select response ->> 'content' as content, tries from failed_calls")
    assert (answered["content"], answered["tries"]) == ("answer to hello", 1)


async def ask(yard: Yard) -> str:
    settings = Settings(database_url=yard.database_url, llmyard_config=Path(yard.environment["LLMYARD_CONFIG"]))
    client = await open_client(settings)
    with pytest.raises(LLMUnavailableError) as caught:
        await client.chat("hello", tenant_id="default")
    await client.aclose()
    assert caught.value.request_id
    return caught.value.request_id
