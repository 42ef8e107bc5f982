"""Ollama, local or in its cloud, through its official client.

Options of its deployments: `think`, `format` and `keep_alive` as in Ollama's chat request, and any of its model
options such as `num_ctx`.
"""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import ollama
from pydantic import ValidationError

from llm_pool.catalog import Deployment
from llm_pool.providers.failures import choose_class, parse_retry_after, shorten
from llm_pool.providers.http import Connections, RawAnswer
from llm_pool.types import CompletionRequest, FinishReason, ProviderAnswer
from shared.attempts import Usage
from shared.errors import LLMBrokenAnswerError, LLMError, LLMTimeoutError

DEFAULT_BASE_URL = "http://127.0.0.1:11434"
_CHAT_FIELDS = frozenset({"think", "format", "keep_alive"})


class _SharedTransport(httpx.AsyncBaseTransport):
    """Carries the client's requests over the pool's session: httpx's own connections slow with each call in flight."""

    def __init__(self, connections: Connections, *, sends_key: bool) -> None:
        self._connections = connections
        self._sends_key = sends_key

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._connections.post(str(request.url), self._choose_headers(request), await request.aread())
        # Here, as the client's own error has lost the headers, and as it falls over JSON that is no object.
        if answer.status != 200:
            raise map_error(answer, datetime.now(UTC))
        if not answer.body.lstrip().startswith(b"{"):
            raise LLMBrokenAnswerError("the answer is no chat response")
        return httpx.Response(200, content=answer.body)

    def _choose_headers(self, request: httpx.Request) -> Mapping[str, str]:
        """The client sends OLLAMA_API_KEY from the environment to any server; ours goes only where it is configured."""
        passed_on = ["content-type", "user-agent", *(["authorization"] if self._sends_key else [])]
        return {name: request.headers[name] for name in passed_on}


class OllamaProvider:
    """Asks one model at one server."""

    def __init__(self, deployment: Deployment, connections: Connections) -> None:
        self._deployment = deployment
        self._connections = connections
        self._client: ollama.AsyncClient | None = None
        self._fields: dict[str, Any] = {k: v for k, v in deployment.options.items() if k in _CHAT_FIELDS}
        self._model_options = {k: v for k, v in deployment.options.items() if k not in _CHAT_FIELDS}

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await self._chat(request)
        except TimeoutError as error:
            raise LLMTimeoutError(f"no answer within {timeout_seconds:g} s") from error
        except (json.JSONDecodeError, UnicodeDecodeError, ValidationError) as error:
            raise LLMBrokenAnswerError("the answer is no chat response") from error
        return read_answer(answer, self._deployment.model)

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()  # type: ignore[no-untyped-call]  # ollama left it untyped

    async def _chat(self, request: CompletionRequest) -> ollama.ChatResponse:
        answer: ollama.ChatResponse = await self._open().chat(
            model=self._deployment.model,
            messages=[{"role": message.role, "content": message.content} for message in request.messages],
            options=self._build_model_options(request),
            **self._fields,
        )
        return answer

    def _build_model_options(self, request: CompletionRequest) -> dict[str, object]:
        options = dict(self._model_options)
        if request.temperature is not None:
            options["temperature"] = request.temperature
        if request.max_tokens is not None:
            options["num_predict"] = request.max_tokens
        return options

    def _open(self) -> ollama.AsyncClient:
        """At first use, inside the loop that goes on using it."""
        if self._client is None:
            key = self._deployment.api_key
            self._client = ollama.AsyncClient(
                host=self._deployment.base_url or DEFAULT_BASE_URL,
                timeout=self._deployment.timeout_seconds,
                headers={} if key is None else {"Authorization": f"Bearer {key}"},
                transport=_SharedTransport(self._connections, sends_key=key is not None),
            )
        return self._client


def create_ollama(deployment: Deployment, connections: Connections) -> OllamaProvider:
    return OllamaProvider(deployment, connections)


def read_answer(answer: ollama.ChatResponse, model: str) -> ProviderAnswer:
    """`model` names the answer where the server does not.

    Raises:
        LLMBrokenAnswerError: an answer without `done` was cut off.
    """
    if answer.done is not True or answer.message.content is None:
        raise LLMBrokenAnswerError("the answer has no content or is not done")
    if answer.done_reason == "load":
        raise LLMBrokenAnswerError("the server only loaded the model")
    usage = None
    if answer.prompt_eval_count is not None and answer.eval_count is not None:
        usage = Usage(answer.prompt_eval_count, answer.eval_count)
    return ProviderAnswer(
        answer.message.content,
        answer.model or model,
        _choose_finish_reason(answer),
        usage,
    )


def _choose_finish_reason(answer: ollama.ChatResponse) -> FinishReason:
    """Ollama says `stop` for tool calls too, and older servers say nothing beyond `done`."""
    if answer.done_reason == "length":
        return "length"
    return "tool_calls" if answer.message.tool_calls else "stop"


def map_error(answer: RawAnswer, now: datetime) -> LLMError:
    """By status alone: the body is `{"error": "text"}`, which is for people."""
    message = shorten(f"HTTP {answer.status}: {answer.body.decode(errors='replace')}")
    return choose_class(answer.status)(message, retry_after_seconds=parse_retry_after(answer.headers, now))
