"""An answer as JSON and back. Apart from the stores in memory, which need none of it, because it brings pydantic."""

from pydantic import TypeAdapter, ValidationError

from llm_pool.types import CompletionResponse

FORMAT = "1"
"""Stands in every key: after a change that old entries would survive with another meaning, count it up."""
_RESPONSE = TypeAdapter(CompletionResponse)


def dump_answer(response: CompletionResponse) -> bytes:
    return _RESPONSE.dump_json(response)


def find_answer(document: bytes) -> CompletionResponse | None:
    """None where somebody else, or another version, wrote something that cannot be read: then it is asked anew."""
    try:
        return _RESPONSE.validate_json(document)
    except ValidationError:
        return None
