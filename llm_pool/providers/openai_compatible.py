"""The chat-completions dialect of OpenAI, which vLLM, Groq, Together, OpenRouter, llama.cpp and mlx-lm speak too.

Options of its deployments are fields of the request body, sent as they are.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, Field, ValidationError

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
    LLMModelNotFoundError,
    LLMOverloadedError,
    LLMQuotaExhaustedError,
    LLMRateLimitedError,
)

_CLASS_BY_CODE: Mapping[str, type[LLMError]] = {
    "context_length_exceeded": LLMContextTooLongError,
    "content_filter": LLMContentBlockedError,
    "content_policy_violation": LLMContentBlockedError,
    # HTTP 429 like a full minute, but no waiting helps: the account has no credit left.
    "insufficient_quota": LLMQuotaExhaustedError,
    "model_not_found": LLMModelNotFoundError,
    "invalid_api_key": LLMAuthenticationError,
    "rate_limit_exceeded": LLMRateLimitedError,
    "server_error": LLMOverloadedError,
}
_CLASS_BY_TYPE: Mapping[str, type[LLMError]] = {
    "insufficient_quota": LLMQuotaExhaustedError,
    "server_error": LLMOverloadedError,
    "exceed_context_size_error": LLMContextTooLongError,  # llama.cpp
}
_FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",  # Together
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int = 0


class _Answer(BaseModel):
    model: str = ""
    choices: Sequence[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class OpenAICompatibleProvider:
    """Asks one model at one base URL."""

    def __init__(self, deployment: Deployment, connections: Connections, base_url: str, max_tokens_field: str) -> None:
        self._deployment = deployment
        self._connections = connections
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._max_tokens_field = max_tokens_field
        self._headers = {} if deployment.api_key is None else {"Authorization": f"Bearer {deployment.api_key}"}

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        body = self._build_body(request)
        answer = await self._connections.post_json(self._url, self._headers, body, timeout_seconds)
        if answer.status != 200 or _find_error(answer.document) is not None:
            raise map_error(answer, now=datetime.now(UTC))
        return read_answer(answer.document, self._deployment.model)

    async def aclose(self) -> None:
        """Nothing of its own was opened."""

    def _build_body(self, request: CompletionRequest) -> dict[str, object]:
        body: dict[str, object] = {
            **self._deployment.options,
            "model": self._deployment.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.max_tokens is not None:
            body[self._max_tokens_field] = request.max_tokens
        return body


def create_openai_compatible(
    deployment: Deployment,
    connections: Connections,
    *,
    default_base_url: str | None = None,
    max_tokens_field: str = "max_tokens",
) -> OpenAICompatibleProvider:
    base_url = require_address(deployment, default_base_url)
    return OpenAICompatibleProvider(deployment, connections, base_url, max_tokens_field)


def read_answer(document: object, model: str) -> ProviderAnswer:
    """`model` names the answer where the server does not.

    Raises:
        LLMBrokenAnswerError: it is not what the dialect promises; an answer without `finish_reason` was cut off.
        LLMContentBlockedError: a filter withheld the answer.
    """
    try:
        answer = _Answer.model_validate(document)
    except ValidationError as error:
        raise LLMBrokenAnswerError("the answer is no chat completion") from error
    choice = answer.choices[0]
    finish_reason = _FINISH_REASONS.get(choice.finish_reason)
    if finish_reason == "content_filter":
        raise LLMContentBlockedError("the provider's filter withheld the answer")
    if finish_reason is None or (choice.message.content is None and finish_reason == "stop"):
        raise LLMBrokenAnswerError("the answer has no content or no known finish_reason")
    usage = None
    if answer.usage is not None:
        usage = Usage(answer.usage.prompt_tokens, answer.usage.completion_tokens)
    return ProviderAnswer(choice.message.content or "", answer.model or model, finish_reason, usage)


def map_error(answer: HttpAnswer, now: datetime) -> LLMError:
    """Code, then type, then status; an error inside HTTP 200 may carry its status as `code` (OpenRouter)."""
    error = _find_error(answer.document)
    fields = error if isinstance(error, Mapping) else {}
    code = fields.get("code")
    status = code if answer.status == 200 and isinstance(code, int) else answer.status
    error_class = _CLASS_BY_CODE.get(str(code)) or _CLASS_BY_TYPE.get(str(fields.get("type"))) or choose_class(status)
    text = fields.get("message") if fields else error
    message = shorten(f"HTTP {answer.status}: {text}" if isinstance(text, str) else f"HTTP {answer.status}")
    return error_class(message, retry_after_seconds=parse_retry_after(answer.headers, now))


def _find_error(document: object) -> object:
    """OpenAI: an object under `error`; mlx-lm: a text there; vLLM once: the object itself."""
    if not isinstance(document, Mapping):
        return None
    return document if document.get("object") == "error" else document.get("error")
