"""How the one way to open a Redis bears its absence."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import RedisError

from shared.redis_client import open_redis
from tests.fakes.redis_gate import RedisGate, open_redis_gate


@pytest.fixture
async def gate(redis_url: str) -> AsyncIterator[RedisGate]:
    async with open_redis_gate(redis_url) as gate:
        yield gate


async def test_where_nobody_is_a_command_fails_at_once() -> None:
    async with open_redis("redis://127.0.0.1:1/0") as client, asyncio.timeout(0.5):
        with pytest.raises(RedisError):
            await client.ping()


async def test_a_server_that_hangs_is_given_up(gate: RedisGate) -> None:
    async with open_redis(gate.url, answer_seconds=0.1) as client:
        await client.ping()
        gate.hold_up()
        async with asyncio.timeout(1):
            with pytest.raises(RedisError):
                await client.ping()


async def test_a_connection_that_died_unnoticed_fails_no_command(gate: RedisGate) -> None:
    async with open_redis(gate.url) as client:
        await client.ping()
        await gate.shut()
        await gate.open()
        assert await client.ping()


async def test_a_command_whose_connection_dies_is_sent_again(redis_url: str) -> None:
    async with open_redis(redis_url) as client, open_redis(redis_url) as other:
        asking = asyncio.create_task(client.blpop(["list"], 1))
        await asyncio.sleep(0.05)
        await other.client_kill_filter(_type="normal", skipme=True)
        await other.rpush("list", "late")
        assert await asking == (b"list", b"late")


async def test_more_commands_than_connections_wait_for_their_turn(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        await asyncio.gather(*(client.incr("count") for _ in range(500)))
        assert await client.get("count") == b"500"
