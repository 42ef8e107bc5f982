"""The three ways a request is put to one provider: for a whole answer, for a stream, for vectors."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from llm_pool.catalog import Deployment
from llm_pool.json_text import instruct
from llm_pool.providers.base import Provider
from llm_pool.stream_assembler import StreamAssembler, find_silence
from llm_pool.types import (
    CompletionRequest,
    EmbeddingAnswer,
    EmbeddingRequest,
    JsonFormat,
    ProviderAnswer,
    ProviderChunk,
    StreamChunk,
    ToolCall,
)
from shared.errors import LLMError, LLMStreamBrokenError, LLMTimeoutError
from shared.text import make_storable

Emit = Callable[[StreamChunk], None]
"""Takes the next piece of a stream to whoever asked for it."""
AFTER_END_SECONDS = 1.0
"""How long the count of the tokens is waited for behind the end of an answer; some servers never hang up."""


async def ask_whole(
    request: CompletionRequest, provider: Provider, deployment: Deployment, timeout_seconds: float
) -> ProviderAnswer:
    """
    Raises:
        LLMBrokenAnswerError, LLMContentBlockedError: it says nothing, as a stream may not either.
    """
    answer = await provider.complete(fit(request, provider, deployment), timeout_seconds)
    if not (answer.content or answer.tool_calls):
        silence = find_silence(answer.finish_reason, may_be_silent=_may_be_silent(request))
        if silence is not None:
            silence.quota = answer.quota
            raise silence
    return _make_storable(answer)


async def ask_stream(
    request: CompletionRequest, emit: Emit, provider: Provider, deployment: Deployment, timeout_seconds: float
) -> ProviderAnswer:
    """`timeout_seconds` bounds the wait for the first piece; from piece to piece it is the deployment's own bound.

    Raises:
        LLMStreamBrokenError: it failed after a piece was handed on, so that nobody else may answer in its place.
    """
    assembler = StreamAssembler(deployment.model, may_be_silent=_may_be_silent(request))
    chunks = provider.stream(fit(request, provider, deployment))
    try:
        await _relay(chunks, assembler, emit, timeout_seconds, deployment.timeout_seconds)
        return assembler.finish()
    except LLMError as error:
        if assembler.is_whole:  # it broke behind its end, where only the count of its tokens could still come
            return assembler.finish()
        error.quota = error.quota or assembler.quota
        if assembler.has_begun:
            raise _break_off(error, assembler) from error
        raise


async def _relay(
    chunks: AsyncGenerator[ProviderChunk, None],
    assembler: StreamAssembler,
    emit: Emit,
    first_seconds: float,
    next_seconds: float,
) -> None:
    """A piece moves the bound, and so does a thought; keepalives do not, as servers send them for dead models too."""
    loop, waited = asyncio.get_running_loop(), f"before its first token, for {first_seconds:g} s"
    try:
        async with asyncio.timeout(first_seconds) as bound, aclosing(chunks):
            async for chunk in chunks:
                piece = assembler.add(chunk)
                if piece is not None:
                    emit(piece)
                if piece is not None or chunk.is_thinking:
                    waited = f"for {next_seconds:g} s"
                    bound.reschedule(loop.time() + next_seconds)
                if chunk.finish_reason is not None:
                    bound.reschedule(loop.time() + min(next_seconds, AFTER_END_SECONDS))
    except TimeoutError as error:
        raise LLMTimeoutError(f"the stream stood still {waited}") from error


def _break_off(error: LLMError, assembler: StreamAssembler) -> LLMStreamBrokenError:
    broken = LLMStreamBrokenError(error, assembler.text)
    broken.quota = error.quota
    return broken


async def ask_vectors(
    request: EmbeddingRequest, provider: Provider, _: Deployment, timeout_seconds: float
) -> EmbeddingAnswer:
    return await provider.embed(request, timeout_seconds)


def fit(request: CompletionRequest, provider: Provider, deployment: Deployment) -> CompletionRequest:
    """As this deployment takes it; nearly always itself."""
    if request.json_format is not None and not _holds_to_shapes(provider, deployment):
        request = _put_into_words(request, request.json_format)
    if deployment.takes_temperature or (request.temperature is None and request.top_p is None):
        return request
    return replace(request, temperature=None, top_p=None)


def _holds_to_shapes(provider: Provider, deployment: Deployment) -> bool:
    return "json" in provider.capabilities and deployment.may("json")


def _put_into_words(request: CompletionRequest, wanted: JsonFormat) -> CompletionRequest:
    """Whoever checks the answer has said it in these words already."""
    said, words = request.messages, instruct(wanted)
    return replace(request, messages=said if words in said else (words, *said), json_format=None)


def _may_be_silent(request: CompletionRequest) -> bool:
    """A stop text may come first, and who was told the results of tools may have nothing to add."""
    return bool(request.stop) or (bool(request.messages) and request.messages[-1].role == "tool")


def _make_storable(answer: ProviderAnswer) -> ProviderAnswer:
    """Itself, as nearly every answer is."""
    content, model = make_storable(answer.content), make_storable(answer.model)
    if content == answer.content and model == answer.model and not answer.tool_calls:
        return answer
    tool_calls = tuple(map(_make_call_storable, answer.tool_calls))
    return replace(answer, content=content, model=model, tool_calls=tool_calls)


def _make_call_storable(call: ToolCall) -> ToolCall:
    return replace(
        call,
        id=make_storable(call.id),
        name=make_storable(call.name),
        arguments=make_storable(call.arguments),
        provider_data=call.provider_data and make_storable(call.provider_data),
    )
