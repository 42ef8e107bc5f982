"""What every provider does, whatever its dialect: one suite over all that speak HTTP, against a real server."""

import asyncio
import json
import socket
import ssl
import time

import pytest
import trustme

from llm_pool.catalog import Catalog, Deployment, ModelGroup
from llm_pool.pool import Pool
from llm_pool.providers.base import Provider
from llm_pool.providers.http import Connections
from llm_pool.providers.registry import PROVIDERS
from llm_pool.types import CompletionRequest, ProviderAnswer
from shared import errors
from shared.attempts import Usage
from tests.contracts.served import MESSAGES, ask, describe
from tests.fakes.dialects import ANTHROPIC, OLLAMA, OPENAI, Dialect
from tests.fakes.provider_server import (
    Behaviour,
    ProviderServer,
    begin_and_stall,
    hang_up,
    never_answer,
    reset,
    send_bytes,
    send_half,
    send_json,
    serve,
    trickle,
)


async def test_an_answer(provider: Provider) -> None:
    assert await ask(provider) == ProviderAnswer("fine", "model-as-served", "stop", Usage(11, 5))


async def test_an_answer_cut_by_its_length_says_so(provider: Provider, server: ProviderServer) -> None:
    server.behave = send_json(server.dialect.answer("fi", server.dialect.cut_by_length))
    assert (await ask(provider)).finish_reason == "length"


async def test_what_is_sent(provider: Provider, server: ProviderServer) -> None:
    await ask(provider)
    received = server.received[0]
    assert received.body["model"] == "model-as-configured"
    assert "temperature" not in json.dumps(received.body)
    assert received.body["messages"][-1] == {"role": "user", "content": "hello"}
    assert "be brief" in json.dumps(received.body)
    assert "secret" in str(received.headers)


async def test_temperature_and_bound_are_sent_where_given(provider: Provider, server: ProviderServer) -> None:
    await ask(provider, temperature=0.25, max_tokens=77)
    body = json.dumps(server.received[0].body)
    assert '"temperature": 0.25' in body
    assert ": 77" in body


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (400, errors.LLMInvalidRequestError),
        (401, errors.LLMAuthenticationError),
        (404, errors.LLMModelNotFoundError),
        (413, errors.LLMContextTooLongError),
        (429, errors.LLMRateLimitedError),
        (500, errors.LLMOverloadedError),
        (503, errors.LLMOverloadedError),
        (529, errors.LLMOverloadedError),
    ],
)
async def test_an_error_status(
    provider: Provider, server: ProviderServer, status: int, error_class: type[errors.LLMError]
) -> None:
    server.behave = send_json(server.dialect.error("as people read it"), status)
    with pytest.raises(error_class, match=f"HTTP {status}") as caught:
        await ask(provider)
    assert type(caught.value) is error_class
    assert "as people read it" in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"<html>Bad Gateway</html>", b"null", b"[]", b'"text"', b'{"error": null}'])
async def test_an_error_status_without_the_dialects_body(
    provider: Provider, server: ProviderServer, body: bytes
) -> None:
    server.behave = send_bytes(body, status=502, content_type="text/html")
    with pytest.raises(errors.LLMOverloadedError):
        await ask(provider)


BROKEN_BODIES = [b"", b"<html>hello</html>", b"null", b"[]", b"{}", b"\xff\xfe", b'{"choices": [], "content": []}']


@pytest.mark.parametrize("body", BROKEN_BODIES)
async def test_success_without_an_answer_is_none(provider: Provider, server: ProviderServer, body: bytes) -> None:
    server.behave = send_bytes(body)
    with pytest.raises(errors.LLMBrokenAnswerError):
        await ask(provider)


async def test_success_with_an_error_inside_is_a_failure_that_falls_back(
    provider: Provider, server: ProviderServer
) -> None:
    server.behave = send_json(server.dialect.error("upstream is down"))
    with pytest.raises(errors.LLMError, match="upstream is down") as caught:
        await ask(provider)
    assert caught.value.falls_back


@pytest.mark.parametrize("how", ["missing", "null", "unheard of"])
async def test_an_answer_without_its_end_marker_was_cut_off(
    provider: Provider, server: ProviderServer, how: str
) -> None:
    answer = server.dialect.answer("fi", server.dialect.stopped)
    marked = server.dialect.find_marked(answer)
    marked[server.dialect.end_marker] = None if how == "null" else "unheard of"
    if how == "missing":
        del marked[server.dialect.end_marker]
    server.behave = send_json(answer)
    with pytest.raises(errors.LLMBrokenAnswerError):
        await ask(provider)


async def test_a_body_cut_off_in_the_middle_is_typed(provider: Provider, server: ProviderServer) -> None:
    server.behave = send_half(json.dumps(server.dialect.answer("fine " * 50, server.dialect.stopped)).encode())
    with pytest.raises(errors.LLMBrokenAnswerError):
        await ask(provider)


@pytest.mark.parametrize("fault", [hang_up, reset], ids=["closed", "reset"])
async def test_a_connection_that_breaks(provider: Provider, server: ProviderServer, fault: Behaviour) -> None:
    server.behave = fault
    with pytest.raises(errors.LLMConnectionError) as caught:
        await ask(provider)
    assert caught.value.was_sent


async def test_nobody_listens(dialect: Dialect) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        deployment = Deployment("one", dialect.provider, "m", f"http://127.0.0.1:{taken.getsockname()[1]}", "secret")
        connections = Connections()
        provider = PROVIDERS[dialect.provider](deployment, connections)
        with pytest.raises(errors.LLMConnectionError) as caught:
            await ask(provider)
        assert not caught.value.was_sent
        await provider.aclose()
        await connections.aclose()


@pytest.mark.parametrize("behave", [never_answer, trickle, begin_and_stall])
async def test_the_time_allowed_bounds_the_whole(provider: Provider, server: ProviderServer, behave) -> None:
    server.behave = behave
    started = time.monotonic()
    with pytest.raises(errors.LLMTimeoutError):
        await ask(provider, timeout_seconds=0.3)
    assert 0.25 < time.monotonic() - started < 1.5


async def test_cancelling_closes_the_socket(provider: Provider, server: ProviderServer) -> None:
    server.behave = never_answer
    task = asyncio.create_task(ask(provider, timeout_seconds=60))
    await asyncio.wait_for(server.asked.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(server.hung_up.wait(), 1)


async def test_two_hundred_calls_are_in_flight_at_once(provider: Provider, server: ProviderServer) -> None:
    all_there = asyncio.Event()

    async def answer_when_all_are_there(request):
        if server.in_flight == 200:
            all_there.set()
        await asyncio.wait_for(all_there.wait(), 10)
        return await send_json(server.dialect.answer("fine", server.dialect.stopped))(request)

    server.behave = answer_when_all_are_there
    answers = await asyncio.gather(*(ask(provider, timeout_seconds=20) for _ in range(200)))
    assert len(answers) == server.most_in_flight == 200


async def test_connections_are_kept(provider: Provider, server: ProviderServer) -> None:
    for _ in range(3):
        await ask(provider)
    assert len(server.connections) == 1


async def test_a_redirect_is_not_followed_with_the_key(provider: Provider, server: ProviderServer) -> None:
    server.behave = send_json({}, status=307, headers={"Location": server.base_url + "/elsewhere"})
    with pytest.raises(errors.LLMBrokenAnswerError):
        await ask(provider)
    assert len(server.received) == 1


async def test_one_ssl_context_for_a_whole_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    at_servers = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(at_servers)
    made: list[ssl.SSLContext] = []
    make = ssl.create_default_context

    def count(*args, **kwargs) -> ssl.SSLContext:
        made.append(make(*args, **kwargs))
        authority.configure_trust(made[-1])
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", count)
    async with (
        serve(OPENAI, at_servers) as openai,
        serve(ANTHROPIC, at_servers) as anthropic,
        serve(OLLAMA, at_servers) as ollama,
    ):
        groups = {
            name: ModelGroup(name, (describe(server, name),))
            for name, server in {"a": openai, "b": anthropic, "c": ollama, "d": ollama}.items()
        }
        pool = Pool(Catalog(groups))
        for name in groups:
            await pool.complete(CompletionRequest(name, MESSAGES))
        await pool.aclose()
    assert len(made) == 1
