"""The pool service as its callers see it: bytes, statuses, and what happens when they hang up."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from llm_pool.catalog import Catalog, ModelGroup
from llm_pool.pool import Pool
from llm_pool.remote.remote import RemotePool
from llm_pool.remote.wire import STATUS_BY_ERROR
from llm_pool.service import create_app, open_service
from llm_pool.status.metrics import open_metrics
from shared.errors import (
    ConfigurationError,
    LLMError,
    LLMOverloadedError,
    LLMRateLimitedError,
    LLMSchemaMismatchError,
    LLMStreamBrokenError,
    LLMUnavailableError,
)
from shared.settings import Settings
from tests.fakes.provider_server import OPENAI, send_bytes, send_json, serve
from tests.fakes.scripted_provider import Script, ask, build_catalog, build_registry, deploy
from tests.fakes.uvicorn_server import serve_app

BODY = {"model": "fast", "messages": [{"role": "user", "content": "hi"}], "tenant_id": "acme"}
CATALOG = build_catalog(ModelGroup("fast", (deploy("a"),), retries=0))


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def url(script: Script) -> AsyncIterator[str]:
    async with serve_app(create_app(CATALOG, Pool(CATALOG, registry=build_registry({"a": script})))) as url:
        yield url


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def post(session: aiohttp.ClientSession, url: str, body: object) -> tuple[int, dict[str, object]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    async with session.post(f"{url}/complete", data=data, headers=headers) as response:
        return response.status, await response.json()


async def test_an_answer(session: aiohttp.ClientSession, url: str) -> None:
    status, body = await post(session, url, BODY)
    assert status == 200
    assert body["content"] == "fine"
    assert body["model"] == "scripted-1"
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 2}
    assert (body["provider"], body["deployment"], body["finish_reason"]) == ("scripted", "a", "stop")
    assert len(body["attempts"]) == 1


@pytest.mark.parametrize("path", ["/complete", "/v1/chat/completions", "/v1/messages"])
async def test_a_page_of_another_site_may_not_spend_our_money(
    session: aiohttp.ClientSession, url: str, script: Script, path: str
) -> None:
    headers = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    async with session.post(url + path, data=json.dumps(BODY), headers=headers) as response:
        assert (response.status, (await response.json())["error"]["field"]) == (403, "Origin")
    assert script.asked == []


async def test_all_providers_down_has_exactly_the_agreed_body(
    session: aiohttp.ClientSession, url: str, script: Script
) -> None:
    script.steps = [LLMOverloadedError("down")]
    assert await post(session, url, BODY) == (503, {"error": "All providers unavailable"})


async def test_attempts_of_a_failure_come_on_request(session: aiohttp.ClientSession, url: str, script: Script) -> None:
    script.steps = [LLMOverloadedError("down")]
    status, body = await post(session, url, {**BODY, "include_attempts": True})
    assert (status, body["error"]) == (503, "All providers unavailable")
    assert body["attempts"][0]["error_type"] == "LLMOverloadedError"


async def test_retry_after_is_told_to_everyone(session: aiohttp.ClientSession, url: str, script: Script) -> None:
    script.steps = [LLMRateLimitedError("full", retry_after_seconds=61.25)]
    async with session.post(f"{url}/complete", json=BODY) as response:
        assert response.status == 503
        assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("62", "61250")


async def test_an_unknown_group_is_404_and_names_the_known_ones(session: aiohttp.ClientSession, url: str) -> None:
    status, body = await post(session, url, {**BODY, "model": "best"})
    assert (status, body) == (
        404,
        {"error": {"field": "model", "problem": "there is no model group 'best'", "remedy": "use one of: fast"}},
    )


def with_content(content: object) -> dict[str, object]:
    return {**BODY, "messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"\xff\xfe", "body"),
        (b"[" * 100_000, "body"),
        ([], "body"),
        ({}, "model"),
        ({**BODY, "messages": []}, "messages"),
        ({**BODY, "messages": "hi"}, "messages"),
        ({**BODY, "messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role"),
        (with_content(None), "messages.0.content"),
        (with_content("a\x00b"), "messages.0.content"),
        (with_content("half \ud83d"), "messages.0.content"),
        ({**BODY, "modle": "x"}, "modle"),
        ({**BODY, "half \ud83d": "x"}, None),
        ({**BODY, "model": "half \ud83d"}, "model"),
        ({**BODY, "tenant_id": "half \ud83d"}, "tenant_id"),
        ({**BODY, "temperature": float("nan")}, "temperature"),
        ({**BODY, "timeout_seconds": 0}, "timeout_seconds"),
        ({**BODY, "timeout_seconds": float("inf")}, "timeout_seconds"),
        ({**BODY, "max_tokens": 0}, "max_tokens"),
    ],
)
async def test_an_unusable_body_is_422_with_field_problem_and_remedy(
    session: aiohttp.ClientSession, url: str, script: Script, body: object, field: str | None
) -> None:
    status, answer = await post(session, url, body)
    assert status == 422
    assert answer["error"].keys() == {"field", "problem", "remedy"}
    assert field in (None, answer["error"]["field"])
    assert "Value error" not in answer["error"]["problem"]
    assert script.asked == []


@pytest.mark.parametrize("path", ["complete", "stream", "v1/chat/completions"])
@pytest.mark.parametrize("begins", [False, True])
async def test_a_caller_that_hangs_up_cancels_its_call(url: str, script: Script, path: str, begins: bool) -> None:
    """Before the first piece of a stream and in the middle of it; nothing has to be sent for it to be noticed."""
    script.hangs = True
    script.streams = [["fi"] if begins else []]
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    dialect = {"stream": True} if path.startswith("v1") else {"tenant_id": "acme"}
    body = json.dumps({"model": "fast", "messages": BODY["messages"], **dialect}).encode()
    writer.write(
        b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (path.encode(), len(body), body)
    )
    await asyncio.wait_for(script.started.wait(), 5)
    writer.close()
    await asyncio.wait_for(script.cancelled.wait(), 1)


async def test_a_stream_is_lines_and_the_last_one_holds_the_answer(session: aiohttp.ClientSession, url: str) -> None:
    async with session.post(f"{url}/stream", json=BODY) as response:
        assert (response.status, response.content_type) == (200, "application/x-ndjson")
        lines = [json.loads(line) for line in (await response.read()).splitlines()]
    assert lines[:2] == [{"delta": "fi"}, {"delta": "ne"}]
    assert lines[2]["finish_reason"] == "stop"
    assert lines[2]["response"]["content"] == "fine"
    assert len(lines) == 3


async def test_a_stream_that_breaks_says_so_in_its_last_line(
    session: aiohttp.ClientSession, url: str, script: Script
) -> None:
    script.streams = [["fi", LLMOverloadedError("down", retry_after_seconds=7.5)]]
    async with session.post(f"{url}/stream", json=BODY) as response:
        *_, last = [json.loads(line) for line in (await response.read()).splitlines()]
    assert last["error"]["type"] == "LLMStreamBrokenError"
    assert (last["error"]["partial_text"], last["retry_after_seconds"]) == ("fi", 7.5)


async def test_a_stream_that_never_begins_is_an_ordinary_error(
    session: aiohttp.ClientSession, url: str, script: Script
) -> None:
    script.streams = [[LLMOverloadedError("down")]]
    async with session.post(f"{url}/stream", json=BODY) as response:
        assert (response.status, await response.json()) == (503, {"error": "All providers unavailable"})


async def test_vectors(session: aiohttp.ClientSession, url: str) -> None:
    async with session.post(f"{url}/embed", json={"model": "fast", "inputs": ["one"]}) as response:
        assert (response.status, (await response.json())["vectors"]) == (200, [[3.0, 1.0]])


async def test_who_is_there_and_how_it_stands(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(f"{url}/deployments") as response:
        assert await response.json() == {"a": True}
    async with session.get(f"{url}/status") as response:
        assert (await response.json()).keys() == {"quotas", "answering"}


async def test_metrics_where_there_are_any(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(f"{url}/metrics") as response:
        assert response.status == 404
    app = create_app(CATALOG, Pool(CATALOG, registry=build_registry({"a": Script()})), metrics=open_metrics())
    async with serve_app(app) as url, session.get(f"{url}/metrics") as response:
        assert (response.status, response.content_type) == (200, "text/plain")
        assert "llm_requests_total" in await response.text()


@pytest.mark.parametrize("error", STATUS_BY_ERROR, ids=lambda error: error.__name__)
def test_each_error_has_a_status_of_its_kind(error: type[LLMError]) -> None:
    """What the caller can mend is theirs, what time mends is ours."""
    status = STATUS_BY_ERROR[error]
    assert (status >= 500 or status in (402, 429)) == (error.parks or error is LLMSchemaMismatchError)


async def test_health_and_readiness(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(f"{url}/health") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})
    async with session.get(f"{url}/ready") as response:
        assert (response.status, (await response.json())["status"]) == (200, "ready")
    empty = Catalog({"fast": ModelGroup("fast", ())})
    async with serve_app(create_app(empty, Pool(empty))) as url, session.get(f"{url}/ready") as response:
        assert response.status == 503


async def test_the_service_closes_its_pool(script: Script) -> None:
    async with serve_app(create_app(CATALOG, Pool(CATALOG, registry=build_registry({"a": script})))):
        assert not script.closed
    assert script.closed


async def test_without_a_provider_the_start_stops_with_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "llmyard.yaml"
    path.write_text(
        "deployments: [{name: a, provider: mock, model: m, api_key: '${KEY}'}]\ngroups: {fast: {deployments: [a]}}"
    )
    with pytest.raises(ConfigurationError, match="set KEY or LLMYARD_CONFIG"):
        await open_service(Settings(llmyard_config=path), lookup={}.get)
    settings = Settings(llmyard_config=path, llmyard_mock_when_no_provider=True)
    async with serve_app(await open_service(settings, lookup={}.get)) as url:
        assert (await RemotePool(url).complete(ask())).content == "[mock answer] hello"


def test_whatever_a_pool_raises_has_a_status() -> None:
    def walk(error: type[LLMError]) -> list[type[LLMError]]:
        return [error, *(found for below in error.__subclasses__() for found in walk(below))]

    final = {error for error in walk(LLMError) if not error.falls_back} - {LLMError}
    assert final <= STATUS_BY_ERROR.keys()


async def test_a_service_that_is_not_there_is_an_outage() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        pool = RemotePool(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(LLMUnavailableError, match="pool service did not answer"):
            await pool.complete(ask())
        await pool.aclose()


@pytest.mark.parametrize(
    "behave",
    [
        send_bytes(b"<html>Bad Gateway</html>", 502),
        send_bytes(b"Internal Server Error", 500),
        send_json({"detail": "Not Found"}, 404),
        send_bytes(b"<html>hello</html>"),
        send_json({"content": "no more"}),
        send_json({"error": "All providers unavailable", "attempts": [{"deployment": 1}]}, 503),
    ],
)
async def test_something_else_that_answers_there_is_an_outage_too(behave) -> None:
    async with serve(replace(OPENAI, path="/complete", base_path="")) as server:
        server.behave = behave
        pool = RemotePool(server.base_url)
        with pytest.raises(LLMUnavailableError):
            await pool.complete(ask())
        await pool.aclose()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", None),
        (b'{"delta": "fi"}\n', "fi"),
        (b'{"delta": "fi"}\n{"delta": "n', "fi"),
        (b'{"delta": "fi"}\n<html>\n', "fi"),
        (b'{"detail": "Not Found"}', None),
    ],
)
async def test_a_stream_that_just_ends_is_a_failure(body: bytes, text: str | None) -> None:
    async with serve(replace(OPENAI, path="/stream", base_path="")) as server:
        server.behave = send_bytes(body, content_type="application/x-ndjson")
        pool = RemotePool(server.base_url)
        expected = LLMUnavailableError if text is None else LLMStreamBrokenError
        with pytest.raises(expected) as caught:
            await drain(pool)
        assert getattr(caught.value, "partial_text", None) == text
        await pool.aclose()


async def drain(pool: RemotePool) -> None:
    async for _ in pool.stream(ask()):
        pass
