"""Reads JSON that a provider wrote: absent and null are None, another type than promised is a broken answer."""

from typing import Any

from shared.attempts import Usage
from shared.errors import LLMBrokenAnswerError

Fields = dict[str, Any]
LARGEST_TOKENS = 2**31 - 1
"""What a column of Postgres takes; a larger count is a provider's mistake."""


def require_fields(value: object) -> Fields:
    if not isinstance(value, dict):
        raise LLMBrokenAnswerError("the answer is not in its dialect: an object is missing")
    return value


def find_fields(fields: Fields, key: str) -> Fields | None:
    value = fields.get(key)
    return None if value is None else require_fields(value)


def find_list(fields: Fields, key: str) -> list[Any]:
    """Empty where it is absent."""
    value = fields.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise LLMBrokenAnswerError(f"the answer is not in its dialect: `{key}` is no list")
    return value


def find_text(fields: Fields, key: str) -> str | None:
    value = fields.get(key)
    if value is None or isinstance(value, str):
        return value
    raise LLMBrokenAnswerError(f"the answer is not in its dialect: `{key}` is no text")


def find_index(fields: Fields, key: str) -> int | None:
    value = fields.get(key)
    if value is None or isinstance(value, int):
        return value
    raise LLMBrokenAnswerError(f"the answer is not in its dialect: `{key}` is no number")


def count_tokens(fields: Fields | None, key: str) -> int | None:
    """None for what is no count: an answer that was paid for is not thrown away for the bill's mistakes."""
    value = fields.get(key) if isinstance(fields, dict) else None
    return value if isinstance(value, int) and 0 <= value <= LARGEST_TOKENS else None


def read_openai_usage(usage: object) -> Usage | None:
    """As OpenAI's dialect counts, for whole answers, streams and embeddings alike."""
    if not isinstance(usage, dict):
        return None
    prompt_tokens = count_tokens(usage, "prompt_tokens")
    if prompt_tokens is None:
        return None
    details = usage.get("prompt_tokens_details")
    return Usage(
        prompt_tokens,
        count_tokens(usage, "completion_tokens") or 0,
        count_tokens(details, "cached_tokens") or 0,
        count_tokens(details, "cache_write_tokens") or 0,
    )
