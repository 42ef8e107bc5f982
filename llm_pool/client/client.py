"""One client for scripts: configured once, it chats, embeds, and keeps what nobody could answer."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar, Unpack

import structlog

from llm_pool.asking.asking import ChatOptions, Prompt, as_messages, build_turn, closing
from llm_pool.call import RunConfig
from llm_pool.client.config import LLMConfig, load_config
from llm_pool.client.failed_requests import (
    FailedRequest,
    FailedRequestQueue,
    Operation,
    ProcessedQueue,
    QueueStats,
)
from llm_pool.client.pools import ClientPools
from llm_pool.client.quotas import merge_quotas
from llm_pool.money.budget_tracker import BudgetTracker
from llm_pool.pool_status import DeploymentQuota
from llm_pool.types import (
    ChatMessage,
    CompletionRequest,
    CompletionResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    JsonFormat,
    Response,
    StreamChunk,
    Tool,
)
from shared.clock import SystemClock
from shared.errors import LLMTimeoutError, LLMUnavailableError
from shared.settings import load_environment
from shared.telemetry import configure_logging_of_guest

log = structlog.get_logger()

ResponseT = TypeVar("ResponseT", CompletionResponse, EmbeddingResponse)


class ClientOptions(ChatOptions, total=False):
    """What of a call stands above the client's configuration."""

    tools: tuple[Tool, ...]
    tool_choice: str
    json_format: JsonFormat | None


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer in short."""

    content: str
    """Of the mock provider it begins with `[mock answer] `."""
    tokens_used: int | None
    """Prompt and answer; None where the provider does not count."""
    cached: bool
    provider: str
    response: CompletionResponse


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """How a client stands."""

    current_provider: str | None
    """Who answered last; None before the first answer."""
    current_deployment: str | None
    """Likewise, as its configuration names it: `ollama-cloud` and `ollama-local` are of one provider."""
    quota: tuple[DeploymentQuota, ...]
    queue: QueueStats


class Client:
    """Opens what it needs at its first call, in whatever event loop makes it."""

    def __init__(
        self,
        config: LLMConfig | None = None,
        *,
        queue: FailedRequestQueue | None = None,
        pools: ClientPools | None = None,
    ) -> None:
        """By `load_config`, unless a configuration is given. Without a queue failed requests are kept in memory.

        Raises:
            ConfigurationError: a variable of the environment has a value that cannot be used.
        """
        configure_logging_of_guest(load_environment())
        self._config = config or load_config()
        self._queue = queue or FailedRequestQueue()
        self._pools = pools or ClientPools(self._config)
        self._latest: Response | None = None

    @property
    def config(self) -> LLMConfig:
        return self._config

    @property
    def current_provider(self) -> str | None:
        """Who answered last."""
        return None if self._latest is None else self._latest.provider

    @property
    def current_deployment(self) -> str | None:
        """Likewise, as its configuration names it."""
        return None if self._latest is None else self._latest.deployment

    async def chat(
        self,
        messages: Prompt,
        model: str | None = None,
        *,
        budget_tracker: BudgetTracker | None = None,
        **options: Unpack[ClientOptions],
    ) -> CompletionResponse:
        """
        Raises:
            LLMUnavailableError: nobody could answer in time; it is kept, and `request_id` tells as what.
            LLMError: see `CompletionPool.complete`.
        """
        request = self._build_request(as_messages(messages), model, options)
        return await self._complete("chat", request, budget_tracker)

    async def generate(
        self,
        prompt: str,
        system_prompt: str | None = None,
        model: str | None = None,
        *,
        budget_tracker: BudgetTracker | None = None,
        **options: Unpack[ClientOptions],
    ) -> Generation:
        """One turn, answered in short. Raises what `chat` raises."""
        request = self._build_request(build_turn(prompt, system_prompt), model, options)
        response = await self._complete("generate", request, budget_tracker)
        tokens_used = None if response.usage is None else response.usage.total_tokens
        return Generation(response.content, tokens_used, response.cached, response.provider, response)

    async def stream(
        self,
        messages: Prompt,
        model: str | None = None,
        *,
        budget_tracker: BudgetTracker | None = None,
        **options: Unpack[ClientOptions],
    ) -> AsyncIterator[StreamChunk]:
        """The answer in pieces. What fails is not kept: nobody would be there to read the pieces later."""
        request = self._build_request(as_messages(messages), model, options)
        pool = await self._pools.get_for_chat(request.model)
        async with closing(pool.stream(request, self._run(budget_tracker))) as chunks:
            async for chunk in chunks:
                self._note(chunk.response)
                yield chunk

    async def embed(
        self, texts: str | Sequence[str], model: str | None = None, *, budget_tracker: BudgetTracker | None = None
    ) -> EmbeddingResponse:
        """One vector for each text. Raises what `chat` raises."""
        inputs = (texts,) if isinstance(texts, str) else tuple(texts)
        request = EmbeddingRequest(model or self._pools.embedding_name, inputs)
        pool = await self._pools.get_for_embedding(request.model)
        return await self._keep_if_unavailable("embed", request, pool.embed(request, self._run(budget_tracker)))

    async def health_check(self) -> bool:
        """Somebody could answer a chat; never raises."""
        try:
            pool = await self._pools.get_for_chat(self._pools.chat_name)
            return any((await pool.health()).values())
        except Exception as error:  # noqa: BLE001 - a check that raises is an answer too: it is logged, and no
            log.warning("client_not_healthy", error_type=type(error).__name__, error=str(error))
            return False

    async def get_quota_status(self) -> tuple[DeploymentQuota, ...]:
        """What the providers told of our quotas, or what we counted where they tell nothing; of every model asked."""
        statuses = [await pool.get_status() for pool in await self._pools.list_open()]
        return merge_quotas((quota for status in statuses for quota in status.quotas), SystemClock().now())

    async def get_queue_stats(self) -> QueueStats:
        return await self._queue.get_stats()

    async def find_failed_request(self, request_id: str) -> FailedRequest | None:
        """With its response, once it is answered."""
        return await self._queue.find(request_id)

    async def process_queue(self) -> ProcessedQueue:
        """Ask once more what nobody could answer."""
        return await self._queue.process_all(self._ask_again)

    async def get_status(self) -> ClientStatus:
        quota, queue = await self.get_quota_status(), await self.get_queue_stats()
        return ClientStatus(self.current_provider, self.current_deployment, quota, queue)

    async def aclose(self) -> None:
        """Close what was opened in this loop. The client may be used again; a queue that was given may not."""
        await self._pools.aclose()
        await self._queue.aclose()

    def _build_request(
        self, messages: tuple[ChatMessage, ...], model: str | None, options: ClientOptions
    ) -> CompletionRequest:
        config = self._config
        defaults: ClientOptions = {
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "top_p": config.top_p,
        }
        merged: ClientOptions = {**defaults, **options}
        return CompletionRequest(model or self._pools.chat_name, messages, **merged)

    def _run(self, budget_tracker: BudgetTracker | None) -> RunConfig:
        return RunConfig(budget_tracker=budget_tracker, use_cache=self._config.enable_cache)

    async def _complete(
        self, operation: Operation, request: CompletionRequest, budget_tracker: BudgetTracker | None
    ) -> CompletionResponse:
        pool = await self._pools.get_for_chat(request.model)
        return await self._keep_if_unavailable(operation, request, pool.complete(request, self._run(budget_tracker)))

    async def _keep_if_unavailable(
        self,
        operation: Operation,
        request: CompletionRequest | EmbeddingRequest,
        answering: Awaitable[ResponseT],
    ) -> ResponseT:
        try:
            response = await answering
        except (LLMUnavailableError, LLMTimeoutError) as error:
            request_id = await self._queue.enqueue(operation, request, error)
            raise LLMUnavailableError(
                f"LLM unavailable. Request queued for retry. ID: {request_id}",
                request_id=request_id,
                retry_after_seconds=error.retry_after_seconds,
                attempts=error.attempts,
            ) from error
        self._note(response)
        return response

    async def _ask_again(self, failed: FailedRequest) -> Response:
        match failed.request:
            case CompletionRequest() as request:
                response: Response = await (await self._pools.get_for_chat(request.model)).complete(
                    request, self._run(None)
                )
            case EmbeddingRequest() as request:
                response = await (await self._pools.get_for_embedding(request.model)).embed(request, self._run(None))
        self._note(response)
        return response

    def _note(self, response: Response | None) -> None:
        if response is not None:
            self._latest = response
