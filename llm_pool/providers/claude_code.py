"""The Claude Code CLI as a provider: one process for each call, ended with all its children on timeout and cancel.

Options of its deployments:
    command    the program (`claude`)
    arguments  list of further arguments; they stand behind ours, and so decide
    directory  where it runs; the system's directory for temporary files where none is named

`api_key` and `base_url` reach the program as ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL; without them it uses its own
login. Unless `arguments` say otherwise it is a model and no agent: it has no tools, reads no settings and keeps no
session. It takes no temperature, top_p, stop or max_tokens, which are left out.

Failures of the API are typed by their HTTP status, which the CLI tells since 2.1.110; one without a status counts as
overloaded.
"""

import json
import shutil
import tempfile
from asyncio import timeout
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_pool.catalog import Deployment
from llm_pool.providers.base import BaseProvider, as_chunk
from llm_pool.providers.failures import choose_class, shorten
from llm_pool.providers.http import Connections
from llm_pool.providers.one_prompt import join_conversation, join_system
from llm_pool.providers.options import read_options
from llm_pool.providers.subprocesses import Program, RunningProgram, open_program
from llm_pool.types import Capability, CompletionRequest, FinishReason, ProviderAnswer, ProviderChunk
from shared.attempts import Usage
from shared.errors import (
    ConfigurationError,
    LLMBrokenAnswerError,
    LLMContentBlockedError,
    LLMError,
    LLMOverloadedError,
    LLMQuotaExhaustedError,
    LLMTimeoutError,
)
from shared.settings import child_environment

ONLY_A_MODEL = ("--tools", "", "--strict-mcp-config", "--setting-sources", "", "--no-session-persistence")
LARGEST_COST_USD = 1e6
"""What one answer may be said to cost; more is a mistake."""
_WHOLE = ("--output-format", "json")
_STREAM = ("--output-format", "stream-json", "--verbose", "--include-partial-messages")

_CLASS_BY_SUBTYPE: Mapping[str, type[LLMError]] = {
    "error_max_budget_usd": LLMQuotaExhaustedError,
    "error_max_turns": LLMBrokenAnswerError,
}
_FINISH_REASONS: Mapping[str | None, FinishReason] = {"max_tokens": "length", "model_context_window_exceeded": "length"}


class ClaudeCodeOptions(BaseModel):
    """What `options` of such a deployment may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str = "claude"
    arguments: tuple[str, ...] = ()
    directory: Path = Field(default_factory=lambda: Path(tempfile.gettempdir()))


class _Usage(BaseModel):
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Delta(BaseModel):
    type: Literal["text_delta"]
    text: str


class _ApiEvent(BaseModel):
    type: Literal["content_block_delta"]
    delta: _Delta


class _Event(BaseModel):
    type: Literal["stream_event"]
    event: _ApiEvent
    parent_tool_use_id: str | None = None


class _Result(BaseModel):
    type: Literal["result"]
    subtype: str
    is_error: bool = False
    result: str | None = None
    errors: tuple[str, ...] = ()
    api_error_status: int | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None
    modelUsage: Mapping[str, object] = {}  # noqa: N815 - the CLI's own name
    total_cost_usd: object = None


class ClaudeCodeProvider(BaseProvider):
    """Starts the CLI for each call."""

    capabilities: frozenset[Capability] = frozenset({"chat", "stream"})
    runs_foreign_code = False

    def __init__(self, deployment: Deployment, options: ClaudeCodeOptions) -> None:
        self._model = deployment.model
        self._options = options
        given = {"ANTHROPIC_API_KEY": deployment.api_key, "ANTHROPIC_BASE_URL": deployment.base_url}
        self._variables = {name: value for name, value in given.items() if value is not None}

    async def complete(self, request: CompletionRequest, timeout_seconds: float) -> ProviderAnswer:
        try:
            async with timeout(timeout_seconds), self._ask(request, _WHOLE) as running:
                document = _find_object(await running.read_all())
                ended = await running.describe_end()
        except TimeoutError as error:
            raise LLMTimeoutError(f"no answer within {timeout_seconds:g} s") from error
        return read_result(document, self._model, ended)

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[ProviderChunk, None]:
        said = False
        async with self._ask(request, _STREAM) as running, aclosing(running.read_lines()) as lines:
            async for document in (_find_object(line) async for line in lines):
                if document.get("type") == "result":
                    # A version that tells nothing of an answer before its end tells all of it here.
                    yield _finish(read_result(document, self._model, ""), is_told=said)
                    return
                delta = read_delta(document)
                said = said or bool(delta)
                yield ProviderChunk(delta)
            if not said:
                raise LLMBrokenAnswerError(f"no answer: {await running.describe_end()}")

    async def is_healthy(self, timeout_seconds: float) -> bool:
        """It can tell its version."""
        try:
            async with timeout(timeout_seconds), open_program(self._build_program(("--version",)), "") as running:
                await running.read_all()
                return await running.has_succeeded()
        except (TimeoutError, LLMError):
            return False

    @asynccontextmanager
    async def _ask(self, request: CompletionRequest, form: tuple[str, ...]) -> AsyncIterator[RunningProgram]:
        with _write_system_prompt(join_system(request.messages)) as system:
            arguments = ("-p", *form, "--model", self._model, *ONLY_A_MODEL, *system, *self._options.arguments)
            async with open_program(self._build_program(arguments), join_conversation(request.messages)) as running:
                yield running

    def _build_program(self, arguments: tuple[str, ...]) -> Program:
        environment = child_environment(self._variables)
        return Program((self._options.command, *arguments), self._options.directory, environment)


def create_claude_code(deployment: Deployment, connections: Connections) -> ClaudeCodeProvider:  # noqa: ARG001 - the factories' one signature
    options = read_options(deployment, ClaudeCodeOptions)
    if shutil.which(options.command) is None:
        raise ConfigurationError(
            f"Deployment '{deployment.name}' needs the program '{options.command}', which is not there: install it "
            "with `npm install -g @anthropic-ai/claude-code`, or set `options.command` to where it is."
        )
    return ClaudeCodeProvider(deployment, options)


def read_result(document: Mapping[str, Any], model: str, ended: str) -> ProviderAnswer:
    """`model` names the answer where the CLI does not name one; `ended` is how the program ended.

    Raises:
        LLMError: it is a failure, of the class that its status or its subtype means.
        LLMBrokenAnswerError: it is no result.
        LLMContentBlockedError: the model refused.
    """
    try:
        result = _Result.model_validate(document)
    except ValidationError as error:
        raise LLMBrokenAnswerError(f"no answer: {ended}") from error
    if result.is_error or result.subtype != "success" or result.result is None:
        raise _type_failure(result)
    if result.stop_reason == "refusal":
        raise LLMContentBlockedError("the model refused to answer")
    models = tuple(result.modelUsage)
    return ProviderAnswer(
        result.result,
        models[0] if len(models) == 1 else model,
        _FINISH_REASONS.get(result.stop_reason, "stop"),
        _sum_up(result.usage),
        cost_usd=_read_cost(result.total_cost_usd),
    )


def read_delta(document: Mapping[str, Any]) -> str:
    """The words in an event of the stream; those of a helper that the model asked are not its answer."""
    try:
        event = _Event.model_validate(document)
    except ValidationError:
        return ""
    return event.event.delta.text if event.parent_tool_use_id is None else ""


def _finish(answer: ProviderAnswer, *, is_told: bool) -> ProviderChunk:
    delta = "" if is_told else answer.content
    return replace(as_chunk(answer), delta=delta)


def _type_failure(result: _Result) -> LLMError:
    error_class = _CLASS_BY_SUBTYPE.get(result.subtype, LLMOverloadedError)
    if result.api_error_status is not None:
        error_class = choose_class(result.api_error_status)
    told = result.result or "; ".join(result.errors) or result.subtype
    return error_class(shorten(f"HTTP {result.api_error_status}: {told}" if result.api_error_status else told))


def _sum_up(usage: _Usage | None) -> Usage | None:
    """`input_tokens` leaves out what was written to or read from the provider's prompt cache."""
    if usage is None:
        return None
    written, read = usage.cache_creation_input_tokens or 0, usage.cache_read_input_tokens or 0
    return Usage(usage.input_tokens + written + read, usage.output_tokens, read, written)


def _read_cost(told: object) -> Decimal | None:
    """None for what is no amount: an answer that was paid for is not thrown away for it."""
    if isinstance(told, bool) or not isinstance(told, int | float) or not 0 <= told <= LARGEST_COST_USD:
        return None
    return Decimal(str(told))


def _find_object(written: bytes) -> Mapping[str, Any]:
    """The JSON object in what the program wrote, which may put a terminal's control codes around it."""
    text = written.decode(errors="replace")
    try:
        document, _ = json.JSONDecoder().raw_decode(text[text.find("{") :])
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


@contextmanager
def _write_system_prompt(text: str) -> Iterator[tuple[str, ...]]:
    """The arguments that name it. As a file: an argument is bounded, and every user of the machine can read it."""
    if not text:
        yield ("--system-prompt", "")
        return
    with tempfile.NamedTemporaryFile("w", prefix="llmyard-", suffix=".txt", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        yield ("--system-prompt-file", file.name)
