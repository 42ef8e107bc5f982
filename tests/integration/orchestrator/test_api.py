"""The jobs API over HTTP: a real server on the loopback, asked by a real client."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
from uuid_utils.compat import uuid7

from orchestrator.api.app import open_api
from orchestrator.jobs.lifecycle import JobState
from shared.database import Database
from shared.settings import Settings
from tests.builders import build_message
from tests.fakes.postgres_gate import PostgresGate
from tests.fakes.uvicorn_server import serve_app
from tests.ledger import ANSWERED, Jobs, count

Client = aiohttp.ClientSession


@pytest.fixture
async def client(gate: PostgresGate, database: Database, broker: str) -> AsyncIterator[Client]:
    app = await open_api(Settings(database_url=gate.url, redis_url=broker))
    async with serve_app(app) as url, Client(url) as client:
        yield client


async def post(client: Client, body: bytes | str, path: str = "/v1/jobs") -> tuple[int, dict[str, Any]]:
    async with client.post(path, data=body) as response:
        return response.status, await response.json()


async def get(client: Client, path: str) -> tuple[int, dict[str, Any]]:
    async with client.get(path) as response:
        return response.status, await response.json()


async def answer_next(jobs: Jobs, superuser: asyncpg.Connection) -> None:
    """Be the worker of the one job there will be."""
    job_id = None
    while job_id is None:
        await asyncio.sleep(0.01)
        job_id = await superuser.fetchval("select id from jobs where state = 'queued'")
    claim = await jobs.claim(job_id)
    assert claim
    await jobs.record(claim, ANSWERED)


async def test_content_is_all_that_is_needed(client: Client) -> None:
    async with client.post("/v1/jobs", json={"content": "hello"}) as response:
        job = await response.json()
        assert response.status == 202
        assert response.headers["Location"] == f"/v1/jobs/{job['job_id']}"
    assert (job["state"], job["tenant_id"], job["task_id"]) == ("queued", "default", job["job_id"])
    assert await get(client, response.headers["Location"]) == (200, job)


async def test_an_id_of_ones_own_makes_sending_twice_harmless(client: Client, superuser: asyncpg.Connection) -> None:
    body = json.dumps({"content": "hello", "id": "m-1"})
    (status, first), (_, again) = await post(client, body), await post(client, body)
    assert (status, first["message_id"]) == (202, "m-1")
    assert again == first
    assert await count(superuser, "jobs") == 1


async def test_waiting_for_the_answer(client: Client, jobs: Jobs, superuser: asyncpg.Connection) -> None:
    working = asyncio.create_task(answer_next(jobs, superuser))
    status, job = await post(client, json.dumps({"content": "hello"}), "/v1/jobs?wait=10")
    await working
    assert (status, job["state"], job["content"]) == (200, "succeeded", "fine")
    assert (await get(client, f"/v1/jobs/{job['job_id']}"))[1]["content"] == "fine"


async def test_a_finished_job_sent_again_is_answered_at_once(client: Client, jobs: Jobs) -> None:
    claim = await jobs.add_and_claim(build_message(id="m-1"))
    assert claim
    await jobs.record(claim, ANSWERED)
    status, job = await post(client, json.dumps({"content": "hello", "id": "m-1"}))
    assert (status, job["content"]) == (200, "fine")


async def test_waiting_in_vain(client: Client) -> None:
    status, job = await post(client, json.dumps({"content": "hello"}), "/v1/jobs?wait=0.1")
    assert (status, job["state"]) == (202, "queued")


BAD_BODIES = [
    (b"", "message"),
    (b"not json", "message"),
    (b"\xff\xfe\x00", "message"),
    (b"\x00", "message"),
    (b"[" * 100_000, "message"),
    (b'{"content": ' + b"9" * 5_000 + b"}", "message"),
    (b"null", "message"),
    (b"[1]", "message"),
    (b'"text"', "message"),
    (b"{}", "content"),
    (b'{"content": null}', "content"),
    (b'{"content": ""}', "content"),
    (b'{"content": 7}', "content"),
    (b'{"content": {"a": 1}}', "content"),
    (b'{"content": "a\\u0000b"}', "content"),
    (b'{"content": "\\ud800"}', "content"),
    (b'{"content": "x", "\\ud800": 1}', "message"),
    (b'{"content": "x", "\\u0000": 1}', "message"),
    (b'{"content": "x", "sender": NaN}', "sender"),
    (b'{"content": "x", "extra": Infinity}', "extra"),
    (b'{"content": "x", "extra": 1e400}', "extra"),
    (b'{"content": "x", "channel": "fax"}', "channel"),
    (b'{"content": "x", "channel": "\\udfff"}', "channel"),
    (b'{"content": "x", "id": null}', "id"),
    (b'{"content": "x", "timestamp": "soon"}', "timestamp"),
    (b'{"content": "x", "timestamp": 1e300}', "timestamp"),
    (b'{"content": "x", "version": 99}', "version"),
    (b'{"content": "x", "context": {"history": [{"role": "x", "content": "y"}]}}', "context.history.0.role"),
    (b'{"content": "x", "a": ' + b"[" * 500 + b"]" * 500 + b"}", "a"),
    (b'{"content": "' + b"x" * 10_000_000 + b'"}', "content"),
    (b'{"content": "x", "a": "' + b"x" * 17_000_000 + b'"}', "message"),
]


async def test_a_bad_body_is_refused_with_its_field(client: Client, superuser: asyncpg.Connection) -> None:
    for body, field in BAD_BODIES:
        status, answer = await post(client, body)
        assert (status, answer["error"]["field"]) == (422, field), body[:80]
        assert set(answer["error"]) == {"field", "problem", "remedy"}
    assert await count(superuser, "jobs") == 0


async def test_odd_but_storable_bodies_are_taken(client: Client) -> None:
    for extra in (b"9" * 4_000, b'"\\ud83d\\ude00 \\u0001"', b"[[[[]]]]", b"true"):
        assert (await post(client, b'{"content": "x", "extra": ' + extra + b"}"))[0] == 202, extra


async def test_what_is_not_there_is_a_404(client: Client) -> None:
    for field, value in [("tenant_id", "nobody"), ("agent_id", "nobody"), ("model", "huge")]:
        status, answer = await post(client, json.dumps({"content": "x", field: value}))
        assert (status, answer["error"]["field"]) == (404, field)
        assert repr(value) in answer["error"]["problem"]


async def test_an_unknown_job_is_a_404(client: Client) -> None:
    for job_id in (str(uuid4()), "7", "x" * 2_000, "%00", "%ED%A0%80"):
        status, answer = await get(client, f"/v1/jobs/{job_id}")
        assert (status, answer["error"]["field"]) == (404, "id"), job_id


async def test_an_impossible_wait_is_a_422(client: Client) -> None:
    for wait in ("-1", "301", "soon", "nan", "inf", ""):
        asked = await get(client, f"/v1/jobs/{uuid4()}?wait={wait}")
        sent = await post(client, b'{"content": "x"}', f"/v1/jobs?wait={wait}")
        for status, answer in (asked, sent):
            assert (status, answer["error"]["field"]) == (422, "wait"), wait


async def test_without_a_broker_jobs_are_taken(client: Client, no_broker: None) -> None:
    status, job = await post(client, b'{"content": "hello"}')
    assert (status, job["state"]) == (202, JobState.QUEUED)


async def test_a_database_that_is_away_is_no_fault_of_the_caller(client: Client, gate: PostgresGate) -> None:
    await gate.shut()
    for status, body in [await post(client, b'{"content": "hello"}'), await get(client, f"/v1/jobs/{uuid7()}")]:
        assert (status, body["error"]["field"]) == (503, "database")
    await gate.open()
    assert (await post(client, b'{"content": "hello"}'))[0] == 202


async def test_a_page_of_another_site_may_not_ask_in_its_visitors_name(
    client: Client, superuser: asyncpg.Connection
) -> None:
    headers = {"Origin": "https://evil.example"}
    async with client.post("/v1/jobs", data=b'{"content": "hello"}', headers=headers) as response:
        assert (response.status, (await response.json())["error"]["field"]) == (403, "Origin")
    assert await count(superuser, "jobs") == 0
