"""What reading a foreign dialect's request has in common: the body, who asks, and texts that come in parts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError, from_json

from llm_pool.remote.wire_bodies import Text, describe_fault, read_fault
from llm_pool.types import ToolCall, ToolCallDelta
from shared.errors import InputError

TENANT_HEADER = "x-tenant-id"
KEY_HEADER = "x-key-id"

BodyT = TypeVar("BodyT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, where the dialect's body has no place for it."""

    tenant_id: str | None = None
    key_id: str | None = None


def read_caller(headers: Mapping[str, str]) -> Caller:
    return Caller(_decode(headers.get(TENANT_HEADER)), _decode(headers.get(KEY_HEADER)))


def read_document(body: bytes, remedy: str) -> dict[str, Any]:
    """
    Raises:
        InputError: it is no JSON object.
    """
    try:
        document = from_json(body)
    except ValueError as error:
        raise describe_fault((), str(error), remedy) from error
    if not isinstance(document, dict):
        raise describe_fault((), "it is no JSON object", remedy)
    return document


def read_body(shape: type[BodyT], document: Mapping[str, Any], remedy: str) -> BodyT:
    """
    Raises:
        InputError: naming the first field that does not fit.
    """
    try:
        return shape.model_validate(document)
    except ValidationError as error:
        raise read_fault(error.errors(include_input=False, include_url=False)[0], remedy) from error


def refuse_unknown(document: Mapping[str, Any], harmless: Mapping[str, Sequence[object]]) -> None:
    """Fields that nothing here can honour may stand there only with a value that asks for nothing.

    Raises:
        InputError: leaving the field out in silence would change what was asked for.
    """
    for name, values in harmless.items():
        if document.get(name) is not None and document[name] not in values:
            raise InputError(name, "it cannot be honoured here", "leave it out")


def _join_parts(content: object) -> object:
    """A text may come in parts; pictures, sound and files are none."""
    if content is None:
        return ""
    return "".join(_read_part(part) for part in content) if isinstance(content, list) else content


def _read_part(part: object) -> str:
    fields = part if isinstance(part, dict) else {}
    text = fields.get("text", fields.get("refusal"))
    if fields.get("type") in ("text", "refusal") and isinstance(text, str):
        return text
    kind = str(fields.get("type"))
    raise PydanticCustomError(
        "unreadable_part", "it holds a part of type {kind}, and only text is read", {"kind": kind}
    )


Content = Annotated[Text, BeforeValidator(_join_parts)]
"""A text, whole or in parts."""


def _split_single(value: object) -> object:
    return () if value is None else (value,) if isinstance(value, str) else value


TextOrTexts = Annotated[tuple[Text, ...], BeforeValidator(_split_single)]
"""One text stands for a list of one."""


def write_provider_data(call: ToolCall | ToolCallDelta) -> dict[str, object]:
    """By Google's name for it, in either dialect: clients send back with a call what came with it."""
    return {} if call.provider_data is None else {"extra_content": json.loads(call.provider_data)}


def read_provider_data(extra_content: object) -> str | None:
    return None if extra_content is None else json.dumps(extra_content)


def _decode(value: str | None) -> str | None:
    """HTTP hands headers on as Latin-1; senders mean UTF-8."""
    return None if value is None else value.encode("latin-1").decode("utf-8", errors="replace")
