"""The lean model server answers as an OpenAI client expects it, takes the time it was told, and counts what it saw."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from benchmarks.chaos.parts import wait_until
from benchmarks.throughput import ceiling, model_server
from orchestrator.stack.ports import LOOPBACK, accepts_connections, find_any_port


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    port = find_any_port()
    process = subprocess.Popen([sys.executable, str(Path(model_server.__file__)), str(port)])
    try:
        wait_until(lambda: accepts_connections(port), 20, "the model server listens")
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
async def session(port: int) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://{LOOPBACK}:{port}") as session:
        yield session


async def begin(session: aiohttp.ClientSession, delay_ms: float) -> None:
    async with session.get("/control", params={"delay_ms": delay_ms}) as reply:
        assert reply.status == 200


async def count(session: aiohttp.ClientSession) -> dict[str, int]:
    async with session.get("/counts") as reply:
        counts: dict[str, int] = await reply.json()
        return counts


async def ask(session: aiohttp.ClientSession, question: str = "question") -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": question}]}
    async with session.post("/v1/chat/completions", json=body) as reply:
        completion = await reply.json()
    assert completion["usage"]["total_tokens"] == 26
    content: str = completion["choices"][0]["message"]["content"]
    return content


async def test_calls_that_wait_together_are_counted_as_the_peak(session: aiohttp.ClientSession) -> None:
    await begin(session, 150)
    started = time.monotonic()
    assert set(await asyncio.gather(*(ask(session) for _ in range(20)))) == {model_server.CONTENT}
    assert 0.15 <= time.monotonic() - started < 2
    assert await count(session) == {"requests": 20, "answered": 20, "peak": 20}


async def test_counts_begin_anew_with_each_measurement(session: aiohttp.ClientSession) -> None:
    await begin(session, 0)
    await ask(session)
    await begin(session, 0)
    assert await count(session) == {"requests": 0, "answered": 0, "peak": 0}


def test_a_request_may_come_in_pieces_and_two_at_once(port: int) -> None:
    body = json.dumps({"model": "m", "messages": []}).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nHOST: m\r\ncontent-LENGTH: %d\r\n\r\n" % len(body) + body
    with socket.create_connection((LOOPBACK, port), timeout=10) as connection, connection.makefile("rb") as replies:
        for piece in (request[:30], request[30:-3], request[-3:] + request):
            connection.sendall(piece)
            time.sleep(0.05)
        assert replies.read(2 * len(model_server.ANSWER)) == 2 * model_server.ANSWER


async def test_its_ceiling_is_measured(port: int) -> None:
    assert await ceiling.measure(port, 500) > 500
