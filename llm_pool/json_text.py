"""JSON as models write it: asked for in words, read however it is wrapped, and held against a shape."""

import json
import re
from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import Any, Final

from llm_pool.types import ChatMessage, JsonFormat
from shared.errors import InputError

FindMismatch = Callable[[Any], str | None]
"""What is wrong with a value, in words; None if it fits."""

_FENCED: Final = re.compile(r"```(?:json)?\s*\n(.*?)\n?\s*```", re.DOTALL | re.IGNORECASE)


def instruct(wanted: JsonFormat) -> ChatMessage:
    """In words: not every model can be held to a shape, and some providers want the word JSON in the prompt."""
    shape = json.dumps(wanted.shape, default=dict)
    return ChatMessage(
        "system", f"Answer with JSON only, without any other text. It has to fit this JSON schema:\n{shape}"
    )


def load_check(shape: Mapping[str, object]) -> FindMismatch:
    """
    Raises:
        InputError: it is no JSON schema.
    """
    # The library that checks takes 0.1 s to load, which only those who ask for JSON should wait for.
    check: FindMismatch = resolve_name("llm_pool.json_schema:build_check")(shape)
    return check


def read_json(content: str, find_mismatch: FindMismatch) -> tuple[str | None, object]:
    """What is wrong, or None and the value."""
    try:
        value = parse_json(content)
    except ValueError as error:
        return f"it is no JSON ({error})", None
    return find_mismatch(value), value


def fits(content: str, wanted: JsonFormat) -> bool:
    """Nothing fits what is no schema."""
    try:
        fault, _ = read_json(content, load_check(wanted.shape))
    except InputError:
        return False
    return fault is None


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


def _load(text: str) -> object:
    try:
        document: object = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return document


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")
