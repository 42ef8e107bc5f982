"""Jobs asked in a process of their own: answered as among others, and alone in their death. The processes are real."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from uuid_utils.compat import uuid7

from llm_pool.types import ChatMessage, CompletionRequest, CompletionResponse
from orchestrator.isolation.suspect import Suspect, SuspectDiedError
from orchestrator.isolation.suspects import MOST_AT_ONCE, Suspects
from orchestrator.isolation.warden_process import PROGRAM
from shared.errors import LLMUnavailableError, NotFoundError
from tests.fakes.provider_server import OPENAI, ProviderServer, never_answer, send_json, serve

CATALOG = """
deployments:
  - {{name: poisonable, provider: sync, model: m, options: {{adapter: "tests.fakes.poison:adapter", threads: 1}}}}
  - {{name: served, provider: openai_compatible, model: m, base_url: "{url}", api_key: none}}
  - {{name: patient, provider: sync, model: m, options: {{adapter: "tests.fakes.poison:patient"}}}}
groups:
  patient: {{deployments: [patient], retries: 0}}
  fast: {{deployments: [poisonable], retries: 0}}
  harmful: {{deployments: [poisonable], retries: 0}}
  hungry: {{deployments: [poisonable], retries: 0}}
  quality: {{deployments: [served], retries: 0}}
"""
NOBODY = """
deployments:
  - {name: away, provider: ollama, model: m, base_url: "http://127.0.0.1:9", only_if_reachable: true}
groups:
  quality: {deployments: [away]}
"""
SILENT_SECONDS = 2.0
POISON_FILE = "POISON_FILE"
ROOT = Path(__file__).parents[3]


# One warden for all: it takes a second to start. Each ward reads the catalogue anew.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("suspects")
    variables = {"LLMYARD_CONFIG": directory / "llmyard.yaml", "LLMYARD_DATA_DIR": directory, "PYTHONPATH": ROOT}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            **variables,
            "REDIS_URL": "",
            "LLM_POOL_URL": "",
            POISON_FILE: directory / "poison",
        }.items():
            environment.setenv(name, str(value))
        yield directory


@pytest_asyncio.fixture(loop_scope="module")
async def provider(place: Path) -> AsyncIterator[ProviderServer]:
    (place / "poison").unlink(missing_ok=True)
    async with serve(OPENAI) as server:
        (place / "llmyard.yaml").write_text(CATALOG.format(url=server.base_url))
        yield server


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def opened(place: Path) -> AsyncIterator[Suspects]:
    opened = Suspects(lease_seconds=3)
    yield opened
    await opened.aclose()
    assert find_wardens() == []


@pytest.fixture
def suspects(opened: Suspects, provider: ProviderServer) -> Suspects:
    return opened


@pytest_asyncio.fixture(loop_scope="module")
async def impatient(opened: Suspects, provider: ProviderServer) -> AsyncIterator[Suspects]:
    """With a warden of its own, the only one, that writes where the test looks."""
    await opened.aclose()
    impatient = Suspects(lease_seconds=3, silent_seconds=SILENT_SECONDS)
    yield impatient
    await impatient.aclose()


async def ask(suspects: Suspects, content: str, model: str = "fast") -> CompletionResponse:
    return await suspects.complete(Suspect(uuid7(), 2), CompletionRequest(model, (ChatMessage("user", content),)))


def find_wardens() -> list[psutil.Process]:
    """Those that this process started."""
    return [child for child in psutil.Process().children() if is_warden(child)]


def is_warden(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE and PROGRAM[-1] in process.cmdline()
    return False


def read_oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def find_warden() -> psutil.Process:
    (warden,) = find_wardens()
    return warden


async def comes_true(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what another process does sets no event here
            await asyncio.sleep(0.02)


async def test_a_suspect_is_answered_as_among_others(suspects: Suspects) -> None:
    response = await ask(suspects, "how are you?", "quality")
    assert (response.content, response.deployment, len(response.attempts)) == ("fine", "served", 1)
    assert response.usage
    pids = {(await ask(suspects, "please tell_pid")).content for _ in range(2)}
    assert len(pids) == 2, "each has a process of its own"
    assert str(os.getpid()) not in pids


async def test_what_its_pool_raises_is_raised_here(suspects: Suspects, provider: ProviderServer) -> None:
    provider.behave = send_json({"error": {"message": "overloaded", "type": "server_error"}}, status=503)
    with pytest.raises(LLMUnavailableError) as caught:
        await ask(suspects, "how are you?", "quality")
    assert [attempt.deployment for attempt in caught.value.attempts] == ["served"]
    with pytest.raises(NotFoundError, match="there is no model group 'nobody'"):
        await ask(suspects, "how are you?", "nobody")


async def test_whatever_it_does_it_dies_alone_and_how_is_known(suspects: Suspects) -> None:
    neighbour = asyncio.create_task(ask(suspects, "please linger"))
    harms = {"crash": "SIGSEGV", "leave": "exited with status 0", "eat": "SIGKILL"}
    deaths = await asyncio.gather(*(ask(suspects, f"please {harm}") for harm in harms), return_exceptions=True)
    for death, words in zip(deaths, harms.values(), strict=True):
        assert isinstance(death, SuspectDiedError)
        assert words in str(death)
    assert (await neighbour).content != ""
    assert (await ask(suspects, "how are you?")).content == "harmless"


async def test_one_that_blocks_its_loop_ends_itself_and_shows_where(
    impatient: Suspects, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SuspectDiedError, match="exited with status 1 after 2 s of silence"):
        await ask(impatient, "please block")
    assert "poison.py" in capfd.readouterr().err


async def test_one_that_is_stopped_from_outside_is_killed(impatient: Suspects) -> None:
    asking = asyncio.create_task(ask(impatient, "please linger for long"))
    await comes_true(lambda: bool(find_wardens()) and bool(find_warden().children()), seconds=10)
    (ward,) = find_warden().children()
    ward.send_signal(signal.SIGSTOP)
    with pytest.raises(SuspectDiedError, match="was silent for 2 s and was killed"):
        await asking
    await comes_true(lambda: not ward.is_running())


async def test_who_killed_its_process_is_distrusted_while_there_is_room(
    suspects: Suspects, provider: ProviderServer
) -> None:
    deaths = (ask(suspects, "please leave", "harmful"), ask(suspects, "please eat", "hungry"))
    await asyncio.gather(*deaths, return_exceptions=True)
    assert suspects.distrusts("harmful")
    assert not suspects.distrusts("hungry"), "it only wanted memory"
    assert not suspects.distrusts("quality")
    provider.behave = never_answer
    asking = [asyncio.create_task(ask(suspects, f"q{n}", "quality")) for n in range(MOST_AT_ONCE)]
    await comes_true(lambda: len(provider.received) == MOST_AT_ONCE, seconds=20)
    assert not suspects.distrusts("harmful"), "it takes its chance rather than a place"
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert suspects.distrusts("harmful")


async def test_what_it_started_ends_with_it(suspects: Suspects, place: Path) -> None:
    with pytest.raises(SuspectDiedError, match="exited with status 3"):
        await ask(suspects, "please abandon")
    pid = int((place / "poison").read_text())
    await comes_true(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


async def test_a_cancelled_one_hangs_up_on_its_provider_at_once(suspects: Suspects, provider: ProviderServer) -> None:
    provider.behave = never_answer
    asking = asyncio.create_task(ask(suspects, "how are you?", "quality"))
    await asyncio.wait_for(provider.asked.wait(), 10)
    cancelled_at = time.monotonic()
    asking.cancel()
    await asyncio.wait_for(provider.hung_up.wait(), 5)
    assert time.monotonic() - cancelled_at < 1
    with pytest.raises(asyncio.CancelledError):
        await asking
    await comes_true(lambda: not find_warden().children())


async def test_a_cancelled_one_may_let_go_of_what_it_reserved(suspects: Suspects, place: Path) -> None:
    asking = asyncio.create_task(ask(suspects, "how are you?", "patient"))
    await comes_true((place / "poison").exists, seconds=10)
    asking.cancel()
    await comes_true(lambda: (place / "poison").read_text() == "let go")


async def test_a_cancelled_one_that_is_blocked_is_killed(suspects: Suspects, place: Path) -> None:
    asking = asyncio.create_task(ask(suspects, "please block"))
    await comes_true((place / "poison").exists, seconds=10)
    asking.cancel()
    await comes_true(lambda: not find_warden().children(), seconds=3)


async def test_closing_ends_them_all(suspects: Suspects, provider: ProviderServer) -> None:
    provider.behave = never_answer
    asking = asyncio.create_task(ask(suspects, "how are you?", "quality"))
    await asyncio.wait_for(provider.asked.wait(), 10)
    await suspects.aclose()
    with pytest.raises(SuspectDiedError):
        await asking
    await asyncio.wait_for(provider.hung_up.wait(), 5)


async def test_only_so_many_run_at_once(suspects: Suspects, provider: ProviderServer) -> None:
    provider.behave = never_answer
    asking = [asyncio.create_task(ask(suspects, f"q{n}", "quality")) for n in range(MOST_AT_ONCE + 2)]
    await comes_true(lambda: provider.in_flight == MOST_AT_ONCE, seconds=20)
    asking[0].cancel()
    await comes_true(lambda: len(provider.received) == MOST_AT_ONCE + 1)
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    assert provider.most_in_flight == MOST_AT_ONCE


async def test_a_warden_that_was_killed_is_started_again(suspects: Suspects) -> None:
    await ask(suspects, "how are you?")
    first = find_warden()
    first.kill()
    await comes_true(lambda: not is_warden(first))
    assert (await ask(suspects, "how are you?")).content == "harmless"
    assert find_warden().pid != first.pid


async def test_a_ward_whose_warden_dies_answers_all_the_same(suspects: Suspects, provider: ProviderServer) -> None:
    gate = asyncio.Event()
    behave = provider.behave
    provider.behave = after(gate, behave)
    asking = asyncio.create_task(ask(suspects, "how are you?", "quality"))
    await asyncio.wait_for(provider.asked.wait(), 10)
    find_warden().kill()
    gate.set()
    assert (await asking).content == "fine"


async def test_an_outage_while_it_opens_its_pool_is_no_crash(
    suspects: Suspects, place: Path, provider: ProviderServer
) -> None:
    """An Ollama on this machine that does not listen is left out of the catalogue, and here is the only one."""
    (place / "llmyard.yaml").write_text(NOBODY)
    with pytest.raises(LLMUnavailableError, match="No model provider is configured or in reach"):
        await ask(suspects, "how are you?", "quality")


async def test_a_warden_that_cannot_start_is_an_outage_too(suspects: Suspects, monkeypatch: pytest.MonkeyPatch) -> None:
    await suspects.aclose()
    monkeypatch.setenv("LLMYARD_LOG_FORMAT", "no such")
    with pytest.raises(LLMUnavailableError, match="no process of its own could be started"):
        await ask(suspects, "how are you?")


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="the kernel is no Linux")
async def test_the_kernel_is_to_take_it_first(suspects: Suspects) -> None:
    assert (await ask(suspects, "please tell_oom_score")).content == "1000"
    assert read_oom_score(find_warden().pid) == read_oom_score(os.getpid())


async def test_no_secret_stands_on_a_command_line(suspects: Suspects) -> None:
    await ask(suspects, "how are you?")
    assert find_warden().cmdline() == list(PROGRAM)


def after(gate: asyncio.Event, behave: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    async def wait_first(request: object) -> object:
        await gate.wait()
        return await behave(request)

    return wait_first
