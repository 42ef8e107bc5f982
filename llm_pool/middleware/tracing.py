"""What a request and each of its tries leave behind: one log line, and spans where they are wanted.

Nothing of what was said, unless spans are told to hold it. An answer's line is for debugging: it says what the ledger
and the metrics keep anyway, and to write it takes longer than all the rings together.
"""

import json
import logging
from collections.abc import Awaitable, Iterator, Mapping
from functools import cache
from typing import Any
from uuid import UUID

import structlog

from llm_pool.call import AttemptCall, AttemptHandler, Call, RequestHandler
from llm_pool.types import (
    Answer,
    ChatMessage,
    CompletionRequest,
    CompletionResponse,
    EmbeddingRequest,
    ProviderAnswer,
    Response,
)
from shared import genai_names as names
from shared.attempts import Usage
from shared.clock import Clock
from shared.errors import LLMError
from shared.tracing import AttributeValue, NoTracer, Span, Tracer

log = structlog.get_logger()

Attributes = dict[str, AttributeValue]


class Tracing:
    """Request ring, outermost: logs `request_answered` or `request_failed`, within a span of the whole request."""

    def __init__(self, clock: Clock, tracer: Tracer | None = None, *, shows_content: bool = False) -> None:
        """`shows_content` puts prompts and answers into the spans."""
        self._clock = clock
        self._tracer = tracer or NoTracer()
        self._shows_content = shows_content

    async def __call__(self, call: Call, proceed: RequestHandler) -> Response:
        operation = _name_operation(call)
        attributes = _describe_request(call, operation) if self._tracer.is_recording else {}
        with self._tracer.span(f"{operation} {call.request.model}", "internal", attributes) as span:
            try:
                response = await proceed(call)
            except BaseException as error:
                self._tell_failure(call, span, error)
                raise
            if _is_debugging(structlog.get_config()["wrapper_class"]):
                self._log_answer(call, span, response)
            if self._tracer.is_recording:
                self._describe_answer(call, span, response)
            return response

    def _tell_failure(self, call: Call, span: Span, error: BaseException) -> None:
        latency_seconds = self._clock.monotonic() - call.entered_at
        log.warning(
            "request_failed",
            **_name_ids(call.request_id, span.trace_id),
            model_group=call.request.model,
            tenant_id=call.request.tenant_id,
            error_type=type(error).__name__,
            attempts=len(call.attempts),
            latency_seconds=round(latency_seconds, 3),
        )
        span.fail(type(error).__name__)
        span.describe({names.ATTEMPTS: len(call.attempts)})

    def _log_answer(self, call: Call, span: Span, response: Response) -> None:
        log.debug(
            "request_answered",
            **_name_ids(call.request_id, span.trace_id),
            model_group=call.request.model,
            tenant_id=call.request.tenant_id,
            deployment=response.deployment,
            attempts=len(response.attempts),
            latency_seconds=round(response.latency_seconds, 3),
            cached=call.cache == "hit",
            cost_usd=None if response.cost_usd is None else f"{response.cost_usd:f}",
            prompt_tokens=response.usage and response.usage.prompt_tokens,
            completion_tokens=response.usage and response.usage.completion_tokens,
        )

    def _describe_answer(self, call: Call, span: Span, response: Response) -> None:
        span.describe(_describe_response(call, response))
        if self._shows_content:
            span.describe(dict(_show_content(call, response)))


class AttemptTracing:
    """Attempt ring, directly outside Ledger: a span of each call to a provider."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def __call__(self, call: AttemptCall, proceed: AttemptHandler) -> Awaitable[Answer]:
        return self._trace(call, proceed) if self._tracer.is_recording else proceed(call)

    async def _trace(self, call: AttemptCall, proceed: AttemptHandler) -> Answer:
        operation, deployment = _name_operation(call.call), call.deployment
        attributes: Attributes = {
            names.OPERATION_NAME: operation,
            names.PROVIDER_NAME: names.PROVIDER_NAMES.get(deployment.provider, deployment.provider),
            names.REQUEST_MODEL: deployment.model,
            names.DEPLOYMENT: deployment.name,
            **_describe_parameters(call.call),
        }
        with self._tracer.span(f"{operation} {deployment.model}", "client", attributes) as span:
            try:
                answer = await proceed(call)
            except BaseException as error:
                span.fail(type(error).__name__)
                if isinstance(error, LLMError) and error.retry_after_seconds is not None:
                    span.describe({names.RETRY_AFTER_SECONDS: error.retry_after_seconds})
                raise
            span.describe(_describe_answer(answer))
            return answer


@cache
def _is_debugging(wrapper_class: type) -> bool:
    """Asked once of each kind of logger: to make one for a line that nobody sees is dear. Who cannot say shows all."""
    return not hasattr(wrapper_class, "is_enabled_for") or bool(log.is_enabled_for(logging.DEBUG))


def _name_operation(call: Call) -> str:
    return names.EMBEDDINGS if "embed" in call.needs else names.CHAT


def _name_ids(request_id: UUID, trace_id: str | None) -> dict[str, Any]:
    """For log lines."""
    ids = {"request_id": str(request_id)}
    return ids if trace_id is None else {**ids, "trace_id": trace_id}


def _describe_request(call: Call, operation: str) -> Attributes:
    """Without tokens, here and in the response: they stand on the tries, and would be counted twice."""
    request = call.request
    found: Attributes = {
        names.OPERATION_NAME: operation,
        names.MODEL_GROUP: request.model,
        names.REQUEST_ID: str(call.request_id),
    }
    if request.tenant_id is not None:
        found[names.TENANT_ID] = request.tenant_id
    if request.key_id is not None:
        found[names.KEY_ID] = request.key_id
    return found


def _describe_parameters(call: Call) -> Attributes:
    request = call.request
    if isinstance(request, EmbeddingRequest):
        return {} if request.dimensions is None else {names.EMBEDDING_DIMENSION: request.dimensions}
    given = {
        names.REQUEST_TEMPERATURE: request.temperature,
        names.REQUEST_TOP_P: request.top_p,
        names.REQUEST_MAX_TOKENS: request.max_tokens,
        names.REQUEST_STREAM: call.is_streamed or None,
        names.OUTPUT_TYPE: None if request.json_format is None else "json",
    }
    return {name: value for name, value in given.items() if value is not None}


def _describe_answer(answer: Answer) -> Attributes:
    found: Attributes = {names.RESPONSE_MODEL: answer.model, **_describe_usage(answer.usage)}
    if isinstance(answer, ProviderAnswer):
        found[names.RESPONSE_FINISH_REASONS] = (answer.finish_reason,)
    return found


def _describe_usage(usage: Usage | None) -> Attributes:
    if usage is None:
        return {}
    return {
        names.USAGE_INPUT_TOKENS: usage.prompt_tokens,
        names.USAGE_OUTPUT_TOKENS: usage.completion_tokens,
        names.USAGE_CACHE_READ_TOKENS: usage.cached_prompt_tokens,
        names.USAGE_CACHE_CREATION_TOKENS: usage.cache_write_tokens,
    }


def _describe_response(call: Call, response: Response) -> Attributes:
    found: Attributes = {
        names.DEPLOYMENT: response.deployment,
        names.RESPONSE_MODEL: response.model,
        names.ATTEMPTS: len(response.attempts),
    }
    if isinstance(response, CompletionResponse):
        found[names.RESPONSE_FINISH_REASONS] = (response.finish_reason,)
    if call.cache is not None:
        found[names.CACHE] = call.cache
    if response.cost_usd is not None:
        found[names.COST_USD] = float(response.cost_usd)
    return found


def _show_content(call: Call, response: Response) -> Iterator[tuple[str, str]]:
    if isinstance(call.request, CompletionRequest):
        yield names.INPUT_MESSAGES, _dump([_show_message(message) for message in call.request.messages])
    if isinstance(response, CompletionResponse):
        said = _show_message(ChatMessage("assistant", response.content, tool_calls=response.tool_calls))
        yield names.OUTPUT_MESSAGES, _dump([{**said, "finish_reason": response.finish_reason}])


def _show_message(message: ChatMessage) -> Mapping[str, object]:
    """In the conventions' form: a role and its parts."""
    if message.role == "tool":
        parts: list[dict[str, object]] = [
            {"type": "tool_call_response", "id": message.tool_call_id, "response": message.content}
        ]
    else:
        parts = [{"type": "text", "content": message.content}] if message.content else []
    for tool_call in message.tool_calls:
        parts.append(
            {"type": "tool_call", "id": tool_call.id, "name": tool_call.name, "arguments": tool_call.arguments}
        )
    return {"role": message.role, "parts": parts}


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
