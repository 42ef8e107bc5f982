"""What a script needs and no more: `await llm_pool.chat("hello")`, configured by environment or `llmyard.yaml`.

All of them are coroutines; a script without a loop writes `asyncio.run(llm_pool.chat("hello"))`, as often as it likes.
"""

import threading
from collections.abc import AsyncIterator, Sequence
from typing import Unpack

import structlog

from llm_pool.asking.asking import Prompt
from llm_pool.client.client import Client, ClientOptions, ClientStatus, Generation
from llm_pool.client.config import LLMConfig
from llm_pool.client.failed_requests import ProcessedQueue
from llm_pool.money.budget_tracker import BudgetTracker
from llm_pool.types import CompletionResponse, EmbeddingResponse, StreamChunk

log = structlog.get_logger()


class ClientHolder:
    """One client, made at its first use."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._lock = threading.Lock()

    def get(self, config: LLMConfig | None = None) -> Client:
        """`config` counts at the first call only; a later one that differs is told in the log."""
        with self._lock:
            if self._client is None:
                self._client = Client(config)
            elif config is not None and config != self._client.config:
                log.warning("client_config_ignored", reason="the client is there already; reset it first")
            return self._client

    async def reset(self) -> None:
        """Close it; the next use makes a new one."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            await client.aclose()


class ShortFormOptions(ClientOptions, total=False):
    """What of a call stands above the client's configuration, and who pays."""

    budget_tracker: BudgetTracker | None


_OF_THIS_PROCESS = ClientHolder()

get_client = _OF_THIS_PROCESS.get
reset_client = _OF_THIS_PROCESS.reset


async def chat(messages: Prompt, model: str | None = None, **options: Unpack[ShortFormOptions]) -> CompletionResponse:
    """See `Client.chat`; so below."""
    return await get_client().chat(messages, model, **options)


async def generate(
    prompt: str, system_prompt: str | None = None, model: str | None = None, **options: Unpack[ShortFormOptions]
) -> Generation:
    return await get_client().generate(prompt, system_prompt, model, **options)


def stream(
    messages: Prompt, model: str | None = None, **options: Unpack[ShortFormOptions]
) -> AsyncIterator[StreamChunk]:
    return get_client().stream(messages, model, **options)


async def embed(
    texts: str | Sequence[str], model: str | None = None, *, budget_tracker: BudgetTracker | None = None
) -> EmbeddingResponse:
    return await get_client().embed(texts, model, budget_tracker=budget_tracker)


async def get_status() -> ClientStatus:
    """Who answered last, the quotas, the queue of failed requests."""
    return await get_client().get_status()


async def process_queue() -> ProcessedQueue:
    return await get_client().process_queue()
