"""JSON of a given shape: asked for in the provider's own way and in words, read, checked, and repaired once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Protocol

import structlog

from llm_pool.call import RunConfig
from llm_pool.json_text import instruct, load_check, read_json
from llm_pool.types import ChatMessage, CompletionRequest, CompletionResponse, JsonFormat
from shared.errors import LLMError, LLMSchemaMismatchError

log = structlog.get_logger()


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
    wanted = JsonFormat(schema)
    find_mismatch = load_check(wanted.shape)
    config = replace(config, keeps_only_fitting=True)
    request = replace(request, messages=(instruct(wanted), *request.messages), json_format=wanted)
    first = await pool.complete(request, config)
    fault, value = read_json(first.content, find_mismatch)
    if fault is None:
        return JsonAnswer(value, first)
    log.info("json_answer_repaired", model_group=request.model, deployment=first.deployment)
    second = await _ask_again(pool, request, first, fault, config)
    fault, value = read_json(second.content, find_mismatch)
    if fault is None:
        return JsonAnswer(value, second)
    raise LLMSchemaMismatchError(f"the answer does not fit: {fault}", content=second.content, attempts=second.attempts)


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
