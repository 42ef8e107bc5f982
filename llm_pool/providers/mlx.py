"""MLX in this process, on Apple silicon and on Linux CPUs; needs the extra `mlx`.

`model` is a directory that mlx-lm can load, or a name at Hugging Face, which mlx-lm then looks up and keeps.

Options of its deployments:
    temperature   where the request names none (0.7)
    top_p         likewise (0.9)
    adapter_path  directory of LoRA weights

A model has one thread: generation is not reentrant, so calls are answered one after another. The first one loads the
model. A call that is cancelled or out of time stops the model at its next token.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from llm_pool.catalog import Deployment
from llm_pool.providers.base import BaseProvider
from llm_pool.providers.http import Connections
from llm_pool.providers.options import read_options
from llm_pool.types import Capability, ChatMessage, CompletionRequest, ProviderAnswer, ProviderChunk
from shared.errors import ConfigurationError, LLMBrokenAnswerError, LLMTimeoutError

ENGINE = "llm_pool.providers.mlx_engine:MlxEngine"
"""Loaded on the model's thread at the first call: importing mlx-lm takes seconds."""


class MlxOptions(BaseModel):
    """What `options` of such a deployment may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=0.7, ge=0.0)
    top_p: float = Field(default=0.9, gt=0.0, le=1.0)
    adapter_path: Path | None = None


class Engine(Protocol):
    """A loaded model, for its own thread alone."""

    def count_tokens(self, messages: Sequence[ChatMessage]) -> int: ...

    def generate(
        self, request: CompletionRequest, max_tokens: int, temperature: float, top_p: float, stop: threading.Event
    ) -> Iterator[ProviderChunk]:
        """Ends without a finish reason once `stop` is set."""


class MlxProvider(BaseProvider):
    """Asks one model."""

    capabilities: frozenset[Capability] = frozenset({"chat", "stream", "count_tokens"})
    runs_foreign_code = False
    """MLX's alone; in a process of its own each call would load the model anew."""

    def __init__(self, deployment: Deployment, options: MlxOptions) -> None:
        self._deployment = deployment
        self._options = options
        self._engine: Engine | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"mlx-{deployment.name}")
        self._stops: set[threading.Event] = set()

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        try:
            async with asyncio.timeout(timeout_seconds), aclosing(self.stream(request)) as chunks:
                return _join([chunk async for chunk in chunks], self._deployment.model)
        except TimeoutError as error:
            raise LLMTimeoutError(f"no answer within {timeout_seconds:g} s") from error

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[ProviderChunk, None]:
        pieces: asyncio.Queue[ProviderChunk | None] = asyncio.Queue()
        stop = threading.Event()
        self._stops.add(stop)
        loop = asyncio.get_running_loop()
        working = loop.run_in_executor(self._thread, self._generate, request, stop, loop, pieces)
        working.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await working
        finally:
            stop.set()
            self._stops.discard(stop)
            working.cancel()  # one that has not begun never will

    async def count_tokens(self, request: CompletionRequest, timeout_seconds: float) -> int:
        """Waits for the answers before it: the tokenizer is the model's thread's too."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_seconds):
                return await loop.run_in_executor(self._thread, self._count_tokens, request)
        except TimeoutError as error:
            raise LLMTimeoutError(f"no count within {timeout_seconds:g} s") from error

    async def is_healthy(self, timeout_seconds: float) -> bool:  # noqa: ARG002 - the seam's signature
        """Its directory is there; a name at Hugging Face is found wanting by the first call only."""
        path = Path(self._deployment.model)
        return self._engine is not None or not path.is_absolute() or await asyncio.to_thread(path.is_dir)

    async def aclose(self) -> None:
        for stop in self._stops:
            stop.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _generate(
        self,
        request: CompletionRequest,
        stop: threading.Event,
        loop: asyncio.AbstractEventLoop,
        pieces: asyncio.Queue[ProviderChunk | None],
    ) -> None:
        max_tokens = self._deployment.default_max_tokens if request.max_tokens is None else request.max_tokens
        temperature = self._options.temperature if request.temperature is None else request.temperature
        top_p = self._options.top_p if request.top_p is None else request.top_p
        for piece in self._get_engine().generate(request, max_tokens, temperature, top_p, stop):
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

    def _count_tokens(self, request: CompletionRequest) -> int:
        return self._get_engine().count_tokens(request.messages)

    def _get_engine(self) -> Engine:
        if self._engine is None:
            self._engine = resolve_name(ENGINE)(self._deployment.model, self._options.adapter_path)
        return self._engine


def _join(chunks: Sequence[ProviderChunk], model: str) -> ProviderAnswer:
    last = chunks[-1] if chunks else ProviderChunk()
    if last.finish_reason is None:
        raise LLMBrokenAnswerError("the model was stopped")
    return ProviderAnswer("".join(chunk.delta for chunk in chunks), model, last.finish_reason, last.usage)


def create_mlx(deployment: Deployment, connections: Connections) -> MlxProvider:  # noqa: ARG001 - the factories' one signature
    if find_spec("mlx_lm") is None:
        raise ConfigurationError(
            f"Deployment '{deployment.name}' needs mlx-lm, which is not installed: "
            "install it with `pip install 'llmyard[mlx]'`."
        )
    options = read_options(deployment, MlxOptions)
    return MlxProvider(deployment, options)
