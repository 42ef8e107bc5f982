"""What every provider does, on a real model server: the part of the suites that needs no scripted fault.

A folder of tests that has such a server makes a class of its own from this one, and gives it the fixture `deployment`.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from llm_pool.asks import ask_stream, ask_whole
from llm_pool.catalog import Deployment
from llm_pool.providers.base import Provider
from llm_pool.providers.http import Connections
from llm_pool.providers.registry import PROVIDERS
from llm_pool.types import (
    ChatMessage,
    CompletionRequest,
    EmbeddingRequest,
    JsonFormat,
    ProviderAnswer,
    StreamChunk,
    Tool,
)
from shared import errors

SHAPE = {
    "type": "object",
    "properties": {"is_cat": {"type": "boolean"}, "legs": {"enum": [2, 4]}},
    "required": ["is_cat", "legs"],
    "additionalProperties": False,
}
COUNT_LEGS = Tool("count_legs", "counts the legs of an animal", SHAPE)


def talk(text: str = "How many legs have three cats?", **fields: Any) -> CompletionRequest:
    values = {"max_tokens": 12, "temperature": 1.0, **fields}
    return CompletionRequest("fast", (ChatMessage("user", text),), **values)


async def until_answered(ask: Any) -> ProviderAnswer:
    """A random model may say nothing at all, which is no answer."""
    for _ in range(5):
        try:
            return await ask()
        except errors.LLMBrokenAnswerError:
            continue
    return await ask()


class RealServerSuite:
    """Asks one deployment."""

    enforces_json = False
    forces_tools = False
    counts_streams = True

    @pytest.fixture
    async def connections(self) -> AsyncIterator[Connections]:
        connections = Connections()
        yield connections
        await connections.aclose()

    @pytest.fixture
    def provider(self, deployment: Deployment, connections: Connections) -> Provider:
        return PROVIDERS[deployment.provider](deployment, connections)

    async def test_a_whole_answer(self, provider: Provider, deployment: Deployment) -> None:
        answer = await until_answered(lambda: ask_whole(talk(), provider, deployment, 60))
        assert answer.finish_reason in ("stop", "length")
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 20
        assert answer.usage.completion_tokens > 0

    async def test_a_stream(self, provider: Provider, deployment: Deployment) -> None:
        pieces: list[StreamChunk] = []
        answer = await until_answered(lambda: ask_stream(talk(), pieces.append, provider, deployment, 60))
        assert "".join(piece.delta for piece in pieces) == answer.content != ""
        assert answer.finish_reason in ("stop", "length")
        assert (answer.usage is not None) == self.counts_streams

    async def test_the_bound_is_kept_and_told(self, provider: Provider, deployment: Deployment) -> None:
        for _ in range(10):
            answer = await until_answered(lambda: ask_whole(talk(max_tokens=3), provider, deployment, 60))
            if answer.finish_reason == "length":
                return
        pytest.fail("never cut by its length")

    async def test_eight_at_once(self, provider: Provider, deployment: Deployment) -> None:
        streams = [
            until_answered(lambda: ask_stream(talk(), lambda _: None, provider, deployment, 60)) for _ in range(4)
        ]
        wholes = [until_answered(lambda: ask_whole(talk(), provider, deployment, 60)) for _ in range(4)]
        assert len(await asyncio.gather(*streams, *wholes)) == 8

    async def test_a_stream_that_is_closed_leaves_the_server_well(
        self, provider: Provider, deployment: Deployment
    ) -> None:
        async with aclosing(provider.stream(talk(max_tokens=256))) as chunks:
            await anext(chunks)
        assert await until_answered(lambda: ask_whole(talk(), provider, deployment, 60))

    async def test_who_gives_up_leaves_the_server_well(self, provider: Provider, deployment: Deployment) -> None:
        with pytest.raises(errors.LLMTimeoutError):
            await provider.complete(talk(max_tokens=256), 0.01)
        assert await until_answered(lambda: ask_whole(talk(), provider, deployment, 60))

    async def test_it_is_there_and_elsewhere_it_is_not(
        self, provider: Provider, deployment: Deployment, connections: Connections
    ) -> None:
        assert await provider.is_healthy(10)
        nowhere = replace(deployment, base_url="http://127.0.0.1:9/v1")
        assert not await PROVIDERS[deployment.provider](nowhere, connections).is_healthy(1)

    async def test_vectors(self, provider: Provider) -> None:
        if "embed" not in provider.capabilities:
            with pytest.raises(errors.LLMUnsupportedError):
                await provider.embed(EmbeddingRequest("fast", ("a", "b")), 60)
            return
        answer = await provider.embed(EmbeddingRequest("fast", ("one", "two", "one")), 60)
        assert len(answer.vectors) == 3
        assert answer.vectors[0] == pytest.approx(answer.vectors[2], abs=1e-3)
        assert answer.vectors[0] != answer.vectors[1]

    async def test_json_of_the_wanted_shape(self, provider: Provider, deployment: Deployment) -> None:
        if not self.enforces_json:
            pytest.skip("this server does not hold its answers to a shape")
        request = talk(max_tokens=200, json_format=JsonFormat(SHAPE))
        whole = await until_answered(lambda: ask_whole(request, provider, deployment, 60))
        streamed = await until_answered(lambda: ask_stream(request, lambda _: None, provider, deployment, 60))
        for answer in (whole, streamed):
            assert set(json.loads(answer.content)) == {"is_cat", "legs"}

    async def test_a_tool_that_must_be_called(self, provider: Provider, deployment: Deployment) -> None:
        if not self.forces_tools:
            pytest.skip("this server cannot be told to call a tool")
        request = talk(max_tokens=200, tools=(COUNT_LEGS,), tool_choice="count_legs")
        whole = await ask_whole(request, provider, deployment, 60)
        streamed = await ask_stream(request, lambda _: None, provider, deployment, 60)
        for answer in (whole, streamed):
            assert [call.name for call in answer.tool_calls] == ["count_legs"]
            assert answer.finish_reason == "tool_calls"
            assert set(json.loads(answer.tool_calls[0].arguments)) == {"is_cat", "legs"}
