"""JSON of a given shape: asked for in the provider's own way and in words, read, checked, and repaired once."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pkgutil import resolve_name
from typing import Any, Final, Protocol

import structlog

from llm_pool.call import RunConfig
from llm_pool.types import ChatMessage, CompletionRequest, CompletionResponse, JsonFormat
from shared.errors import LLMError, LLMSchemaMismatchError

log = structlog.get_logger()

_FENCED: Final = re.compile(r"```(?:json)?\s*\n(.*?)\n?\s*```", re.DOTALL | re.IGNORECASE)


class Completes(Protocol):
    """All that is needed of a pool here."""

    async def complete(self, request: CompletionRequest, config: RunConfig = ..., /) -> CompletionResponse: ...


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """What the model said, read."""

    value: Any
    """Fits the schema: objects are dicts, arrays lists."""
    response: CompletionResponse
    """The answer it was read from, with the attempts of both where it took a second."""


async def ask_json(
    pool: Completes, request: CompletionRequest, schema: Mapping[str, object] | None, config: RunConfig
) -> JsonAnswer:
    """See `Asking.json`."""
    shape = {"type": "object"} if schema is None else schema
    # The library that checks takes 0.1 s to load, which only those who ask for JSON should wait for.
    find_mismatch = resolve_name("llm_pool.asking.json_schema:build_check")(shape)
    request = replace(
        request, messages=(_instruct(shape), *request.messages), json_format=request.json_format or JsonFormat(schema)
    )
    first = await pool.complete(request, config)
    fault, value = _read(first.content, find_mismatch)
    if fault is None:
        return JsonAnswer(value, first)
    log.info("json_answer_repaired", model_group=request.model, deployment=first.deployment)
    second = await _ask_again(pool, request, first, fault, config)
    fault, value = _read(second.content, find_mismatch)
    if fault is None:
        return JsonAnswer(value, second)
    raise LLMSchemaMismatchError(f"the answer does not fit: {fault}", content=second.content, attempts=second.attempts)


def parse_json(content: str) -> object:
    """Models like to wrap it: in a fence, with words around it.

    Raises:
        ValueError: there is none.
    """
    try:
        return _load(content)
    except ValueError:
        fenced = _FENCED.search(content)
        if fenced is None:
            raise
        return _load(fenced[1])


async def _ask_again(
    pool: Completes, request: CompletionRequest, first: CompletionResponse, fault: str, config: RunConfig
) -> CompletionResponse:
    """The model sees what it said and what is wrong with it."""
    said = ChatMessage("assistant", first.content)
    correction = ChatMessage("user", f"That does not fit: {fault}. Answer again, with the corrected JSON only.")
    try:
        second = await pool.complete(replace(request, messages=(*request.messages, said, correction)), config)
    except LLMError as error:
        error.attempts = (*first.attempts, *error.attempts)
        raise
    return replace(
        second, attempts=(*first.attempts, *second.attempts), cost_usd=add_costs(first.cost_usd, second.cost_usd)
    )


def add_costs(first: Decimal | None, second: Decimal | None) -> Decimal | None:
    """None as soon as one is not known."""
    return None if first is None or second is None else first + second


def _instruct(shape: Mapping[str, object]) -> ChatMessage:
    """In words too: not every provider enforces a schema, and some want the word JSON to stand in the prompt."""
    text = f"Answer with JSON only, without any other text. It has to fit this JSON schema:\n{json.dumps(shape)}"
    return ChatMessage("system", text)


def _read(content: str, find_mismatch: Callable[[object], str | None]) -> tuple[str | None, object]:
    """What is wrong, or None and the value."""
    try:
        value = parse_json(content)
    except ValueError as error:
        return f"it is no JSON ({error})", None
    return find_mismatch(value), value


def _load(text: str) -> object:
    document: object = json.loads(text, parse_constant=_refuse_constant)
    return document


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")
