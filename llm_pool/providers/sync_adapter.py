"""Takes any object with a blocking call as a provider, so that an old adapter stays valid as it is.

Such an adapter has `execute_prompt(prompt)`, or is a function; one that has `async_execute_prompt(prompt)` besides is
awaited in the loop instead. It is given the conversation as one text, and none of a request's parameters.

Options of its deployments:
    adapter  `package.module:name` of an adapter, of a function that answers a prompt, or of a class of adapters, which
             is called with the `Deployment`
    factory  in its place: `package.module:name` of a function that makes an adapter when called with the `Deployment`
    threads  calls at once; further ones wait (8)

A blocking call cannot be stopped: whoever asked gets its timeout in time, while the thread goes on and counts as busy
until it returns. The threads are daemons, so that one that never returns does not keep the process from ending.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from pkgutil import resolve_name
from threading import Thread
from typing import Any, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from llm_pool.catalog import Deployment
from llm_pool.providers.base import BaseProvider, ProviderFactory
from llm_pool.providers.failures import shorten
from llm_pool.providers.http import Connections
from llm_pool.providers.one_prompt import build_prompt
from llm_pool.providers.options import read_options
from llm_pool.types import CompletionRequest, ProviderAnswer
from shared.errors import ConfigurationError, LLMBrokenAnswerError, LLMConnectionError, LLMError, LLMTimeoutError

DEFAULT_THREADS = 8

ResultT = TypeVar("ResultT")
Said = str | ProviderAnswer
"""A text, or an answer by one who knows what it used: without usage its cost stays unknown."""


@runtime_checkable
class PromptAdapter(Protocol):
    """What an adapter has at least."""

    def execute_prompt(self, prompt: str) -> Said:
        """Blocks until the answer is there. Raises what it will; an `LLMError` is taken as it is."""


@runtime_checkable
class AsyncPromptAdapter(Protocol):
    """What an adapter that knows asyncio has besides."""

    async def async_execute_prompt(self, prompt: str) -> Said:
        """The same, without blocking; cancelled when nobody wants it any more."""


@dataclass(frozen=True, slots=True)
class FunctionAdapter:
    """A plain function in an adapter's place."""

    function: Callable[[str], Said]

    def execute_prompt(self, prompt: str) -> Said:
        return self.function(prompt)


class BlockingCalls:
    """Runs calls on threads of their own, a bounded number at once."""

    def __init__(self, threads: int) -> None:
        self._free = asyncio.Semaphore(threads)

    async def run(self, call: Callable[[], ResultT]) -> ResultT:
        """Waits for a free thread, then for the result. Cancelled, it leaves the thread to its call."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ResultT] = loop.create_future()

        def settle(result: ResultT | None, error: BaseException | None) -> None:
            self._free.release()
            if future.done():
                return
            future.set_exception(error) if error else future.set_result(result)  # type: ignore[arg-type]  # None is a result too

        def work() -> None:
            result, error = _try(call)
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(settle, result, error)

        try:
            Thread(target=copy_context().run, args=(work,), name="sync-adapter", daemon=True).start()
        except RuntimeError as error:  # the machine has no thread left
            settle(None, type_error(error))
        return await future


def _try(call: Callable[[], ResultT]) -> tuple[ResultT | None, LLMError | None]:
    """What came of it. Nothing may pass: it would end the thread, and its caller would wait for ever."""
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001 - an adapter may raise anything; it is typed, and kept as the cause
        return None, type_error(error)


def type_error(error: BaseException) -> LLMError:
    """By class: what adapters raise has no status."""
    if isinstance(error, LLMError):
        return error
    classes: Mapping[type[BaseException], type[LLMError]] = {
        TimeoutError: LLMTimeoutError,
        OSError: LLMConnectionError,
        BaseException: LLMBrokenAnswerError,
    }
    error_class = next(ours for theirs, ours in classes.items() if isinstance(error, theirs))
    typed = error_class(shorten(f"the adapter raised {type(error).__name__}: {error}"))
    typed.__cause__ = error
    return typed


class SyncAdapterProvider(BaseProvider):
    """Asks one adapter."""

    runs_foreign_code = True

    def __init__(self, deployment: Deployment, adapter: object, threads: int = DEFAULT_THREADS) -> None:
        """
        Raises:
            ConfigurationError: `adapter` is none.
        """
        self._deployment = deployment
        self._calls = BlockingCalls(threads)
        self._ask = self._choose_way(adapter)

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        try:
            async with asyncio.timeout(timeout_seconds):
                said = await self._ask(build_prompt(request.messages))
        except TimeoutError as error:
            raise LLMTimeoutError(f"no answer within {timeout_seconds:g} s") from error
        if isinstance(said, ProviderAnswer):
            return said
        if not isinstance(said, str):
            raise LLMBrokenAnswerError(f"the adapter gave {type(said).__name__} and no text")
        return ProviderAnswer(said, self._deployment.model, "stop")

    def _choose_way(self, adapter: object) -> Callable[[str], Awaitable[Said]]:
        if isinstance(adapter, AsyncPromptAdapter):
            return _type_errors(adapter.async_execute_prompt)
        blocking = adapter if isinstance(adapter, PromptAdapter) else self._wrap_function(adapter)
        return lambda prompt: self._calls.run(lambda: blocking.execute_prompt(prompt))

    def _wrap_function(self, adapter: object) -> PromptAdapter:
        if not callable(adapter):
            raise ConfigurationError(
                f"The adapter of deployment '{self._deployment.name}' is of type {type(adapter).__name__}: "
                "name something that has `execute_prompt(prompt)` or can be called with a prompt."
            )
        return FunctionAdapter(adapter)


def _type_errors(ask: Callable[[str], Awaitable[Said]]) -> Callable[[str], Awaitable[Said]]:
    async def typed(prompt: str) -> Said:
        try:
            return await ask(prompt)
        except Exception as error:
            raise type_error(error) from error

    return typed


def adapt(adapter: object, threads: int = DEFAULT_THREADS) -> ProviderFactory:
    """For a registry of one's own: `Pool(catalog, registry={**PROVIDERS, "mine": adapt(MyAdapter())})`."""

    def create(deployment: Deployment, connections: Connections) -> SyncAdapterProvider:  # noqa: ARG001 - the factories' one signature
        return SyncAdapterProvider(deployment, adapter, threads)

    return create


class SyncAdapterOptions(BaseModel):
    """What `options` of such a deployment may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str | None = None
    factory: str | None = None
    threads: int = Field(default=DEFAULT_THREADS, ge=1)


def create_sync_adapter(deployment: Deployment, connections: Connections) -> SyncAdapterProvider:  # noqa: ARG001 - likewise
    options = read_options(deployment, SyncAdapterOptions)
    match options.adapter, options.factory:
        case str(path), None:
            named = _load(deployment, "adapter", path)
            adapter = _make(deployment, "adapter", path, named) if isinstance(named, type) else named
        case None, str(path):
            adapter = _make(deployment, "factory", path, _load(deployment, "factory", path))
        case _:
            raise ConfigurationError(
                f"`options` of deployment '{deployment.name}' must be either `adapter` or `factory`: "
                "write the 'package.module:name' of one of them."
            )
    return SyncAdapterProvider(deployment, adapter, options.threads)


def _load(deployment: Deployment, option: str, path: str) -> Any:
    try:
        return resolve_name(path)
    except Exception as error:
        raise ConfigurationError(
            f"`options.{option}` of deployment '{deployment.name}' names '{path}', which cannot be loaded "
            f"({_describe(error)}): write 'package.module:name' of what is there."
        ) from error


def _make(deployment: Deployment, option: str, path: str, create: Any) -> object:
    try:
        return create(deployment)
    except Exception as error:
        raise ConfigurationError(
            f"`options.{option}` of deployment '{deployment.name}' names '{path}', which makes no adapter "
            f"({_describe(error)}): it must take the deployment, or be an adapter itself and stand under `adapter`."
        ) from error


def _describe(error: Exception) -> str:
    return shorten(f"{type(error).__name__}: {error}")
