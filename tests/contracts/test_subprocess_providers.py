"""The Claude Code CLI as a provider: how it is asked, what its results mean, and that nothing of it stays behind."""

import asyncio
import os
import time
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path

import psutil
import pytest

from llm_pool.asks import ask_stream
from llm_pool.catalog import Deployment
from llm_pool.providers import subprocesses
from llm_pool.providers.claude_code import ClaudeCodeProvider, create_claude_code
from llm_pool.providers.http import Connections
from llm_pool.types import ChatMessage, CompletionRequest, ProviderAnswer, StreamChunk
from shared import errors
from shared.attempts import Usage
from tests.fakes.claude_cli import RESULT, ClaudeCli, Json, install_claude_cli

QUESTION = CompletionRequest("fast", (ChatMessage("system", "be brief"), ChatMessage("user", "hello")))


@pytest.fixture
def cli(tmp_path: Path) -> ClaudeCli:
    return install_claude_cli(tmp_path)


def build(cli: ClaudeCli, *, api_key: str | None = None, **options: object) -> ClaudeCodeProvider:
    options = {"command": cli.command, **options}
    return create_claude_code(
        Deployment("cc", "claude_code", "sonnet", api_key=api_key, options=options), Connections()
    )


async def stream(cli: ClaudeCli, timeout_seconds: float = 5.0) -> tuple[ProviderAnswer, list[str]]:
    pieces: list[StreamChunk] = []
    deployment = Deployment("cc", "claude_code", "sonnet", timeout_seconds=timeout_seconds)
    answer = await ask_stream(QUESTION, pieces.append, build(cli), deployment, timeout_seconds)
    return answer, [piece.delta for piece in pieces]


async def wait_until_gone(cli: ClaudeCli) -> None:
    async with asyncio.timeout(3):
        while any(is_alive(pid) for pid in cli.find_pids()):  # noqa: ASYNC110 - nobody tells when a process has gone
            await asyncio.sleep(0.01)
    assert not psutil.pid_exists(cli.find_pids()[0]), "a zombie is left"


def is_alive(pid: int) -> bool:
    """The child's zombie is for init to take away."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_an_answer(cli: ClaudeCli) -> None:
    answer = await build(cli).complete(QUESTION, 5)
    usage = Usage(15, 2, cached_prompt_tokens=7, cache_write_tokens=5)
    assert answer == ProviderAnswer("fine by me", "claude-sonnet-5-5", "stop", usage, cost_usd=Decimal("0.0042"))


async def test_how_it_is_asked(cli: ClaudeCli) -> None:
    await build(cli).complete(QUESTION, 5)
    asked = cli.asked
    assert asked["prompt"] == "hello"
    assert asked["system"] == ["be brief"]
    assert asked["arguments"][:5] == ["-p", "--output-format", "json", "--model", "sonnet"]
    assert "be brief" not in asked["arguments"]
    assert asked["arguments"][asked["arguments"].index("--tools") + 1] == ""
    assert asked["environment"].get("ANTHROPIC_API_KEY") == os.environ.get("ANTHROPIC_API_KEY")


async def test_its_key_is_no_argument(cli: ClaudeCli) -> None:
    await build(cli, api_key="secret").complete(QUESTION, 5)
    assert cli.asked["environment"]["ANTHROPIC_API_KEY"] == "secret"
    assert "secret" not in str(cli.asked["arguments"])


async def test_further_arguments_stand_behind_ours(cli: ClaudeCli, tmp_path: Path) -> None:
    await build(cli, arguments=["--tools", "Read"], directory=str(tmp_path)).complete(QUESTION, 5)
    assert cli.asked["arguments"][-2:] == ["--tools", "Read"]
    assert cli.asked["directory"].endswith(tmp_path.name)


async def test_a_prompt_may_be_longer_than_any_argument(cli: ClaudeCli) -> None:
    prompt = "word " * 500_000
    await build(cli).complete(CompletionRequest("fast", (ChatMessage("user", prompt),)), 10)
    assert cli.asked["prompt"] == prompt
    assert cli.asked["arguments"].count("--system-prompt") == 1


async def test_it_may_answer_without_reading_the_prompt(cli: ClaudeCli) -> None:
    cli.plan(RESULT, reads=False)
    request = CompletionRequest("fast", (ChatMessage("user", "word " * 500_000),))
    assert (await build(cli).complete(request, 10)).content == "fine by me"


async def test_the_codes_of_a_terminal_around_an_answer_are_passed_over(cli: ClaudeCli) -> None:
    cli.plan("\x1b[?1004l", RESULT, "\x1b[?1004l")
    assert (await build(cli).complete(QUESTION, 5)).content == "fine by me"


async def test_an_answer_cut_by_its_length_says_so(cli: ClaudeCli) -> None:
    cli.plan({**RESULT, "stop_reason": "max_tokens"})
    assert (await build(cli).complete(QUESTION, 5)).finish_reason == "length"


FAILED = {**RESULT, "is_error": True, "result": "as people read it"}
FAILURES: list[tuple[Json, type[errors.LLMError]]] = [
    ({**FAILED, "api_error_status": 401}, errors.LLMAuthenticationError),
    ({**FAILED, "api_error_status": 402}, errors.LLMQuotaExhaustedError),
    ({**FAILED, "api_error_status": 404}, errors.LLMModelNotFoundError),
    ({**FAILED, "api_error_status": 429}, errors.LLMRateLimitedError),
    ({**FAILED, "api_error_status": 529}, errors.LLMOverloadedError),
    (FAILED, errors.LLMOverloadedError),
    ({**FAILED, "subtype": "error_during_execution"}, errors.LLMOverloadedError),
    ({**FAILED, "subtype": "error_max_turns", "result": None, "errors": ["turns"]}, errors.LLMBrokenAnswerError),
    ({**FAILED, "subtype": "error_max_budget_usd", "is_error": False}, errors.LLMQuotaExhaustedError),
    ({**RESULT, "stop_reason": "refusal"}, errors.LLMContentBlockedError),
    ({**RESULT, "result": None}, errors.LLMOverloadedError),
    ({**RESULT, "result": 5}, errors.LLMBrokenAnswerError),
    ({"type": "assistant"}, errors.LLMBrokenAnswerError),
]


@pytest.mark.parametrize(("result", "error_class"), FAILURES)
async def test_a_failure_is_typed_by_its_fields(
    cli: ClaudeCli, result: Json, error_class: type[errors.LLMError]
) -> None:
    cli.plan(result, status=1)
    with pytest.raises(errors.LLMError) as caught:
        await build(cli).complete(QUESTION, 5)
    assert type(caught.value) is error_class


async def test_an_end_without_an_answer_tells_what_was_complained_of(cli: ClaudeCli) -> None:
    cli.plan(status=3, complains="error: unknown option '--tools'")
    with pytest.raises(errors.LLMBrokenAnswerError, match="exit status 3: error: unknown option"):
        await build(cli).complete(QUESTION, 5)


@pytest.mark.parametrize("written", ["", "hello\n", '{"type": "res', "[]", "\x00"])
async def test_success_without_a_result_is_none(cli: ClaudeCli, written: str) -> None:
    cli.plan(written)
    with pytest.raises(errors.LLMBrokenAnswerError, match="exit status 0"):
        await build(cli).complete(QUESTION, 5)


async def test_output_without_end_is_bounded(cli: ClaudeCli) -> None:
    cli.plan(writes_without_end=True)
    with pytest.raises(errors.LLMBrokenAnswerError, match="without end"):
        await build(cli).complete(QUESTION, 10)
    await wait_until_gone(cli)


@pytest.mark.parametrize("ignores_term", [False, True])
async def test_a_timeout_ends_it_with_its_children(cli: ClaudeCli, ignores_term: bool) -> None:
    cli.plan(sleeps=600, ignores_term=ignores_term, has_child=True)
    started = time.monotonic()
    with pytest.raises(errors.LLMTimeoutError):
        await build(cli).complete(QUESTION, 0.4)
    assert time.monotonic() - started < 0.4 + subprocesses.GRACE_SECONDS + 0.6
    assert len(cli.find_pids()) == 2
    await wait_until_gone(cli)


async def test_cancelling_ends_it(cli: ClaudeCli) -> None:
    cli.plan(sleeps=600)
    task = asyncio.create_task(build(cli).complete(QUESTION, 60))
    async with asyncio.timeout(5):
        while not cli.find_pids():  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until_gone(cli)


def tell(text: str, parent: str | None = None) -> Json:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return {"type": "stream_event", "event": delta, "session_id": "5f0c", "parent_tool_use_id": parent}


INIT: Json = {"type": "system", "subtype": "init", "tools": [], "model": "claude-sonnet-5-5"}
WHOLE: Json = {"type": "assistant", "message": {"content": [{"type": "text", "text": "fine by me"}]}}
THINKING: Json = {
    "type": "stream_event",
    "event": {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}},
}


@pytest.mark.parametrize("told", [None, "much", -1, True, float("nan"), 1e9])
async def test_a_cost_that_is_none_does_not_spoil_the_answer(cli: ClaudeCli, told: object) -> None:
    cli.plan({**RESULT, "total_cost_usd": told})
    answer = await build(cli).complete(QUESTION, 10)
    assert (answer.content, answer.cost_usd) == ("fine by me", None)


async def test_a_stream(cli: ClaudeCli) -> None:
    cli.plan(INIT, THINKING, tell("fine "), tell("not this", "toolu_1"), tell("by me"), WHOLE, RESULT)
    answer, pieces = await stream(cli)
    assert pieces == ["fine ", "by me"]
    usage = Usage(15, 2, cached_prompt_tokens=7, cache_write_tokens=5)
    assert answer == ProviderAnswer("fine by me", "claude-sonnet-5-5", "stop", usage, cost_usd=Decimal("0.0042"))
    assert "--include-partial-messages" in cli.asked["arguments"]


async def test_a_stream_of_a_version_that_tells_no_parts(cli: ClaudeCli) -> None:
    cli.plan(INIT, WHOLE, RESULT)
    assert (await stream(cli))[1] == ["fine by me"]


async def test_a_stream_that_ends_without_a_result_was_cut_off(cli: ClaudeCli) -> None:
    cli.plan(INIT, tell("fine "), status=1)
    with pytest.raises(errors.LLMStreamBrokenError) as caught:
        await stream(cli)
    assert caught.value.partial_text == "fine "


async def test_a_stream_that_fails_before_its_first_word_is_typed(cli: ClaudeCli) -> None:
    cli.plan(INIT, {**FAILED, "api_error_status": 429}, status=1)
    with pytest.raises(errors.LLMRateLimitedError):
        await stream(cli)


async def test_a_stream_that_fails_after_words_is_broken_with_its_cause(cli: ClaudeCli) -> None:
    cli.plan(INIT, tell("fine "), {**FAILED, "api_error_status": 529}, status=1)
    with pytest.raises(errors.LLMStreamBrokenError) as caught:
        await stream(cli)
    assert type(caught.value.__cause__) is errors.LLMOverloadedError


async def test_an_empty_stream_tells_how_it_ended(cli: ClaudeCli) -> None:
    cli.plan(status=2, complains="no login")
    with pytest.raises(errors.LLMBrokenAnswerError, match="exit status 2: no login"):
        await stream(cli)


async def test_closing_a_stream_ends_the_program(cli: ClaudeCli) -> None:
    cli.plan(tell("fine "), sleeps=600)
    async with aclosing(build(cli).stream(QUESTION)) as chunks:
        await anext(chunks)
    await wait_until_gone(cli)


def test_a_missing_program_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="Deployment 'cc' needs the program"):
        build(ClaudeCli(tmp_path / "nowhere"))


@pytest.mark.parametrize("options", [{"argument": ["-x"]}, {"arguments": "-x"}])
def test_an_option_it_does_not_know_stops_the_start(cli: ClaudeCli, options: dict[str, object]) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"`options\.argument"):
        build(cli, **options)


async def test_a_program_that_vanished_is_a_connection_error(cli: ClaudeCli) -> None:
    provider = build(cli)
    os.unlink(cli.command)
    with pytest.raises(errors.LLMConnectionError):
        await provider.complete(QUESTION, 5)
    assert not await provider.is_healthy(1)


@pytest.mark.parametrize("status", [0, 1])
async def test_it_is_healthy_when_it_tells_its_version(cli: ClaudeCli, status: int) -> None:
    cli.plan(version_status=status)
    assert await build(cli).is_healthy(5) is (status == 0)
