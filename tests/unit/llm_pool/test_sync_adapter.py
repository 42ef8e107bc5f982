"""Old adapters with a blocking call: in time, side by side, and typed whatever they raise."""

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llm_pool.catalog import Catalog, Deployment, ModelGroup
from llm_pool.pool import Pool
from llm_pool.providers.http import Connections
from llm_pool.providers.registry import PROVIDERS
from llm_pool.providers.sync_adapter import SyncAdapterProvider, adapt, create_sync_adapter
from llm_pool.types import ChatMessage, CompletionRequest, ProviderAnswer
from shared import errors
from shared.attempts import Usage

QUESTION = CompletionRequest("fast", (ChatMessage("user", "hello"),))


class OldAdapter:
    """As they were written before asyncio."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.asked: list[str] = []
        self.threads: set[int] = set()
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

    def execute_prompt(self, prompt: str) -> str:
        with self._lock:
            self.asked.append(prompt)
            self.threads.add(threading.get_ident())
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        time.sleep(self.seconds)
        with self._lock:
            self.at_once -= 1
        return f"said: {prompt}"


class NewAdapter(OldAdapter):
    """One that knows both ways."""

    async def async_execute_prompt(self, prompt: str) -> str:
        self.threads.add(threading.get_ident())
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.asked.append("cancelled")
            raise
        return f"awaited: {prompt}"


READY = OldAdapter()


def make_adapter(deployment: Deployment) -> object:
    """A factory, as a catalogue may name."""
    return lambda prompt: f"{deployment.model}: {prompt}"


def say(prompt: str) -> str:
    """A plain function is an adapter as it stands."""
    return f"said: {prompt}"


class OfDeployment:
    """Made with the deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._model = deployment.model

    def execute_prompt(self, prompt: str) -> str:
        return f"{self._model}: {prompt}"


class WithoutRoom:
    """Cannot be made with anything."""

    def execute_prompt(self, prompt: str) -> str:
        return prompt


def make_nothing(deployment: Deployment) -> object:
    raise FileNotFoundError("no license")


def build(adapter: object, threads: int = 8) -> SyncAdapterProvider:
    return SyncAdapterProvider(Deployment("old", "sync", "old-1"), adapter, threads)


async def test_it_is_asked_off_the_loop() -> None:
    adapter = OldAdapter()
    answer = await build(adapter).complete(QUESTION, 5)
    assert answer == ProviderAnswer("said: hello", "old-1", "stop")
    assert threading.get_ident() not in adapter.threads


async def test_a_conversation_is_told_as_one_text() -> None:
    adapter = OldAdapter()
    talk = (
        ChatMessage("system", "be brief"),
        ChatMessage("user", "hi"),
        ChatMessage("assistant", "hello"),
        ChatMessage("user", "bye"),
    )
    await build(adapter).complete(CompletionRequest("fast", talk), 5)
    assert adapter.asked == ["be brief\n\nUser: hi\n\nAssistant: hello\n\nUser: bye"]


async def test_its_own_async_way_is_preferred_and_can_be_cancelled() -> None:
    adapter = NewAdapter(seconds=5)
    with pytest.raises(errors.LLMTimeoutError):
        await build(adapter).complete(QUESTION, 0.05)
    assert adapter.threads == {threading.get_ident()}
    assert adapter.asked == ["cancelled"]


async def test_an_answer_that_knows_its_usage_is_taken_as_it_is() -> None:
    known = ProviderAnswer("fine", "old-2", "length", Usage(3, 2))
    assert await build(lambda _: known).complete(QUESTION, 5) is known


async def test_many_adapters_answer_side_by_side() -> None:
    adapters = [OldAdapter(seconds=0.2) for _ in range(10)]
    started = time.monotonic()
    await asyncio.gather(*(build(adapter).complete(QUESTION, 5) for adapter in adapters))
    assert time.monotonic() - started < 1.0


async def test_calls_beyond_its_threads_wait() -> None:
    adapter = OldAdapter(seconds=0.05)
    provider = build(adapter, threads=2)
    await asyncio.gather(*(provider.complete(QUESTION, 5) for _ in range(6)))
    assert adapter.most_at_once == 2


async def test_a_timeout_is_in_time_though_its_thread_goes_on() -> None:
    adapter = OldAdapter(seconds=0.4)
    provider = build(adapter, threads=1)
    started = time.monotonic()
    with pytest.raises(errors.LLMTimeoutError):
        await provider.complete(QUESTION, 0.1)
    assert time.monotonic() - started < 0.3
    with pytest.raises(errors.LLMTimeoutError):  # its only thread is busy still
        await provider.complete(QUESTION, 0.1)
    assert (await provider.complete(QUESTION, 5)).content == "said: hello"
    assert len(adapter.asked) == 2


def raising(error: BaseException):
    def execute(prompt: str) -> str:
        raise error

    return execute


@pytest.mark.parametrize(
    ("raised", "typed"),
    [
        (errors.LLMRateLimitedError("slow down", retry_after_seconds=3), errors.LLMRateLimitedError),
        (TimeoutError(), errors.LLMTimeoutError),
        (ConnectionResetError("gone"), errors.LLMConnectionError),
        (ValueError("bad \x00 text"), errors.LLMBrokenAnswerError),
        (StopIteration(), errors.LLMBrokenAnswerError),
        (SystemExit(2), errors.LLMBrokenAnswerError),
    ],
)
async def test_whatever_it_raises_is_typed_and_kept(raised: BaseException, typed: type[errors.LLMError]) -> None:
    with pytest.raises(errors.LLMError) as caught:
        await build(raising(raised)).complete(QUESTION, 5)
    assert type(caught.value) is typed
    assert raised in (caught.value, caught.value.__cause__)
    assert "\x00" not in str(caught.value)


async def test_what_its_async_way_raises_is_typed_too() -> None:
    class Failing:
        async def async_execute_prompt(self, prompt: str) -> str:
            raise ConnectionError("gone")

    with pytest.raises(errors.LLMConnectionError):
        await build(Failing()).complete(QUESTION, 5)


async def test_what_is_no_text_is_no_answer() -> None:
    with pytest.raises(errors.LLMBrokenAnswerError, match="NoneType"):
        await build(lambda _: None).complete(QUESTION, 5)


@pytest.mark.parametrize(
    ("option", "name", "content"),
    [
        ("adapter", "READY", "said: hello"),
        ("adapter", "say", "said: hello"),
        ("adapter", "OfDeployment", "old-1: hello"),
        ("factory", "OfDeployment", "old-1: hello"),
        ("factory", "make_adapter", "old-1: hello"),
    ],
)
async def test_a_catalogue_names_an_adapter_or_what_makes_one(option: str, name: str, content: str) -> None:
    deployment = Deployment("old", "sync", "old-1", options={option: f"{__name__}:{name}", "threads": 2})
    answer = await create_sync_adapter(deployment, Connections()).complete(QUESTION, 5)
    assert answer.content == content


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"adapter": "no.such.module:thing"},
        {"adapter": "json:no_such_name"},
        {"adapter": "not a name"},
        {"adapter": "json:dumps", "threads": 0},
        {"adapter": "json:dumps", "thread": 1},
        {"adapter": 5},
        {"factory": 5},
        {"adapter": "json:dumps", "factory": "json:dumps"},
        {"factory": f"{__name__}:READY"},
    ],
)
def test_options_that_name_no_adapter_stop_the_start(options: dict[str, object]) -> None:
    with pytest.raises(errors.ConfigurationError, match="deployment 'old'"):
        create_sync_adapter(Deployment("old", "sync", "old-1", options=options), Connections())


@pytest.mark.parametrize(
    ("option", "name", "says"),
    [
        ("adapter", "WithoutRoom", "adapter.*WithoutRoom'.*TypeError: .*must take the deployment"),
        ("factory", "WithoutRoom", "factory.*WithoutRoom'.*TypeError: .*must take the deployment"),
        ("factory", "make_nothing", "make_nothing'.*FileNotFoundError: no license"),
        ("factory", "say", "'old' is of type str: name something"),
    ],
)
def test_what_makes_no_adapter_stops_the_start(option: str, name: str, says: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=f"(?s){says}"):
        create_sync_adapter(Deployment("old", "sync", "old-1", options={option: f"{__name__}:{name}"}), Connections())


def test_a_module_that_cannot_be_loaded_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "falls_over.py").write_text("raise RuntimeError('no license')")
    monkeypatch.syspath_prepend(tmp_path)
    deployment = Deployment("old", "sync", "old-1", options={"adapter": "falls_over:Adapter"})
    with pytest.raises(errors.ConfigurationError, match=r"falls_over:Adapter.*no license"):
        create_sync_adapter(deployment, Connections())


def test_what_cannot_be_asked_stops_the_start() -> None:
    with pytest.raises(errors.ConfigurationError, match="of type int"):
        build(5)


async def test_an_adapter_joins_a_registry_of_ones_own() -> None:
    group = ModelGroup("fast", (Deployment("old", "mine", "old-1"),))
    pool = Pool(Catalog({"fast": group}), registry={**PROVIDERS, "mine": adapt(OldAdapter())})
    assert (await pool.complete(QUESTION)).content == "said: hello"
    await pool.aclose()


NEVER_RETURNS = """
import asyncio, time
from llm_pool.catalog import Deployment
from llm_pool.providers.sync_adapter import SyncAdapterProvider
from llm_pool.types import ChatMessage, CompletionRequest

async def main():
    provider = SyncAdapterProvider(Deployment("old", "sync", "m"), lambda prompt: time.sleep(600))
    await provider.complete(CompletionRequest("fast", (ChatMessage("user", "x"),)), 0.1)

asyncio.run(main())
"""


def test_a_call_that_never_returns_does_not_keep_the_process_from_ending() -> None:
    ended = subprocess.run([sys.executable, "-c", NEVER_RETURNS], capture_output=True, timeout=20)
    assert b"LLMTimeoutError" in ended.stderr
