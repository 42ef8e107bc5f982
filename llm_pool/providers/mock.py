"""A provider that calls no one: for a first start without keys, for demos of an outage, and for tests.

Options of its deployments:
    answers           list of texts, given in turn; without it the last message comes back
    delay_seconds     how long the model thinks
    fail_while_exists path of a file; while it exists every call fails as overloaded, in every process that shares it
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_pool.catalog import Deployment
from llm_pool.providers.http import Connections
from llm_pool.types import CompletionRequest, ProviderAnswer
from shared.attempts import Usage
from shared.errors import ConfigurationError, LLMOverloadedError, LLMTimeoutError

MOCK_PREFIX = "[mock answer] "
"""Begins every answer, so that none is ever taken for a model's."""


class MockOptions(BaseModel):
    """What `options` of a mock deployment may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers: tuple[str, ...] = ()
    delay_seconds: float = Field(default=0.0, ge=0.0)
    fail_while_exists: Path | None = None


class MockProvider:
    """Answers by script, or echoes."""

    def __init__(self, model: str, options: MockOptions) -> None:
        self._model = model
        self._options = options
        self._given = 0

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        await self._think(timeout_seconds)
        if self._options.fail_while_exists is not None and self._options.fail_while_exists.exists():
            raise LLMOverloadedError(f"the mock provider fails while {self._options.fail_while_exists} exists")
        content = MOCK_PREFIX + self._next_answer(request)
        return ProviderAnswer(content, self._model, "stop", _count_usage(request, content))

    async def aclose(self) -> None:
        """Nothing was opened."""

    async def _think(self, timeout_seconds: float) -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.sleep(self._options.delay_seconds)
        except TimeoutError:
            raise LLMTimeoutError(f"the mock provider gave no answer within {timeout_seconds:g} s") from None

    def _next_answer(self, request: CompletionRequest) -> str:
        if not self._options.answers:
            return request.messages[-1].content
        answer = self._options.answers[self._given % len(self._options.answers)]
        self._given += 1
        return answer


def create_mock(deployment: Deployment, connections: Connections) -> MockProvider:  # noqa: ARG001 - the factories' one signature
    return MockProvider(deployment.model, _read_options(deployment.name, deployment.options))


def _read_options(name: str, options: Mapping[str, object]) -> MockOptions:
    try:
        return MockOptions.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        known = ", ".join(MockOptions.model_fields)
        raise ConfigurationError(
            f"`options.{key}` of deployment '{name}' cannot be used ({first['msg']}): the mock provider knows {known}."
        ) from error


def _count_usage(request: CompletionRequest, content: str) -> Usage:
    """In words, as there is no tokenizer to ask."""
    return Usage(
        prompt_tokens=sum(len(message.content.split()) for message in request.messages),
        completion_tokens=len(content.split()),
    )
