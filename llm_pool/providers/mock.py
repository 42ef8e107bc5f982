"""A provider that calls no one: for a first start without keys, for demos of an outage, and for tests.

Every text it makes up begins with `[mock answer] `, JSON carries that text or `"mock": true` inside, and the answer's
provider is `mock` in any case. Texts that stand in `answers` are given as they are where JSON is asked for.

Options of its deployments:
    answers              list of texts, given in turn; without it the last message comes back
    tool_calls           list of {name, arguments}: all called in answer to a request that offers these tools, until a
                         message of role `tool` comes back; without it only a tool that must be called is
    faults               list of faults, one for each call in turn, none after the last: a name of `FAULTS`, an HTTP
                         status, or {error, retry_after_seconds, after_pieces} to fail in the middle of a stream
    dimensions           length of the vectors where the request names none
    delay_seconds        how long the model thinks
    piece_delay_seconds  how long it waits between two words of a stream
    fail_while_exists    path of a file; while it exists every call fails as overloaded, in every process that shares it
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from llm_pool.catalog import Deployment
from llm_pool.providers.base import BaseProvider
from llm_pool.providers.failures import choose_class
from llm_pool.providers.http import Connections
from llm_pool.providers.mock_answers import (
    BROKEN_JSON,
    MOCK_PREFIX,
    ScriptedToolCall,
    build_json,
    build_vector,
    choose_tool_calls,
    count_words,
    split_answer,
)
from llm_pool.providers.options import read_options
from llm_pool.types import (
    Capability,
    CompletionRequest,
    EmbeddingAnswer,
    EmbeddingRequest,
    ProviderAnswer,
    ProviderChunk,
)
from shared.attempts import Usage
from shared.errors import (
    LLMAuthenticationError,
    LLMBrokenAnswerError,
    LLMConnectionError,
    LLMContentBlockedError,
    LLMContextTooLongError,
    LLMError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMQuotaExhaustedError,
    LLMRateLimitedError,
    LLMTimeoutError,
)

_RAISED: Mapping[str, type[LLMError]] = {
    "authentication": LLMAuthenticationError,
    "blocked": LLMContentBlockedError,
    "broken_answer": LLMBrokenAnswerError,
    "connection": LLMConnectionError,
    "invalid_request": LLMInvalidRequestError,
    "model_not_found": LLMModelNotFoundError,
    "overloaded": LLMOverloadedError,
    "quota_exhausted": LLMQuotaExhaustedError,
    "rate_limited": LLMRateLimitedError,
    "timeout": LLMTimeoutError,
    "too_long": LLMContextTooLongError,
}
_PLAYED = ("none", "hang", "cut_off", "broken_json")
FAULTS = (*_PLAYED, *_RAISED)
"""`none` is a call that is answered, `hang` one that never is."""


class MockFault(BaseModel):
    """How one call goes wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: str | int
    retry_after_seconds: float | None = Field(default=None, ge=0.0)
    after_pieces: int = Field(default=0, ge=0)
    """Words that a stream gives before."""

    @field_validator("error")
    @classmethod
    def _is_known(cls, error: str | int) -> str | int:
        if isinstance(error, int) or error in FAULTS:
            return error
        raise ValueError(f"a fault is an HTTP status or one of {', '.join(FAULTS)}")

    def find_error(self) -> LLMError | None:
        """None where the fault is played, not raised."""
        if self.error in _PLAYED:
            return None
        error_class = choose_class(self.error) if isinstance(self.error, int) else _RAISED[self.error]
        return error_class(
            f"the mock provider fails on purpose: {self.error}", retry_after_seconds=self.retry_after_seconds
        )


def _read_fault(value: object) -> object:
    return value if isinstance(value, Mapping) else {"error": value}


class MockOptions(BaseModel):
    """What `options` of a mock deployment may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers: tuple[str, ...] = ()
    tool_calls: tuple[ScriptedToolCall, ...] = ()
    faults: tuple[Annotated[MockFault, BeforeValidator(_read_fault)], ...] = ()
    dimensions: int = Field(default=32, ge=1)
    delay_seconds: float = Field(default=0.0, ge=0.0)
    piece_delay_seconds: float = Field(default=0.0, ge=0.0)
    fail_while_exists: Path | None = None


_NO_FAULT = MockFault(error="none")


class MockProvider(BaseProvider):
    """Answers by script, or echoes."""

    capabilities: frozenset[Capability] = frozenset({"chat", "stream", "tools", "json", "embed", "count_tokens"})
    runs_foreign_code = False

    def __init__(self, model: str, options: MockOptions) -> None:
        self._model = model
        self._options = options
        self._given = 0
        self._faults = iter(options.faults)

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        fault = await self._begin(timeout_seconds)
        if fault.error == "cut_off":
            raise LLMBrokenAnswerError("the mock provider's answer was cut off on purpose")
        return self._build_answer(request, fault)

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[ProviderChunk, None]:
        fault = next(self._faults, _NO_FAULT)
        await self._think()
        answer = self._build_answer(request, fault)
        breaks = fault.error not in {"none", "broken_json"}
        for piece in islice(split_answer(answer), fault.after_pieces if breaks else None):
            yield piece
            await asyncio.sleep(self._options.piece_delay_seconds)
        await _go_wrong(fault)
        if fault.error != "cut_off":
            yield ProviderChunk(finish_reason=answer.finish_reason, usage=answer.usage, model=answer.model)

    async def embed(self, request: EmbeddingRequest, timeout_seconds: float) -> EmbeddingAnswer:
        await self._begin(timeout_seconds)
        dimensions = request.dimensions or self._options.dimensions
        vectors = tuple(build_vector(text, dimensions) for text in request.inputs)
        return EmbeddingAnswer(vectors, self._model, Usage(count_words(request), 0))

    async def count_tokens(self, request: CompletionRequest, timeout_seconds: float) -> int:  # noqa: ARG002 - the seam's signature
        return count_words(request)

    async def is_healthy(self, timeout_seconds: float) -> bool:  # noqa: ARG002 - likewise
        return not self._is_down()

    async def _begin(self, timeout_seconds: float) -> MockFault:
        """Thinks, and raises what this call is to fail with."""
        fault = next(self._faults, _NO_FAULT)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._think()
                await _go_wrong(fault)
        except TimeoutError:
            raise LLMTimeoutError(f"the mock provider gave no answer within {timeout_seconds:g} s") from None
        return fault

    async def _think(self) -> None:
        await asyncio.sleep(self._options.delay_seconds)
        if self._is_down():
            raise LLMOverloadedError(f"the mock provider fails while {self._options.fail_while_exists} exists")

    def _is_down(self) -> bool:
        return self._options.fail_while_exists is not None and self._options.fail_while_exists.exists()

    def _build_answer(self, request: CompletionRequest, fault: MockFault) -> ProviderAnswer:
        tool_calls = choose_tool_calls(request, self._options.tool_calls)
        content = "" if tool_calls else self._choose_text(request, fault)
        words = len(content.split()) + sum(len(call.arguments.split()) for call in tool_calls)
        usage = Usage(count_words(request), words)
        return ProviderAnswer(content, self._model, "tool_calls" if tool_calls else "stop", usage, tool_calls)

    def _choose_text(self, request: CompletionRequest, fault: MockFault) -> str:
        if fault.error == "broken_json":
            return BROKEN_JSON
        if request.json_format is not None:
            return self._next_answer() or build_json(request.json_format, request.messages[-1].content)
        return MOCK_PREFIX + (self._next_answer() or request.messages[-1].content)

    def _next_answer(self) -> str | None:
        """None where there is no script."""
        if not self._options.answers:
            return None
        self._given += 1
        return self._options.answers[(self._given - 1) % len(self._options.answers)]


async def _go_wrong(fault: MockFault) -> None:
    if fault.error == "hang":
        await asyncio.Event().wait()
    error = fault.find_error()
    if error is not None:
        raise error


def create_mock(deployment: Deployment, connections: Connections) -> MockProvider:  # noqa: ARG001 - the factories' one signature
    return MockProvider(deployment.model, read_options(deployment, MockOptions))
