"""One process of several that ask the same at once: `python -m tests.fakes.cache_member KIND PLACE CALLS REQUESTS`.

Each call that gets through the cache appends a line to the file CALLS. All start at the same whole second of the wall
clock, so that none is served by what another has long kept.
"""

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from llm_pool.call import Call
from llm_pool.stores.answers.base import AnswerStore
from llm_pool.stores.answers.disk import DiskAnswers
from llm_pool.stores.answers.redis import RedisAnswers
from llm_pool.types import CompletionResponse
from shared.clock import SystemClock
from shared.redis_client import open_redis
from tests.builders import build_response
from tests.fakes.caching import build_cache, build_call

START_EVERY_SECONDS = 3
"""Longer than a process takes to import all of this."""


def note_call(path: Path) -> None:
    with path.open("a") as file:
        file.write("called\n")


@asynccontextmanager
async def open_store(kind: str, place: str) -> AsyncIterator[AnswerStore]:
    if kind == "disk":
        store = DiskAnswers(SystemClock(), Path(place), 100)
        yield store
        await store.aclose()
        return
    async with open_redis(place) as client:
        yield RedisAnswers(client)


async def run(kind: str, place: str, calls: str, requests: str) -> None:
    async def proceed(call: Call) -> CompletionResponse:
        note_call(Path(calls))
        await asyncio.sleep(0.3)
        return build_response("the one answer")

    clock = SystemClock()
    async with open_store(kind, place) as store:
        cache = build_cache(clock, store)
        await asyncio.sleep(math.ceil(time.time() / START_EVERY_SECONDS) * START_EVERY_SECONDS - time.time())
        calls_made = (cache(build_call(clock), proceed) for _ in range(int(requests)))
        responses = await asyncio.gather(*calls_made)
    assert {response.content for response in responses} == {"the one answer"}


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
