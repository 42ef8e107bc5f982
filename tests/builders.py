"""Values that tests need in passing; each takes what matters to the test and fills in the rest."""

from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import uuid4

from uuid_utils.compat import uuid7

from llm_pool.asks import ask_whole
from llm_pool.call import Call, TokenEstimate
from llm_pool.types import ChatMessage, CompletionRequest, CompletionResponse
from orchestrator.jobs.store import Claim
from orchestrator.messages import Message, parse_message
from shared import errors
from shared.attempts import Attempt, Usage, sum_costs

PARKING_ERRORS = (
    errors.LLMRateLimitedError,
    errors.LLMOverloadedError,
    errors.LLMTimeoutError,
    errors.LLMConnectionError,
    errors.LLMBrokenAnswerError,
    errors.LLMAuthenticationError,
    errors.LLMQuotaExhaustedError,
    errors.LLMModelNotFoundError,
    errors.LLMUnavailableError,
)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def build_raw(**fields: Any) -> dict[str, Any]:
    """A message as a producer sends it; a field given as `...` is left out."""
    raw = {
        "id": str(uuid4()),
        "channel": "api",
        "sender": "someone",
        "content": "hello",
        "timestamp": "2026-01-01T12:00:00Z",
    }
    return {name: value for name, value in {**raw, **fields}.items() if value is not ...}


def build_message(**fields: Any) -> Message:
    return parse_message(build_raw(**fields))


def build_claim(message: Message | None = None, *, run: int = 1, task_id: str = "task-1") -> Claim:
    message = message or build_message()
    return Claim(uuid7(), message.tenant_id, task_id, run, message)


def build_attempt(deployment: str = "a", *, error_type: str | None = None, usage: Usage | None = None) -> Attempt:
    cost_usd = None if usage is None else Decimal("0.000000075")
    message = error_type and "down"
    return Attempt(deployment, "scripted", f"{deployment}-model", NOON, 0.25, usage, error_type, message, cost_usd)


def build_response(content: str = "fine", attempts: tuple[Attempt, ...] | None = None) -> CompletionResponse:
    usage = Usage(3, 2)
    attempts = (build_attempt(usage=usage),) if attempts is None else attempts
    return CompletionResponse(
        content, "a-model", "scripted", "a", "stop", usage, 0.25, attempts, cost_usd=sum_costs(attempts)
    )


def build_call(request: CompletionRequest | None = None, *, entered_at: float = 0.0, **fields: Any) -> Call:
    """As the pool makes it of a request; any field of `Call` may be given, and `estimate`."""
    request = request or CompletionRequest("fast", (ChatMessage("user", "hello"),), tenant_id="acme")
    made = {
        "ask": partial(ask_whole, request),
        "needs": frozenset({"chat"}),
        "deadline": entered_at + 300.0,
    }
    estimate = fields.pop("estimate", TokenEstimate(10, 20))
    return Call(request, entered_at=entered_at, estimate_tokens=lambda _: estimate, **(made | fields))
