"""Providers that do what a test tells them, one step for each attempt, and remember what they were asked."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from llm_pool.catalog import Catalog, Deployment, ModelGroup
from llm_pool.providers.base import BaseProvider, ProviderFactory
from llm_pool.providers.http import Connections
from llm_pool.types import (
    Capability,
    ChatMessage,
    CompletionRequest,
    EmbeddingAnswer,
    EmbeddingRequest,
    ProviderAnswer,
    ProviderChunk,
)
from shared.attempts import Usage
from tests.fakes.moving_clock import MovingClock

Step = str | BaseException | ProviderAnswer
"""A text to answer with, what to raise, or an answer as it is."""
Piece = str | BaseException | ProviderChunk
"""Of a stream: a text to hand on, what to raise, or a chunk as it is."""
END = ProviderChunk(finish_reason="stop", usage=Usage(3, 2), model="scripted-1")


@dataclass
class Script:
    """What one deployment does: its steps in turn, the last one for ever."""

    steps: list[Step] = field(default_factory=lambda: ["fine"])
    streams: list[list[Piece]] = field(default_factory=lambda: [["fi", "ne", END]])
    """The same for streams, each a list of pieces."""
    capabilities: frozenset[Capability] = frozenset({"chat", "stream", "tools", "json", "embed"})
    runs_foreign_code: bool = False
    model: str = "scripted-1"
    takes_seconds: float = 0.0
    """By the moving clock, where the test has one."""
    hangs: bool = False
    """Never answers, until cancelled."""
    asked: list[CompletionRequest] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False


class ScriptedProvider(BaseProvider):
    """Follows its script."""

    def __init__(self, script: Script, clock: MovingClock | None) -> None:
        self._script = script
        self.capabilities = script.capabilities
        self.runs_foreign_code = script.runs_foreign_code
        self._clock = clock

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        script = self._script
        script.asked.append(request)
        script.timeouts.append(timeout_seconds)
        script.started.set()
        if script.hangs:
            await self._hang()
        if self._clock is not None:
            self._clock.seconds += script.takes_seconds
        step = script.steps[min(len(script.asked), len(script.steps)) - 1]
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, ProviderAnswer):
            return step
        return ProviderAnswer(step, script.model, "stop", Usage(3, 2))

    async def stream(self, request: CompletionRequest) -> AsyncIterator[ProviderChunk]:
        script = self._script
        script.asked.append(request)
        for piece in script.streams[min(len(script.asked), len(script.streams)) - 1]:
            if isinstance(piece, BaseException):
                raise piece
            yield ProviderChunk(piece) if isinstance(piece, str) else piece
        if script.hangs:
            script.started.set()
            await self._hang()

    async def embed(self, request: EmbeddingRequest, timeout_seconds: float) -> EmbeddingAnswer:
        self._script.timeouts.append(timeout_seconds)
        return EmbeddingAnswer(tuple((float(len(text)), 1.0) for text in request.inputs), "scripted-1", Usage(3, 0))

    async def aclose(self) -> None:
        self._script.closed = True

    async def _hang(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._script.cancelled.set()
            raise


def build_registry(scripts: Mapping[str, Script], clock: MovingClock | None = None) -> Mapping[str, ProviderFactory]:
    """One provider kind, `scripted`, that finds its script by the deployment's name."""

    def create(deployment: Deployment, connections: Connections) -> ScriptedProvider:
        return ScriptedProvider(scripts[deployment.name], clock)

    return {"scripted": create}


def deploy(name: str, **fields: object) -> Deployment:
    return Deployment(name=name, provider="scripted", model=f"{name}-model", **fields)


def build_catalog(*groups: ModelGroup) -> Catalog:
    return Catalog({group.name: group for group in groups})


def ask(model: str = "fast", *contents: str, timeout_seconds: float | None = None) -> CompletionRequest:
    messages = tuple(ChatMessage("user", content) for content in contents or ("hello",))
    return CompletionRequest(model, messages, tenant_id="acme", timeout_seconds=timeout_seconds)
