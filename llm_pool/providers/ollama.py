"""Ollama, local or in its cloud, through its official client. Both are deployments: cloud with a key, local without.

Options of its deployments: `think`, `format` and `keep_alive` as in Ollama's chat request, any of its model options
such as `num_ctx`, and `embedding_model`, which is asked for vectors. Without it `model` is, where the deployment says
`supports: [embed]`, and `nomic-embed-text` for any other, whose model is for chats.

Ollama cannot be made to call a tool: of `tool_choice`, a name leaves the other tools out and `none` all of them.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import TypeVar, cast

import ollama
from pydantic import BaseModel

from llm_pool.catalog import Deployment
from llm_pool.providers import ollama_dialect as dialect
from llm_pool.providers.base import BaseProvider
from llm_pool.providers.failures import shorten
from llm_pool.providers.http import Connections
from llm_pool.providers.ollama_transport import HEARD, PooledTransport
from llm_pool.types import (
    Capability,
    CompletionRequest,
    EmbeddingAnswer,
    EmbeddingRequest,
    ProviderAnswer,
    ProviderChunk,
)
from shared.attempts import QuotaReading
from shared.errors import LLMBrokenAnswerError, LLMError, LLMOverloadedError, LLMTimeoutError

DEFAULT_BASE_URL = "http://127.0.0.1:11434"

AnswerT = TypeVar("AnswerT", bound=BaseModel)
Quota = tuple[QuotaReading, ...]
"""What the answer's headers say of ours."""


class _Client(ollama.AsyncClient):
    """The official client, asked below its own models of a request: they drop what they do not know, such as the
    inner parts of a tool's schema and the ids of tool calls.
    """

    async def ask(self, read_as: type[AnswerT], path: str, body: dialect.Json) -> tuple[AnswerT, Quota]:
        heard: list[QuotaReading] = []
        answer: AnswerT = await self._request(read_as, "POST", path, json=body, extensions={HEARD: heard})
        return answer, tuple(heard)

    async def open_stream(
        self, path: str, body: dialect.Json, heard: list[QuotaReading]
    ) -> AsyncGenerator[dialect.Chat, None]:
        """`heard` takes what is said of our quotas, before the first part comes."""
        parts = await self._request(dialect.Chat, "POST", path, json=body, stream=True, extensions={HEARD: heard})
        return cast(AsyncGenerator[dialect.Chat, None], parts)

    async def list_models(self) -> None:
        await self._request(dict, "GET", "/api/tags")


class OllamaProvider(BaseProvider):
    """Asks one model at one server."""

    capabilities: frozenset[Capability] = frozenset({"chat", "stream", "tools", "json", "embed"})
    runs_foreign_code = False

    def __init__(self, deployment: Deployment, connections: Connections) -> None:
        self._deployment = deployment
        self._connections = connections
        self._client: _Client | None = None
        self._settings = dialect.read_settings(deployment.options)

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        body = dialect.build_chat(request, self._deployment.model, self._settings, is_streamed=False)
        answer, quota = await self._ask(dialect.Chat, "/api/chat", body, timeout_seconds)
        return replace(dialect.read_answer(answer, self._deployment.model), quota=quota)

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[ProviderChunk, None]:
        body = dialect.build_chat(request, self._deployment.model, self._settings, is_streamed=True)
        called, heard = 0, list[QuotaReading]()
        async with aclosing(await self._open().open_stream("/api/chat", body, heard)) as parts:
            while (part := await _next(parts)) is not None:
                if heard:
                    yield ProviderChunk(quota=tuple(heard))
                    heard.clear()
                chunk = dialect.read_chunk(part, called)
                called += len(chunk.tool_calls)
                yield chunk

    async def embed(self, request: EmbeddingRequest, timeout_seconds: float) -> EmbeddingAnswer:
        model = self._settings.embedding_model or self._choose_embedding_model()
        body = dialect.build_embedding(request, model, self._settings)
        answer, quota = await self._ask(dialect.Embedding, "/api/embed", body, timeout_seconds)
        return replace(dialect.read_vectors(answer, model, len(request.inputs)), quota=quota)

    async def is_healthy(self, timeout_seconds: float) -> bool:
        """It can list its models, which the cloud does too."""
        try:
            async with asyncio.timeout(timeout_seconds):
                with _typed_faults():
                    await self._open().list_models()
        except (TimeoutError, LLMError):
            return False
        return True

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()  # type: ignore[no-untyped-call]  # ollama left it untyped

    def _choose_embedding_model(self) -> str:
        """A model for chats gives vectors too, which are of no use: its own are taken only where it is said to."""
        makes_vectors = "embed" in (self._deployment.supports or ())
        return self._deployment.model if makes_vectors else dialect.DEFAULT_EMBEDDING_MODEL

    async def _ask(
        self, read_as: type[AnswerT], path: str, body: dialect.Json, timeout_seconds: float
    ) -> tuple[AnswerT, Quota]:
        try:
            async with asyncio.timeout(timeout_seconds):
                with _typed_faults():
                    return await self._open().ask(read_as, path, body)
        except TimeoutError as error:
            raise LLMTimeoutError(f"no answer within {timeout_seconds:g} s") from error

    def _open(self) -> _Client:
        """At first use, inside the loop that goes on using it."""
        if self._client is None:
            key = self._deployment.api_key
            self._client = _Client(
                host=self._deployment.base_url or DEFAULT_BASE_URL,
                timeout=self._deployment.timeout_seconds,
                headers={} if key is None else {"Authorization": f"Bearer {key}"},
                transport=PooledTransport(self._connections, sends_key=key is not None),
            )
        return self._client


async def _next(parts: AsyncGenerator[dialect.Chat, None]) -> dialect.Chat | None:
    with _typed_faults():
        return await anext(parts, None)


@contextmanager
def _typed_faults() -> Iterator[None]:
    """Holds nothing of ours: the client falls over JSON that is no object with whatever Python says then."""
    try:
        yield
    except ollama.ResponseError as error:
        # A line `{"error": …}` in the middle of a stream. It has no status, and its text is for people.
        raise LLMOverloadedError(shorten(f"the server failed: {error.error}")) from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise LLMBrokenAnswerError("the answer is not in Ollama's dialect") from error


def create_ollama(deployment: Deployment, connections: Connections) -> OllamaProvider:
    return OllamaProvider(deployment, connections)
