"""What is Ollama's own: NDJSON streams and their faults, tools, vectors, and what its official client gets wrong."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing

import ollama
import pytest

from llm_pool.asks import ask_stream
from llm_pool.catalog import Catalog, Deployment, ModelGroup
from llm_pool.pool import Pool
from llm_pool.providers.http import Connections
from llm_pool.providers.ollama import OllamaProvider, create_ollama
from llm_pool.types import (
    Capability,
    ChatMessage,
    CompletionRequest,
    EmbeddingAnswer,
    EmbeddingRequest,
    JsonFormat,
    ProviderAnswer,
    StreamChunk,
    Tool,
    ToolCall,
)
from shared import errors
from shared.attempts import Usage
from tests.fakes.ollama_dialect import Json, Lines, OllamaServer, serve_ollama

QUESTION = (ChatMessage("user", "hello"),)
NESTED = {
    "type": "object",
    "properties": {
        "place": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "days": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        "unit": {"anyOf": [{"const": "C"}, {"const": "F"}]},
    },
    "required": ["place"],
    "additionalProperties": False,
}
WEATHER = Tool("get_weather", "the weather of a place", NESTED)
TIME = Tool("get_time", "the time of a place", {"type": "object", "properties": {}})


@pytest.fixture
async def server() -> AsyncIterator[OllamaServer]:
    async with serve_ollama() as server:
        yield server


def deploy(server: OllamaServer, **fields: object) -> Deployment:
    return Deployment("one", "ollama", **{"model": "qwen3:8b", "base_url": server.base_url, **fields})


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    connections = Connections()
    yield connections
    await connections.aclose()


@pytest.fixture
async def provider(server: OllamaServer, connections: Connections) -> AsyncIterator[OllamaProvider]:
    provider = create_ollama(deploy(server), connections)
    yield provider
    await provider.aclose()


def ask(**fields: object) -> CompletionRequest:
    return CompletionRequest("fast", **{"messages": QUESTION, **fields})


async def stream(
    provider: OllamaProvider, server: OllamaServer, timeout_seconds: float = 5.0, **fields: object
) -> tuple[ProviderAnswer, list[StreamChunk]]:
    pieces: list[StreamChunk] = []
    answer = await ask_stream(ask(**fields), pieces.append, provider, deploy(server), timeout_seconds)
    return answer, pieces


async def test_a_stream_comes_in_order_and_ends_with_its_usage(provider: OllamaProvider, server: OllamaServer) -> None:
    answer, pieces = await stream(provider, server)
    assert [piece.delta for piece in pieces] == ["two ", "words "]
    assert answer == ProviderAnswer("two words ", "qwen3:8b", "stop", Usage(11, 5))
    assert server.received[0][2]["stream"] is True


@pytest.mark.parametrize("count", [None, "many", -1, 2**40, 1.5])
async def test_a_count_that_is_none_does_not_spoil_the_answer(
    provider: OllamaProvider, server: OllamaServer, count: object
) -> None:
    server.lines = lambda lines: [*lines[:-1], {**lines[-1], "eval_count": count}]
    answer = await provider.complete(ask(), 5)
    assert (answer.content, answer.usage) == ("two words", None)


async def test_a_stream_cut_by_its_length_says_so(provider: OllamaProvider, server: OllamaServer) -> None:
    answer, _ = await stream(provider, server, max_tokens=1)
    assert answer.finish_reason == "length"


async def test_parameters_are_sent_by_ollamas_names(provider: OllamaProvider, server: OllamaServer) -> None:
    await provider.complete(ask(temperature=0.5, top_p=0.9, max_tokens=7, stop=("END",)), 5)
    options = server.received[0][2]["options"]
    assert options == {"temperature": 0.5, "top_p": 0.9, "num_predict": 7, "stop": ["END"]}


async def test_options_go_where_ollama_reads_them(server: OllamaServer, connections: Connections) -> None:
    options = {"think": False, "num_ctx": 8192, "keep_alive": "5m", "embedding_model": "nomic-embed-text"}
    await create_ollama(deploy(server, options=options), connections).complete(ask(), 5)
    body = server.received[0][2]
    assert (body["think"], body["keep_alive"], body["options"]) == (False, "5m", {"num_ctx": 8192})
    assert "embedding_model" not in json.dumps(body)


@pytest.mark.parametrize(("schema", "sent"), [(None, "json"), (NESTED, NESTED)])
async def test_json_is_asked_for_by_format(
    provider: OllamaProvider, server: OllamaServer, schema: Json | None, sent: object
) -> None:
    await provider.complete(ask(json_format=JsonFormat(schema)), 5)
    assert server.received[0][2]["format"] == sent


async def test_the_whole_of_a_tools_schema_is_sent(provider: OllamaProvider, server: OllamaServer) -> None:
    await provider.complete(ask(tools=(WEATHER,)), 5)
    assert server.received[0][2]["tools"][0]["function"]["parameters"] == NESTED


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", ["get_weather", "get_time"]),
        ("required", ["get_weather", "get_time"]),
        ("get_time", ["get_time"]),
        ("none", []),
    ],
)
async def test_the_choice_of_a_tool_leaves_the_others_out(
    provider: OllamaProvider, server: OllamaServer, choice: str, sent: list[str]
) -> None:
    await provider.complete(ask(tools=(WEATHER, TIME), tool_choice=choice), 5)
    assert [tool["function"]["name"] for tool in server.received[0][2].get("tools", [])] == sent


CALLS = [{"name": "get_weather", "arguments": {"place": {"city": "Kyoto"}}}, {"name": "get_time", "arguments": {}}]


async def test_tool_calls_whole(provider: OllamaProvider, server: OllamaServer) -> None:
    server.tool_calls = CALLS
    answer = await provider.complete(ask(tools=(WEATHER, TIME)), 5)
    assert answer.finish_reason == "tool_calls"
    assert answer.tool_calls[0] == ToolCall("call_0", "get_weather", '{"place": {"city": "Kyoto"}}')
    assert answer.tool_calls[1] == ToolCall("call_1", "get_time", "{}")


async def test_tool_calls_in_a_stream(provider: OllamaProvider, server: OllamaServer) -> None:
    server.tool_calls = CALLS
    answer, _ = await stream(provider, server, tools=(WEATHER, TIME))
    assert answer.finish_reason == "tool_calls"
    assert [(call.id, call.name) for call in answer.tool_calls] == [("call_0", "get_weather"), ("call_1", "get_time")]


async def test_tool_calls_of_an_older_server_are_told_apart(provider: OllamaProvider, server: OllamaServer) -> None:
    server.tool_calls, server.numbers_tool_calls = CALLS, False
    answer = await provider.complete(ask(tools=(WEATHER, TIME)), 5)
    assert len({call.id for call in answer.tool_calls}) == 2


async def test_a_conversation_with_tools_is_told_in_ollamas_way(provider: OllamaProvider, server: OllamaServer) -> None:
    called = ToolCall("c1", "get_weather", '{"place": {"city": "Kyoto"}}')
    broken = ToolCall("c2", "get_time", "{oh")
    talk = (
        *QUESTION,
        ChatMessage("assistant", tool_calls=(called, broken)),
        ChatMessage("tool", "rain", tool_call_id="c1"),
    )
    await provider.complete(ask(messages=talk), 5)
    _, said, answered = server.received[0][2]["messages"]
    assert said["tool_calls"][0] == {
        "id": "c1",
        "function": {"name": "get_weather", "arguments": {"place": {"city": "Kyoto"}}},
    }
    assert said["tool_calls"][1]["function"]["arguments"] == {"arguments": "{oh"}
    assert answered == {"role": "tool", "content": "rain", "tool_name": "get_weather", "tool_call_id": "c1"}


async def test_vectors(provider: OllamaProvider, server: OllamaServer) -> None:
    answer = await provider.embed(EmbeddingRequest("fast", ("a", "abc"), dimensions=2), 5)
    assert answer == EmbeddingAnswer(((1.0, 1.0), (3.0, 3.0)), "nomic-embed-text", Usage(7, 0))


@pytest.mark.parametrize(
    ("supports", "options", "model"),
    [
        (None, {}, "nomic-embed-text"),
        (None, {"embedding_model": "bge-m3"}, "bge-m3"),
        (("embed",), {}, "qwen3:8b"),
        (("chat", "embed"), {}, "qwen3:8b"),
        (("embed",), {"embedding_model": "bge-m3"}, "bge-m3"),
    ],
)
async def test_a_model_for_chats_is_asked_for_no_vectors_unless_it_says_that_it_makes_them(
    server: OllamaServer,
    connections: Connections,
    supports: tuple[Capability, ...] | None,
    options: Mapping[str, object],
    model: str,
) -> None:
    server.models = (*server.models, "bge-m3")
    provider = create_ollama(deploy(server, supports=supports, options=options), connections)
    assert (await provider.embed(EmbeddingRequest("fast", ("a",)), 5)).model == model


@pytest.mark.parametrize("embeddings", [[], [[]], [[1.0], [2.0]], [["x"]], "x", {}])
async def test_vectors_that_do_not_fit_the_inputs_are_none(
    provider: OllamaProvider, server: OllamaServer, embeddings: object
) -> None:
    server.embeddings = embeddings
    with pytest.raises(errors.LLMBrokenAnswerError):
        await provider.embed(EmbeddingRequest("fast", ("a",)), 5)


def after_one_line(*rest: Json | bytes):
    def change(lines: Lines) -> Lines:
        return [lines[0], *rest]

    return change


FAULTS = {
    "ends in the middle": (after_one_line(), errors.LLMBrokenAnswerError),
    "ends in the middle of a line": (after_one_line(b'{"message": {"con'), errors.LLMBrokenAnswerError),
    "an error line": (after_one_line({"error": "llama runner process has terminated"}), errors.LLMOverloadedError),
    "an error line that is JSON in itself": (after_one_line({"error": "5"}), errors.LLMBrokenAnswerError),
    "an error that is no text": (after_one_line({"error": {"deep": 1}}), errors.LLMBrokenAnswerError),
    "no JSON": (after_one_line(b"<html>\n"), errors.LLMBrokenAnswerError),
    "no object": (after_one_line(b"null\n"), errors.LLMBrokenAnswerError),
    "a list": (after_one_line(b"[]\n"), errors.LLMBrokenAnswerError),
    "wrong types": (after_one_line({"message": {"content": 5}}), errors.LLMBrokenAnswerError),
    "bytes that are no text": (after_one_line(b"\xff\xfe\n"), errors.LLMBrokenAnswerError),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_stream_that_breaks_keeps_what_came(provider: OllamaProvider, server: OllamaServer, fault: str) -> None:
    server.lines, cause = FAULTS[fault]
    with pytest.raises(errors.LLMStreamBrokenError) as caught:
        await stream(provider, server)
    assert caught.value.partial_text == "two "
    assert type(caught.value.__cause__) is cause


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_stream_that_breaks_before_its_first_word_is_a_plain_failure(
    provider: OllamaProvider, server: OllamaServer, fault: str
) -> None:
    change, cause = FAULTS[fault]
    server.lines = lambda lines: change(lines)[1:]
    with pytest.raises(cause) as caught:
        await stream(provider, server)
    assert type(caught.value) is cause


async def test_a_connection_reset_in_the_middle_is_typed(provider: OllamaProvider, server: OllamaServer) -> None:
    server.lines, server.ends = after_one_line(), "reset"
    with pytest.raises(errors.LLMStreamBrokenError) as caught:
        await stream(provider, server)
    assert isinstance(caught.value.__cause__, errors.LLMBrokenAnswerError | errors.LLMConnectionError)


def say_nothing(_: Lines) -> Lines:
    return []


@pytest.mark.parametrize("ends", ["cleanly", "reset"])
async def test_an_empty_stream_is_a_plain_failure(provider: OllamaProvider, server: OllamaServer, ends: str) -> None:
    server.lines, server.ends = say_nothing, ends
    with pytest.raises((errors.LLMBrokenAnswerError, errors.LLMConnectionError)):
        await stream(provider, server)


async def test_a_stream_that_stands_still_is_a_timeout(provider: OllamaProvider, server: OllamaServer) -> None:
    server.lines, server.ends = say_nothing, "hang"
    with pytest.raises(errors.LLMTimeoutError):
        await stream(provider, server, timeout_seconds=0.2)
    await asyncio.wait_for(server.hung_up.wait(), 1)


async def test_a_model_that_was_only_loaded_is_no_answer(provider: OllamaProvider, server: OllamaServer) -> None:
    server.lines = lambda lines: [{**lines[-1], "done_reason": "load"}]
    with pytest.raises(errors.LLMBrokenAnswerError, match="only loaded"):
        await provider.complete(ask(), 5)
    with pytest.raises(errors.LLMBrokenAnswerError):
        await stream(provider, server)


async def test_a_status_before_the_stream_is_typed_with_its_wait(
    provider: OllamaProvider, server: OllamaServer
) -> None:
    server.status, server.headers = 429, {"Retry-After": "3"}
    with pytest.raises(errors.LLMRateLimitedError, match="as people read it") as caught:
        await stream(provider, server)
    assert caught.value.retry_after_seconds == 3.0


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029"])
async def test_a_stream_may_hold_what_httpx_takes_for_the_end_of_a_line(
    provider: OllamaProvider, server: OllamaServer, character: str
) -> None:
    server.say = f"be{character}fore"
    with pytest.raises(json.JSONDecodeError):
        await read_with_the_bare_client(server)
    assert (await stream(provider, server))[0].content == f"be{character}fore "


async def read_with_the_bare_client(server: OllamaServer) -> None:
    client = ollama.AsyncClient(server.base_url)
    async for _ in await client.chat(model="qwen3:8b", messages=[{"role": "user", "content": "x"}], stream=True):
        pass


async def test_closing_a_stream_closes_its_socket(provider: OllamaProvider, server: OllamaServer) -> None:
    server.ends = "hang"
    async with aclosing(provider.stream(ask())) as chunks:
        await anext(chunks)
    await asyncio.wait_for(server.hung_up.wait(), 1)


async def test_a_text_split_in_the_middle_of_a_character_comes_whole(
    provider: OllamaProvider, server: OllamaServer
) -> None:
    server.say, server.seconds_between_lines = "日本", 0.02

    def split(lines: Lines) -> Lines:
        first = json.dumps(lines[0], ensure_ascii=False).encode() + b"\n"
        at = first.index("日".encode()) + 1
        return [first[:at], first[at:], *lines[1:]]

    server.lines = split
    assert (await stream(provider, server))[0].content == "日本 "


async def test_a_server_is_healthy_while_it_lists_its_models(provider: OllamaProvider, server: OllamaServer) -> None:
    assert await provider.is_healthy(1)
    server.status = 500
    assert not await provider.is_healthy(1)


async def test_nobody_there_is_not_healthy(connections: Connections) -> None:
    provider = create_ollama(Deployment("one", "ollama", "m", "http://127.0.0.1:9"), connections)
    assert not await provider.is_healthy(1)


async def test_the_key_of_the_environment_is_sent_nowhere(
    server: OllamaServer, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "of the environment")
    await create_ollama(deploy(server), connections).complete(ask(), 5)
    await create_ollama(deploy(server, api_key="ours"), connections).complete(ask(), 5)
    local, cloud = (headers.get("Authorization") for _, headers, _ in server.received)
    assert (local, cloud) == (None, "Bearer ours")


async def test_cloud_first_then_local(server: OllamaServer) -> None:
    async with serve_ollama() as local:
        server.status = 503
        cloud = Deployment("cloud", "ollama", "qwen3:8b", server.base_url, "secret")
        group = ModelGroup("fast", (cloud, deploy(local)), strategy="priority", retries=0)
        pool = Pool(Catalog({"fast": group}))
        response = await pool.complete(ask())
        await pool.aclose()
    assert [attempt.deployment for attempt in response.attempts] == ["cloud", "one"]
    assert response.content == "two words"


async def test_the_fake_speaks_to_the_bare_client_as_ollama_does(server: OllamaServer) -> None:
    """Held against the official client, so that the fake does not agree with our adapter alone."""
    client = ollama.AsyncClient(server.base_url)
    assert (await client.chat("qwen3:8b", [{"role": "user", "content": "x"}])).message.content == "two words"
    assert (await client.generate("qwen3:8b", "x")).response == "two words"
    assert (
        "".join([part.response async for part in await client.generate("qwen3:8b", "x", stream=True)]) == "two words "
    )
    assert (await client.embed("nomic-embed-text", "abc")).embeddings == [[3.0] * 4]
    assert len((await client.list()).models) == 2
    with pytest.raises(ollama.ResponseError, match="not found"):
        await client.chat("unknown")
