"""The messages dialect of Anthropic.

Options of its deployments are fields of the request body, sent as they are.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, ValidationError

from llm_pool.catalog import Deployment
from llm_pool.providers.base import require_address
from llm_pool.providers.failures import choose_class, parse_retry_after, shorten
from llm_pool.providers.http import Connections, HttpAnswer
from llm_pool.types import CompletionRequest, FinishReason, ProviderAnswer
from shared.attempts import Usage
from shared.errors import (
    LLMAuthenticationError,
    LLMBrokenAnswerError,
    LLMContentBlockedError,
    LLMContextTooLongError,
    LLMError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMQuotaExhaustedError,
    LLMRateLimitedError,
)

API_VERSION = "2023-06-01"
DEFAULT_BASE_URL = "https://api.anthropic.com"
DEFAULT_MAX_TOKENS = 4096
"""The API wants a bound with every request."""

_CLASS_BY_TYPE: Mapping[str, type[LLMError]] = {
    "invalid_request_error": LLMInvalidRequestError,
    "authentication_error": LLMAuthenticationError,
    "billing_error": LLMQuotaExhaustedError,
    "permission_error": LLMAuthenticationError,
    "not_found_error": LLMModelNotFoundError,
    "request_too_large": LLMContextTooLongError,
    "rate_limit_error": LLMRateLimitedError,
    "timeout_error": LLMOverloadedError,
    "api_error": LLMOverloadedError,
    "overloaded_error": LLMOverloadedError,
}
_FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class _Block(BaseModel):
    type: str
    text: str = ""


class _Usage(BaseModel):
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Answer(BaseModel):
    model: str
    content: Sequence[_Block]
    stop_reason: str
    usage: _Usage | None = None


class AnthropicProvider:
    """Asks one model at one base URL."""

    def __init__(self, deployment: Deployment, connections: Connections, base_url: str) -> None:
        self._deployment = deployment
        self._connections = connections
        self._url = f"{base_url.rstrip('/')}/v1/messages"
        self._headers = {"anthropic-version": API_VERSION, "x-api-key": deployment.api_key or ""}

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        body = self._build_body(request)
        answer = await self._connections.post_json(self._url, self._headers, body, timeout_seconds)
        if answer.status != 200 or _find_error(answer.document):
            raise map_error(answer, now=datetime.now(UTC))
        return read_answer(answer.document)

    async def aclose(self) -> None:
        """Nothing of its own was opened."""

    def _build_body(self, request: CompletionRequest) -> dict[str, object]:
        body: dict[str, object] = {
            "max_tokens": DEFAULT_MAX_TOKENS,
            **self._deployment.options,
            "model": self._deployment.model,
            "messages": [
                {"role": "assistant" if message.role == "assistant" else "user", "content": message.content}
                for message in request.messages
                if message.role != "system"
            ],
        }
        system = "\n\n".join(message.content for message in request.messages if message.role == "system")
        if system:
            body["system"] = system
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.max_tokens is not None:
            body["max_tokens"] = request.max_tokens
        return body


def create_anthropic(deployment: Deployment, connections: Connections) -> AnthropicProvider:
    return AnthropicProvider(deployment, connections, require_address(deployment, DEFAULT_BASE_URL))


def read_answer(document: object) -> ProviderAnswer:
    """
    Raises:
        LLMBrokenAnswerError: it is not what the dialect promises; an answer without `stop_reason` was cut off.
        LLMContentBlockedError: the model refused.
    """
    try:
        answer = _Answer.model_validate(document)
    except ValidationError as error:
        raise LLMBrokenAnswerError("the answer is no message") from error
    finish_reason = _FINISH_REASONS.get(answer.stop_reason)
    if finish_reason is None:
        raise LLMBrokenAnswerError("the answer has no known stop_reason")
    if finish_reason == "content_filter":
        raise LLMContentBlockedError("the model refused to answer")
    content = "".join(block.text for block in answer.content if block.type == "text")
    return ProviderAnswer(content, answer.model, finish_reason, _sum_up(answer.usage))


def map_error(answer: HttpAnswer, now: datetime) -> LLMError:
    """The error's own type, then the status."""
    error = _find_error(answer.document)
    error_class = _CLASS_BY_TYPE.get(str(error.get("type"))) or choose_class(answer.status)
    message = shorten(f"HTTP {answer.status}: {error.get('message', 'no message')}")
    return error_class(message, retry_after_seconds=parse_retry_after(answer.headers, now))


def _find_error(document: object) -> Mapping[str, object]:
    error = document.get("error") if isinstance(document, Mapping) else None
    return error if isinstance(error, Mapping) else {}


def _sum_up(usage: _Usage | None) -> Usage | None:
    """`input_tokens` leaves out what was written to or read from the provider's prompt cache."""
    if usage is None:
        return None
    cached = (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    return Usage(usage.input_tokens + cached, usage.output_tokens)
