"""Answers of a whole fleet, in Redis or Valkey. One script for each step, so that a hit or a miss is one round trip."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from llm_pool.stores.answers.base import (
    KEPT_BY_MANY,
    LEASE_SECONDS,
    PATIENCE_SECONDS,
    AnswerStoreUnavailableError,
    Finding,
    Lease,
    take_back,
)
from llm_pool.stores.answers.codec import FORMAT, dump_answer, find_answer
from llm_pool.stores.finishing import Finishing
from llm_pool.types import CompletionResponse

# A client may send a script a second time when its connection died under the first: who holds the lease gets it again.
_FIND_OR_LEASE = """
local answer = redis.call('GET', KEYS[1])
if answer then return answer end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[2]) == ARGV[1] then return 1 end
return 0
"""
_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_GIVE_UP = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
# The index is what bounds the number of answers: the server itself must not evict, as it may be the broker as well.
_KEEP = """
local ttl = tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ttl)
if redis.call('GET', KEYS[2]) == ARGV[4] then redis.call('DEL', KEYS[2]) end
redis.call('ZADD', KEYS[3], now + ttl, KEYS[1])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
local surplus = redis.call('ZCARD', KEYS[3]) - tonumber(ARGV[3])
if surplus > 0 then
  local oldest = redis.call('ZPOPMIN', KEYS[3], surplus)
  for i = 1, #oldest, 2 do redis.call('DEL', oldest[i]) end
end
if redis.call('PTTL', KEYS[3]) < ttl then redis.call('PEXPIRE', KEYS[3], ttl) end
return 1
"""


class RedisAnswers:
    """All keys lie in one slot of a cluster, as one script writes the answer and the index. Entries with different
    times to live leave in the order in which they would expire.
    """

    def __init__(
        self,
        client: Redis,
        max_entries: int = KEPT_BY_MANY,
        prefix: str = "llm_pool",
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """`client` stays its opener's to close."""
        self._patience_seconds = patience_seconds
        self._max_entries = max_entries
        self._prefix = f"{prefix}:{{answers}}:{FORMAT}"
        self._find_or_lease = client.register_script(_FIND_OR_LEASE)
        self._renew = client.register_script(_RENEW)
        self._give_up = client.register_script(_GIVE_UP)
        self._keep = client.register_script(_KEEP)
        self._finishing = Finishing()

    async def find_or_lease(self, key: str, lease_seconds: float = LEASE_SECONDS) -> Finding:
        return await self._finishing.wait_for(self._find(key, lease_seconds), undo=partial(take_back, self))

    async def _find(self, key: str, lease_seconds: float) -> Finding:
        lease = Lease(key, uuid4().hex)
        keys = [self._name_answer(key), self._name_lease(key)]
        found = await self._run(self._find_or_lease, keys, [lease.token, _milliseconds(lease_seconds)])
        if found == 0:
            return Finding(is_awaited=True)
        # An answer that cannot be read is asked for without a lease: that is rare, and soon overwritten.
        return Finding(lease=lease) if found == 1 else Finding(find_answer(found))

    async def renew(self, lease: Lease, lease_seconds: float = LEASE_SECONDS) -> None:
        await self._finish(self._renew, [self._name_lease(lease.key)], [lease.token, _milliseconds(lease_seconds)])

    async def keep(
        self, key: str, response: CompletionResponse, ttl_seconds: float, lease: Lease | None = None
    ) -> None:
        keys = [self._name_answer(key), self._name_lease(key), f"{self._prefix}:index"]
        token = "" if lease is None else lease.token
        document = dump_answer(response)
        await self._finish(self._keep, keys, [document, _milliseconds(ttl_seconds), self._max_entries, token])

    async def give_up(self, lease: Lease) -> None:
        await self._finish(self._give_up, [self._name_lease(lease.key)], [lease.token])

    async def aclose(self) -> None:
        """The client is not this store's."""
        await self._finishing.aclose()

    async def _finish(self, script: AsyncScript, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> None:
        await self._finishing.wait_for(self._run(script, keys, arguments))

    async def _run(self, script: AsyncScript, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await script(keys, arguments)
        except (RedisError, OSError) as error:
            raise AnswerStoreUnavailableError from error

    def _name_answer(self, key: str) -> str:
        return f"{self._prefix}:answer:{key}"

    def _name_lease(self, key: str) -> str:
        return f"{self._prefix}:lease:{key}"


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
