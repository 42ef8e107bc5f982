"""Failed requests in people's hands, over HTTP: looked at, replayed at once, discarded."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import pytest
import redis

from llm_pool.types import ChatMessage, CompletionRequest
from orchestrator.api.app import open_api
from orchestrator.failed_requests.calls import PostgresFailedCalls
from orchestrator.failed_requests.desk import FailedRequestDesk
from orchestrator.jobs.lifecycle import JobState
from orchestrator.jobs.store import Claim
from orchestrator.outcomes import Parked, Succeeded
from shared.database import Database
from shared.errors import ConflictError, LLMUnavailableError
from shared.settings import Settings
from tests.builders import build_attempt, build_message
from tests.fakes.uvicorn_server import serve_app
from tests.ledger import Jobs
from tests.running import build_recorder

LATER = 48 * 3600.0
NARROWED = {
    "state=parked": "jqc",
    "state=answered": "",
    "tenant_id=acme": "qc",
    "model=quality&tenant_id=acme": "q",
    "operation=message": "j",
    "operation=chat": "qc",
    "operation=embed": "",
}
"""Which of a job (j), a call to quality (q) and one to fast (c) a query finds."""


class Counter:
    """The API, the ledger behind it, and the broker."""

    def __init__(self, http: aiohttp.ClientSession, database: Database, broker: str) -> None:
        self.http = http
        self.jobs = Jobs(database)
        self.calls = PostgresFailedCalls(database)
        self.recorder = build_recorder(database)
        self.desk = FailedRequestDesk(database)
        self.broker = broker

    async def park(self, claim: Claim | None = None, **fields: Any) -> tuple[str, Claim]:
        claim = claim or await self.jobs.add_and_claim(build_message(**fields))
        assert claim
        outcome = Parked("LLMUnavailableError", "all down", LATER, (build_attempt(error_type="LLMOverloadedError"),))
        parked = await self.recorder.record(claim, outcome)
        assert parked.result
        return parked.result["failed_request_id"], claim

    async def park_call(self, content: str = "hello", model: str = "fast") -> str:
        request = CompletionRequest(model, (ChatMessage("user", content),), tenant_id="acme")
        return await self.calls.add("chat", request, LLMUnavailableError("all down", retry_after_seconds=LATER))

    async def get(self, path: str = "") -> Any:
        async with self.http.get(f"/v1/failed-requests{path}") as response:
            return {"status": response.status, **await response.json()}

    async def post(self, path: str, body: object = None) -> Any:
        async with self.http.post(f"/v1/failed-requests{path}", json=body) as response:
            return {"status": response.status, **await response.json()}

    async def find_state(self, claim: Claim) -> JobState:
        return (await self.jobs.find(claim.job_id)).state

    def count_messages(self) -> int:
        with redis.Redis.from_url(self.broker) as client:
            return int(client.llen("celery"))


@pytest.fixture
async def counter(database_url: str, database: Database, broker: str) -> AsyncIterator[Counter]:
    app = await open_api(Settings(database_url=database_url, redis_url=broker))
    async with serve_app(app) as url, aiohttp.ClientSession(url) as http:
        yield Counter(http, database, broker)


async def test_one_list_over_jobs_and_calls_the_newest_first(counter: Counter) -> None:
    job, claim = await counter.park()
    call = await counter.park_call()
    listed = (await counter.get())["failed_requests"]
    assert [entry["id"] for entry in listed] == [call, job]
    assert listed[1] | {"next_try_at": "", "created_at": "", "updated_at": ""} == {
        "id": job,
        "tenant_id": "default",
        "operation": "message",
        "model": "quality",
        "state": "parked",
        "attempts": 1,
        "error_type": "LLMUnavailableError",
        "next_try_at": "",
        "created_at": "",
        "updated_at": "",
        "job_id": str(claim.job_id),
    }
    assert (listed[0]["operation"], listed[0]["attempts"], listed[0]["job_id"]) == ("chat", 0, None)


async def test_the_list_can_be_narrowed(counter: Counter) -> None:
    ids = {
        "j": (await counter.park())[0],
        "q": await counter.park_call(model="quality"),
        "c": await counter.park_call(),
    }
    for query, found in NARROWED.items():
        listed = {entry["id"] for entry in (await counter.get(f"?{query}"))["failed_requests"]}
        assert listed == {ids[name] for name in found}, query


async def test_pages_hold_each_once(counter: Counter) -> None:
    made = [await counter.park_call(str(number)) for number in range(3)] + [(await counter.park())[0]]
    pages, after = [], ""
    while not pages or pages[-1]["next"]:
        pages.append(await counter.get(f"?limit=2{after}"))
        after = f"&after={pages[-1]['next']}"
    assert [len(page["failed_requests"]) for page in pages] == [2, 2]
    assert [entry["id"] for page in pages for entry in page["failed_requests"]] == made[::-1]


async def test_a_query_that_cannot_be_is_refused(counter: Counter) -> None:
    for query in ("limit=0", "limit=501", "state=lost", "operation=sing", "colour=red", "tenant_id=%00", "model=%00"):
        answer = await counter.get(f"?{query}")
        assert (answer["status"], answer["error"]["field"]) == (422, query.partition("=")[0])


async def test_one_is_shown_with_what_was_asked_and_tried(counter: Counter) -> None:
    job, _ = await counter.park(content="what was asked")
    shown = await counter.get(f"/{job}")
    assert (shown["params"]["content"], shown["error_message"], shown["response"]) == (
        "what was asked",
        "all down",
        None,
    )
    assert [(each["run"], each["deployment"], each["error_type"]) for each in shown["tried"]] == [
        (1, "a", "LLMOverloadedError")
    ]
    call = await counter.get(f"/{await counter.park_call('and here')}")
    assert call["params"]["messages"][0]["content"] == "and here"
    assert (call["tried"], call["response"]) == ([], None)


async def test_replayed_by_hand_it_goes_at_once_and_twice_is_as_good_as_once(counter: Counter) -> None:
    job, claim = await counter.park()
    first, again = await counter.post(f"/{job}/replay"), await counter.post(f"/{job}/replay")
    assert (first["status"], first["state"], again["status"], again["state"]) == (200, "replaying", 200, "replaying")
    assert await counter.find_state(claim) is JobState.QUEUED
    assert counter.count_messages() == 1
    replay = await counter.jobs.claim(claim.job_id)
    assert replay
    await counter.recorder.record(replay, Succeeded({"content": "fine"}))
    assert (await counter.post(f"/{job}/replay"))["state"] == "answered"
    assert counter.count_messages() == 1


async def test_a_call_replayed_by_hand_is_for_the_next_worker_that_looks(counter: Counter) -> None:
    call = await counter.park_call()
    assert (await counter.post(f"/{call}/replay"))["state"] == "replaying"
    claimed = await counter.calls.claim(None, ())
    assert claimed is not None
    assert claimed.id == call


async def test_a_tenants_or_all_are_replayed_together(counter: Counter) -> None:
    claims = [(await counter.park())[1] for _ in range(3)]
    calls = [await counter.park_call() for _ in range(2)]
    assert await counter.post("/replay", {"tenant_id": "acme"}) == {"status": 200, "replayed": 2, "has_more": False}
    assert [(await counter.get(f"/{call}"))["state"] for call in calls] == ["replaying"] * 2
    assert await counter.post("/replay", {"all": True, "limit": 2}) == {"status": 200, "replayed": 2, "has_more": True}
    assert await counter.post("/replay", {"all": True}) == {"status": 200, "replayed": 1, "has_more": False}
    assert {await counter.find_state(claim) for claim in claims} == {JobState.QUEUED}
    assert counter.count_messages() == 3


async def test_replaying_nobody_knows_what_is_refused(counter: Counter) -> None:
    for body in ({}, {"all": True, "tenant_id": "acme"}, {"all": True, "limit": 0}, {"ids": []}, {"tenant_id": "\0"}):
        assert (await counter.post("/replay", body))["status"] == 422


async def test_discarded_it_has_a_result_that_says_why_and_everybody_waiting_is_told(counter: Counter) -> None:
    job, claim = await counter.park()
    await counter.jobs.wait_for(claim.job_id, "second-task")
    for _ in range(2):
        assert (await counter.post(f"/{job}/discard", {"reason": "not wanted"}))["state"] == "discarded"
    record = await counter.jobs.find(claim.job_id)
    assert record.state is JobState.DISCARDED
    assert record.result
    assert record.result["error"]["type"] == "Discarded"
    assert record.result["error"]["message"].startswith("discarded by hand: not wanted; it had been parked for 0:00:0")
    with redis.Redis.from_url(counter.broker) as client:
        told = [client.get(f"celery-task-meta-{task}") for task in (claim.task_id, "second-task")]
    assert all(meta is not None and b"FAILURE" in meta and b"not wanted" in meta for meta in told)


async def test_a_call_can_be_discarded(counter: Counter) -> None:
    call = await counter.park_call()
    assert (await counter.post(f"/{call}/discard"))["state"] == "discarded"
    shown = await counter.get(f"/{call}")
    assert (shown["error_type"], shown["error_message"]) == (
        "Discarded",
        "discarded by hand; it had been parked because of LLMUnavailableError",
    )
    assert (await counter.post(f"/{call}/replay"))["status"] == 409


async def test_what_is_answered_or_about_to_be_cannot_be_discarded(counter: Counter) -> None:
    job, claim = await counter.park()
    await counter.post(f"/{job}/replay")
    refused = await counter.post(f"/{job}/discard")
    assert (refused["status"], refused["error"]["remedy"]) == (409, f"cancel job {claim.job_id}, or wait")
    replay = await counter.jobs.claim(claim.job_id)
    assert replay
    await counter.recorder.record(replay, Succeeded({"content": "fine"}))
    assert (await counter.post(f"/{job}/discard"))["status"] == 409
    assert await counter.find_state(claim) is JobState.SUCCEEDED


async def test_an_id_of_no_one(counter: Counter) -> None:
    for request_id in ("nothing", "01890a5d-ac96-774b-bcce-b302099a8057"):
        asked = (counter.get(f"/{request_id}"), *(counter.post(f"/{request_id}/{do}") for do in ("replay", "discard")))
        for answer in [await each for each in asked]:
            assert (answer["status"], answer["error"]["field"]) == (404, "id")
            assert "llmyard failed list" in answer["error"]["remedy"]


async def test_stats_by_state_and_age(counter: Counter, superuser: asyncpg.Connection) -> None:
    await counter.park()
    call = await counter.park_call()
    await superuser.execute("update failed_calls set created_at = now() - interval '2 hours'")
    stats = await counter.get("/stats")
    assert stats["by_state"]["parked"]["number"] == 2
    assert stats["by_state"]["parked"]["oldest_seconds"] == pytest.approx(7200, abs=30)
    assert stats["parked_by_age"] == {"under_a_minute": 1, "under_a_day": 1}
    await counter.post(f"/{call}/discard")
    assert (await counter.get("/stats"))["parked_by_age"] == {"under_a_minute": 1}


async def test_a_discard_and_a_replay_at_the_same_moment_end_in_exactly_one_of_them(
    counter: Counter, superuser: asyncpg.Connection
) -> None:
    async def attempt(change: Any, request_id: UUID) -> str:
        try:
            return str((await change(request_id)).state)
        except ConflictError as error:
            return error.problem.rpartition(" ")[2]

    for _ in range(10):
        job, claim = await counter.park()
        changes = (counter.desk.discard, counter.desk.replay)
        seen = set(await asyncio.gather(*(attempt(change, UUID(job)) for change in changes)))
        state = await counter.find_state(claim)
        assert state in (JobState.DISCARDED, JobState.QUEUED)
        assert seen == ({"discarded"} if state is JobState.DISCARDED else {"replaying", "replayed"})
        failed = await superuser.fetchval("select state from failed_requests where id = $1", UUID(job))
        assert failed == ("discarded" if state is JobState.DISCARDED else "replaying")


async def test_a_broker_that_is_away_does_not_fail_a_replay(counter: Counter, no_broker: None) -> None:
    job, claim = await counter.park()
    assert (await counter.post(f"/{job}/replay"))["state"] == "replaying"
    assert await counter.find_state(claim) is JobState.QUEUED


async def test_one_that_was_cancelled_can_be_neither_replayed_nor_discarded_twice(counter: Counter) -> None:
    job, claim = await counter.park()
    async with counter.http.post(f"/v1/jobs/{claim.job_id}/cancel") as response:
        assert (await response.json())["state"] == "cancelled"
    assert (await counter.post(f"/{job}/replay"))["status"] == 409
    assert (await counter.post(f"/{job}/discard"))["state"] == "discarded"
    assert await counter.find_state(claim) is JobState.CANCELLED
