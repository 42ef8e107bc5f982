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
from llm_pool.providers.http import CONNECT_SECONDS, Connections
from llm_pool.types import CompletionRequest, FinishReason, ProviderAnswer
from shared.attempts import Usage
from shared.errors import LLMBrokenAnswerError, LLMConnectionError, LLMError, LLMTimeoutError

DEFAULT_BASE_URL = "http://127.0.0.1:11434"
_CHAT_FIELDS = frozenset({"think", "format", "keep_alive"})


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
            # httpx bounds each read, not their sum, so the whole is bounded here.
            async with asyncio.timeout(timeout_seconds):
                answer = await self._chat(request)
        except (TimeoutError, httpx.ReadTimeout) as error:
            raise LLMTimeoutError(f"no answer within {timeout_seconds:g} s") from error
        except (ConnectionError, httpx.RequestError) as error:
            raise LLMConnectionError(f"{type(error).__name__} at {self._deployment.base_url}") from error
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
                timeout=httpx.Timeout(self._deployment.timeout_seconds, connect=CONNECT_SECONDS),
                headers={} if key is None else {"Authorization": f"Bearer {key}"},
                follow_redirects=False,
                verify=self._connections.ssl_context,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
                event_hooks={"request": [] if key else [_drop_key], "response": [_refuse_unusable]},
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


def map_error(status: int, text: str, headers: Mapping[str, str], now: datetime) -> LLMError:
    """By status alone: the body is `{"error": "text"}`, which is for people."""
    return choose_class(status)(shorten(f"HTTP {status}: {text}"), retry_after_seconds=parse_retry_after(headers, now))


async def _drop_key(request: httpx.Request) -> None:
    """The client sends OLLAMA_API_KEY from the environment to any server; ours goes only where it is configured."""
    request.headers.pop("Authorization", None)


async def _refuse_unusable(response: httpx.Response) -> None:
    """Here, as the client's own error has lost the headers, and as it falls over JSON that is no object."""
    body = await response.aread()
    if response.status_code != 200:
        raise map_error(response.status_code, response.text, response.headers, datetime.now(UTC))
    if not body.lstrip().startswith(b"{"):
        raise LLMBrokenAnswerError("the answer is no chat response")
