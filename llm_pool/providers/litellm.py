"""Every provider that has no file here, through LiteLLM; needs the extra `litellm`.

`model` is written as LiteLLM has it, such as `bedrock/anthropic.claude-sonnet-5-5` or `cohere/command-a`. Options of
its deployments are further arguments of its `acompletion` and `aembedding`, such as `api_version`.

What it does not tell: a whole answer that was cut off, as LiteLLM makes up its `finish_reason`, and what a provider
says of our quotas. Prefer a provider of our own where there is one: each call through LiteLLM takes milliseconds.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import Any, Protocol

from llm_pool.catalog import Deployment
from llm_pool.providers.base import BaseProvider
from llm_pool.providers.http import Connections
from llm_pool.providers.openai_answers import ChatStream, read_answer, read_vectors
from llm_pool.providers.openai_bodies import build_chat_body, build_embedding_body, build_stream_body
from llm_pool.providers.presets import Preset
from llm_pool.types import (
    Capability,
    CompletionRequest,
    EmbeddingAnswer,
    EmbeddingRequest,
    ProviderAnswer,
    ProviderChunk,
)
from shared.errors import ConfigurationError, LLMTimeoutError
from shared.settings import set_default_variable

SDK = "llm_pool.providers.litellm_sdk:LiteLLM"
"""Loaded at the first call, off the loop: importing LiteLLM takes seconds."""

_PRESET = Preset(None, needs_key=False, marks_strict=True, takes_user=True)
_NO_KEY = "none"
Arguments = Mapping[str, object]


class Sdk(Protocol):
    """LiteLLM, as far as it is needed, in OpenAI's words and our errors."""

    async def complete(self, arguments: Arguments) -> object: ...

    def stream(self, arguments: Arguments) -> AsyncGenerator[bytes, None]: ...

    async def embed(self, arguments: Arguments) -> object: ...


class LiteLLMProvider(BaseProvider):
    """Asks one model of LiteLLM's."""

    capabilities: frozenset[Capability] = frozenset({"chat", "stream", "tools", "json", "embed"})
    runs_foreign_code = False
    """LiteLLM's alone; in a process of its own each call would import it anew, for 2.4 s of CPU."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._sdk: Sdk | None = None

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        arguments = self._add_account(build_chat_body(request, self._deployment, _PRESET), timeout_seconds)
        try:
            async with asyncio.timeout(timeout_seconds):
                document = await (await self._load()).complete(arguments)
        except TimeoutError as error:
            raise LLMTimeoutError(f"no answer within {timeout_seconds:g} s") from error
        return read_answer(document, self._deployment.model)

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[ProviderChunk, None]:
        body = build_stream_body(request, self._deployment, _PRESET)
        arguments = self._add_account(body, self._deployment.timeout_seconds)
        reader = ChatStream()
        async with aclosing((await self._load()).stream(arguments)) as events:
            async for event in events:
                chunk = reader.read(event)
                if chunk is not None:
                    yield chunk

    async def embed(self, request: EmbeddingRequest, timeout_seconds: float) -> EmbeddingAnswer:
        arguments = self._add_account(build_embedding_body(request, self._deployment, _PRESET), timeout_seconds)
        try:
            async with asyncio.timeout(timeout_seconds):
                document = await (await self._load()).embed(arguments)
        except TimeoutError as error:
            raise LLMTimeoutError(f"no answer within {timeout_seconds:g} s") from error
        return read_vectors(document, self._deployment.model, len(request.inputs))

    def _add_account(self, body: Arguments, timeout_seconds: float) -> Arguments:
        key = self._deployment.api_key
        if key is None and self._deployment.base_url is not None:
            # Or LiteLLM would send the environment's key for that provider to whatever server stands there.
            key = _NO_KEY
        account = {"api_key": key, "api_base": self._deployment.base_url, "timeout": timeout_seconds}
        return {**body, **{name: value for name, value in account.items() if value is not None}}

    async def _load(self) -> Sdk:
        if self._sdk is None:
            # Read when it is imported; without it LiteLLM downloads its list of prices.
            set_default_variable("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            create: Any = await asyncio.to_thread(resolve_name, SDK)
            self._sdk = create()
        return self._sdk


def create_litellm(deployment: Deployment, connections: Connections) -> LiteLLMProvider:  # noqa: ARG001 - the factories' one signature
    if find_spec("litellm") is None:
        raise ConfigurationError(
            f"Deployment '{deployment.name}' needs LiteLLM, which is not installed: "
            "install it with `pip install 'llmyard[litellm]'`."
        )
    return LiteLLMProvider(deployment)
