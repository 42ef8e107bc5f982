"""One worker process of a fleet that asks as much as it is allowed: `fleet_member REDIS_URL MODEL_URL`.

It says `ready`, begins at the first line it is sent, and ends when its input does. Two deployments have the same
limits: of one the requests run out first, of the other the tokens.
"""

import asyncio
import logging
import random
import sys
from dataclasses import dataclass

import structlog

from llm_pool.catalog import Catalog, Deployment, Limits, ModelGroup
from llm_pool.pool import Pool
from llm_pool.stores.on_redis import build_redis_stores
from llm_pool.types import ChatMessage, CompletionRequest
from shared.clock import SystemClock

LIMITS = Limits(requests_per_minute=600, tokens_per_minute=60_000)
CALLS_AT_ONCE = 12
"""In each process, at each deployment: together more than the limits allow."""


@dataclass(frozen=True)
class Load:
    """Answers of so many tokens, chosen evenly; about a quarter more is reserved for each."""

    deployment: str
    fewest_tokens: int
    most_tokens: int


LOADS = (Load("short-of-requests", 20, 60), Load("short-of-tokens", 50, 300))


async def main(redis_url: str, model_url: str) -> None:
    loop = asyncio.get_running_loop()
    catalog = Catalog({load.deployment: build_group(load, model_url) for load in LOADS})
    pool = Pool(catalog, stores=build_redis_stores(redis_url, catalog.policies, SystemClock()))
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    asking = [asyncio.create_task(keep_asking(pool, load)) for load in LOADS for _ in range(CALLS_AT_ONCE)]
    await asyncio.wait((*asking, loop.run_in_executor(None, sys.stdin.readline)), return_when=asyncio.FIRST_COMPLETED)
    for task in asking:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await pool.aclose()


def build_group(load: Load, model_url: str) -> ModelGroup:
    name = load.deployment
    deployment = Deployment(name, "openai_compatible", name, model_url, api_key="none", limits=LIMITS)
    return ModelGroup(name, (deployment,))


async def keep_asking(pool: Pool, load: Load) -> None:
    while True:
        tokens = random.randint(load.fewest_tokens, load.most_tokens)
        message = ChatMessage("user", str(tokens))
        await pool.complete(CompletionRequest(load.deployment, (message,), max_tokens=tokens * 5 // 4))


if __name__ == "__main__":
    # Nobody reads what it prints after `ready`: a full pipe would hold it up.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(main(*sys.argv[1:]))
