"""What goes over the wire comes back equal."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_pool.call import RunConfig
from llm_pool.remote.wire import (
    ALL_UNAVAILABLE,
    build_error_body,
    build_error_headers,
    choose_status,
    dump_chunk,
    dump_embedding,
    dump_error_line,
    dump_response,
    read_embedding,
    read_error,
    read_line,
    read_response,
)
from llm_pool.remote.wire_bodies import CompleteBody, EmbedBody, build_run_fields, dump_embedding_request, dump_request
from llm_pool.types import (
    ChatMessage,
    CompletionRequest,
    CompletionResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    JsonFormat,
    StreamChunk,
    Tool,
    ToolCall,
    ToolCallDelta,
)
from shared import errors
from shared.attempts import Attempt, Usage
from shared.errors import InputError, LLMError, NotFoundError

texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=20)
names = texts.filter(bool)
maybe_texts = st.none() | texts
shares = st.none() | st.floats(0, 1)
counts = st.integers(0, 10**9)
seconds = st.floats(0, 10**6)
costs = st.none() | st.decimals(0, 1000, places=9)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
schemas = st.dictionaries(texts, documents, max_size=3)
tool_calls = st.lists(st.builds(ToolCall, names, names, texts, maybe_texts), max_size=2).map(tuple)
messages = st.builds(
    ChatMessage, st.sampled_from(["system", "user", "assistant", "tool"]), texts, maybe_texts, tool_calls, maybe_texts
)
common = {"tenant_id": maybe_texts, "key_id": maybe_texts, "timeout_seconds": st.none() | st.floats(0.001, 10**6)}
completion_requests = st.builds(
    CompletionRequest,
    model=texts,
    messages=st.lists(messages, max_size=3).map(tuple),
    temperature=st.none() | st.floats(0, 2),
    max_tokens=st.none() | st.integers(1, 10**9),
    top_p=shares,
    stop=st.lists(texts, max_size=2).map(tuple),
    tools=st.lists(st.builds(Tool, names, texts, schemas, st.booleans()), max_size=2).map(tuple),
    tool_choice=texts,
    json_format=st.none() | st.builds(JsonFormat, st.none() | schemas, texts),
    user=maybe_texts,
    metadata=st.dictionaries(texts, texts, max_size=2),
    **common,
)
embedding_requests = st.builds(
    EmbeddingRequest,
    model=texts,
    inputs=st.lists(texts, max_size=3).map(tuple),
    dimensions=st.none() | st.integers(1, 10**6),
    **common,
)
usages = st.none() | st.builds(Usage, counts, counts, counts, counts)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
attempts = st.lists(
    st.builds(Attempt, texts, texts, texts, moments, seconds, usages, maybe_texts, maybe_texts, costs), max_size=3
).map(tuple)
responses = st.builds(
    CompletionResponse,
    content=texts,
    model=texts,
    provider=texts,
    deployment=texts,
    finish_reason=st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
    usage=usages,
    latency_seconds=seconds,
    attempts=attempts,
    tool_calls=tool_calls,
    cost_usd=costs,
    cached=st.booleans(),
)
vectors = st.lists(st.lists(st.floats(-1, 1), max_size=3).map(tuple), max_size=3).map(tuple)
embeddings = st.builds(EmbeddingResponse, vectors, texts, texts, texts, usages, seconds, attempts, costs)
deltas = st.builds(ToolCallDelta, st.integers(0, 9), maybe_texts, maybe_texts, texts)
chunks = st.builds(
    StreamChunk,
    texts,
    st.lists(deltas, max_size=2).map(tuple),
    st.none() | st.sampled_from(["stop", "length"]),
    st.none() | responses,
)


def send(fields: Any) -> Any:
    return json.loads(json.dumps(fields))


@given(completion_requests)
def test_a_request(request: CompletionRequest) -> None:
    assert CompleteBody.model_validate(send(dump_request(request))).to_request() == request


@given(embedding_requests)
def test_a_request_for_vectors(request: EmbeddingRequest) -> None:
    assert EmbedBody.model_validate(send(dump_embedding_request(request))).to_request() == request


@given(responses)
def test_an_answer(response: CompletionResponse) -> None:
    assert read_response(json.loads(dump_response(response))) == response


@given(embeddings)
def test_vectors(response: EmbeddingResponse) -> None:
    assert read_embedding(json.loads(dump_embedding(response))) == response


@given(chunks)
def test_a_line_of_a_stream(chunk: StreamChunk) -> None:
    line = dump_chunk(chunk)
    assert line.count(b"\n") == 1
    assert read_line(line) == chunk


@pytest.mark.parametrize("use_cache", [None, True, False])
@pytest.mark.parametrize("budget_usd", [None, Decimal("0.000000001"), Decimal("12.5")])
def test_how_it_is_to_be_run(use_cache: bool | None, budget_usd: Decimal | None) -> None:
    fields = build_run_fields(RunConfig(use_cache=use_cache), budget_usd)
    config = CompleteBody.model_validate({"model": "fast", "messages": [], **send(fields)}).to_config()
    assert config.use_cache is use_cache
    assert (config.budget_tracker and config.budget_tracker.total) == budget_usd


def walk(kind: type[LLMError]) -> list[type[LLMError]]:
    return [kind, *(found for below in kind.__subclasses__() for found in walk(below))]


OVERLOADED = errors.LLMOverloadedError("down", retry_after_seconds=7.5)
SPECIAL: Sequence[LLMError] = (
    errors.LLMUnavailableError(retry_after_seconds=7.5),
    errors.LLMBudgetExceededError("tenant:acme", Decimal("2.50"), datetime(2026, 1, 2, tzinfo=UTC)),
    errors.LLMBudgetExceededError("call", Decimal(1), None, retry_after_seconds=7.5),
    errors.LLMSchemaMismatchError("no integer", content="seven"),
    errors.LLMStreamBrokenError(OVERLOADED, "fi"),
    errors.LLMStreamBrokenError(errors.LLMBudgetExceededError("call", Decimal(1), None), "fi"),
)
PLAIN = [kind("it failed ü", retry_after_seconds=7.5) for kind in walk(LLMError) if kind not in map(type, SPECIAL)]


@pytest.mark.parametrize("error", [*SPECIAL, *PLAIN], ids=lambda error: type(error).__name__)
@settings(max_examples=10)
@given(tried=attempts)
def test_an_error(error: LLMError, tried: tuple[Attempt, ...]) -> None:
    error.attempts = tried
    headers = build_error_headers(error)
    retry_after = None if error.retry_after_seconds is None else float(headers["retry-after-ms"]) / 1000
    heard = read_error(choose_status(error), send(build_error_body(error, include_attempts=True)), retry_after)
    assert isinstance(heard, LLMError)
    assert tell(heard) == tell(error)


@pytest.mark.parametrize("error", SPECIAL, ids=lambda error: type(error).__name__)
def test_an_error_at_the_end_of_a_stream(error: LLMError) -> None:
    with pytest.raises(type(error)) as caught:
        read_line(dump_error_line(error, include_attempts=True))
    assert tell(caught.value) == tell(error)


def test_an_error_says_what_it_cost_a_purse_that_came_along() -> None:
    error = errors.LLMStreamBrokenError(OVERLOADED, "fi")
    body = send(build_error_body(error, include_attempts=True, spent_usd=Decimal("0.12")))
    assert read_error(502, body, None).spent_usd == Decimal("0.12")
    with pytest.raises(errors.LLMStreamBrokenError) as caught:
        read_line(dump_error_line(error, include_attempts=True, spent_usd=Decimal(0)))
    assert caught.value.spent_usd == 0
    with pytest.raises(ValueError, match="decimal"):
        read_error(502, {**body, "spent_usd": "much"}, None)


def tell(error: BaseException | None) -> Any:
    """All that an error says; those it was raised from, likewise."""
    if not isinstance(error, LLMError):
        return None
    said = {name: value for name, value in vars(error).items() if name != "quota"}
    return type(error), str(error), said, tell(error.__cause__)


@pytest.mark.parametrize("error", [InputError("a.b", "it is wrong", "mend it"), NotFoundError("model", "no", "other")])
def test_an_error_of_the_caller(error: InputError) -> None:
    heard = read_error(error.http_status, {"error": error.as_dict()}, None)
    assert (type(heard), str(heard)) == (type(error), str(error))


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"error": "x"},
        {"error": {"type": "KeyError", "message": "x"}},
        {"error": {"type": "LLMYardError", "message": "x"}},
        {"detail": "Not Found"},
    ],
)
def test_what_no_pool_wrote_is_an_outage(document: object) -> None:
    heard = read_error(502, document, None)
    assert type(heard) is errors.LLMUnavailableError
    assert "HTTP 502" in str(heard)


@pytest.mark.parametrize(
    "error",
    [
        {"type": "LLMBudgetExceededError", "message": "x"},
        {"type": "LLMBudgetExceededError", "account": "a", "limit_usd": "much", "resets_at": None},
        {"type": "LLMStreamBrokenError", "message": "x", "cause": {"type": "KeyError"}, "partial_text": ""},
        {"type": "LLMTimeoutError"},
    ],
)
def test_an_error_that_lacks_what_it_carries_is_a_value_error(error: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="lacks what it carries"):
        read_error(503, {"error": error}, None)


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"7", b'{"delta": 7}'])
def test_a_line_of_another_stream_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_line(line)


def test_an_outage_has_the_body_that_callers_know() -> None:
    assert build_error_body(errors.LLMUnavailableError("x"), include_attempts=False) == {"error": ALL_UNAVAILABLE}


def test_retry_after_is_never_too_early() -> None:
    headers = build_error_headers(errors.LLMUnavailableError(retry_after_seconds=0.0004))
    assert float(headers["retry-after-ms"]) / 1000 >= 0.0004
    assert int(headers["retry-after"]) == math.ceil(0.0004)


def test_only_what_was_said_is_sent() -> None:
    request = CompletionRequest("fast", (ChatMessage("user", "hello"),))
    assert dump_request(request) == {"model": "fast", "messages": [{"role": "user", "content": "hello"}]}
    assert dump_request(replace(request, temperature=0.0))["temperature"] == 0.0
