"""What the foreign dialects' errors have in common: which error a caller is really to be told of."""

from collections.abc import Mapping

from llm_pool.remote.wire import build_error_headers
from shared.errors import LLMBudgetExceededError, LLMError, LLMNoPermitError, LLMRateLimitedError, LLMUnavailableError

_LIMITED = (LLMRateLimitedError, LLMNoPermitError)


def decide_kind(error: LLMError) -> type[LLMError]:
    """Nobody could answer because everybody was at its limit: that is a rate limit, not an outage."""
    if not isinstance(error, LLMUnavailableError):
        return type(error)
    ended_limited = isinstance(error.__cause__, _LIMITED)
    all_limited = all(attempt.error_type == LLMRateLimitedError.__name__ for attempt in error.attempts)
    return LLMRateLimitedError if ended_limited and all_limited else type(error)


def build_headers(error: LLMError) -> Mapping[str, str]:
    """The vendors' clients ask again by themselves; a budget that is used up does not fill meanwhile."""
    headers = build_error_headers(error)
    return {**headers, "x-should-retry": "false"} if isinstance(error, LLMBudgetExceededError) else headers
