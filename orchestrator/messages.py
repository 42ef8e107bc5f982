"""The message on the queue: what a producer sends, checked before anything is stored.

Producers are foreign programs, so everything is doubted: text that Postgres cannot hold (NUL, lone surrogates,
NaN) is refused here with the field's name, long before it could fail inside a transaction.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticKnownError

from llm_pool.dialects.bodies import read_body, refuse_unknown
from llm_pool.dialects.openai_requests import ASKS_FOR_NOTHING, CHAT_REMEDY, IGNORED, ChatBody
from shared.errors import InputError
from shared.text import find_fault

MESSAGE_VERSION: Final = 1
DEFAULT_TENANT: Final = "default"
MAX_CONTENT_CHARACTERS: Final = 1_000_000
MAX_MESSAGE_CHARACTERS: Final = 4_000_000
MAX_DEPTH: Final = 32

_PROMPT_FIELDS: Final = frozenset(ChatBody.model_fields)
_PLAIN_FIELDS: Final = frozenset({"model", "messages", "max_tokens"})
_PLAIN_MESSAGE_FIELDS: Final = frozenset({"role", "content"})
_PLAIN_ROLES: Final = ("user", "system", "assistant")

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Channel(StrEnum):
    """Where the message came from."""

    SLACK = "slack"
    WHATSAPP = "whatsapp"
    MATTERMOST = "mattermost"
    API = "api"


class Turn(BaseModel):
    """One earlier turn of the conversation."""

    model_config = ConfigDict(frozen=True)

    role: Literal["user", "assistant"]
    content: str


class MessageContext(BaseModel):
    """What else the producer knows; only `history` is read, the rest is kept."""

    model_config = ConfigDict(extra="allow", frozen=True)

    history: tuple[Turn, ...] = ()


class Purse(BaseModel):
    """Money that several messages share, over all workers and days: those of a batch, for instance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    limit_usd: Annotated[Decimal, Field(gt=0, allow_inf_nan=False)]


def _with_time_zone(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Message(BaseModel):
    """One question to an agent. Unknown fields are tolerated and kept, so that producers may be newer than workers."""

    model_config = ConfigDict(extra="allow", frozen=True)

    version: Annotated[int, Field(ge=1, le=MESSAGE_VERSION)] = MESSAGE_VERSION
    """Format of the message; a worker refuses one from its future."""
    id: Name
    """The sender's own id. The same tenant and id twice is one job and one answer."""
    tenant_id: Name = DEFAULT_TENANT
    agent_id: Name | None = None
    """Who shall answer; None is the tenant's default agent."""
    model: Name | None = None
    """A model group for this message; None is the agent's own preference."""
    channel: Channel
    channel_metadata: dict[str, Any] = Field(default_factory=dict)
    sender: Name
    prompt: dict[str, Any] | None = None
    """An OpenAI chat request. It goes to the model as it is: no agent is consulted, and `content` may be left out."""
    content: Annotated[str, StringConstraints(max_length=MAX_CONTENT_CHARACTERS)] = Field("", validate_default=True)
    timestamp: Annotated[datetime, AfterValidator(_with_time_zone)]
    """When it was sent; without a zone it is taken as UTC."""
    thread_id: Name | None = None
    reply_to: Name | None = None
    context: MessageContext = MessageContext()
    purse: Purse | None = None
    """What its calls may cost together with all others that name the same one."""

    @field_validator("content")
    @classmethod
    def _says_something(cls, content: str, info: ValidationInfo) -> str:
        if not content and info.data.get("prompt") is None:
            raise PydanticKnownError("string_too_short", {"min_length": 1})
        return content


def parse_message(raw: object) -> Message:
    """Check what a producer sent.

    Raises:
        InputError: naming the first field that cannot be used.
    """
    if not isinstance(raw, Mapping):
        raise InputError("message", f"is a {type(raw).__name__}", "send one JSON object with id, channel, content …")
    refuse_unstorable(raw)
    try:
        message = Message.model_validate({key: value for key, value in raw.items() if not _is_absent(key, value)})
    except ValidationError as error:
        raise _as_input_error(error.errors(include_url=False, include_input=False)[0], raw) from None
    if message.prompt is not None:
        _check_prompt(message.prompt, message.model)
    return message


def read_prompt(prompt: Mapping[str, Any], model: str | None) -> ChatBody:
    """An OpenAI chat request as the pool understands it; `model` goes before the request's own.

    Raises:
        InputError: naming the first field that cannot be honoured.
    """
    name = model or prompt.get("model")
    if not name:
        raise InputError("model", "is missing", "name a model group, beside `prompt` or in it")
    known = prompt if prompt.keys() <= _PROMPT_FIELDS else _drop_harmless(prompt)
    body = read_body(ChatBody, {**known, "model": name}, CHAT_REMEDY)
    if not body.messages:
        raise InputError("messages", "is empty", "send at least one message")
    return body


def is_plain(prompt: Mapping[str, Any]) -> bool:
    """Nothing but a model, texts and a bound of tokens: told in a fraction of what `read_prompt` takes."""
    messages, model, max_tokens = prompt.get("messages"), prompt.get("model", ""), prompt.get("max_tokens", 1)
    return (
        prompt.keys() <= _PLAIN_FIELDS
        and type(model) is str
        and type(max_tokens) is int
        and max_tokens > 0
        and type(messages) is list
        and bool(messages)
        and all(map(_is_plain_message, messages))
    )


def _is_plain_message(message: object) -> bool:
    return (
        type(message) is dict
        and message.keys() == _PLAIN_MESSAGE_FIELDS
        and message["role"] in _PLAIN_ROLES
        and type(message["content"]) is str
    )


def _drop_harmless(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """What the pool has no words for: refused where it asks for something."""
    refuse_unknown(prompt, ASKS_FOR_NOTHING)
    return {field: value for field, value in prompt.items() if field not in ASKS_FOR_NOTHING and field not in IGNORED}


def _check_prompt(prompt: Mapping[str, Any], model: str | None) -> None:
    try:
        read_prompt(prompt, model)
    except InputError as error:
        raise InputError(f"prompt.{error.field}", error.problem, error.remedy) from None


def _is_absent(key: str, value: object) -> bool:
    """A null `tenant_id` or `context` is the same as none."""
    return value is None and key in {"version", "tenant_id", "channel_metadata", "context"}


def refuse_unstorable(raw: Mapping[str, Any]) -> None:
    """
    Raises:
        InputError: naming the field that Postgres cannot keep, or that is too large.
    """
    total = 0
    for field, value in _walk(raw):
        if isinstance(value, str):
            total += len(value)
            if len(value) > MAX_CONTENT_CHARACTERS:
                raise InputError(field, f"holds {len(value):,} characters", f"send at most {MAX_CONTENT_CHARACTERS:,}")
            if fault := find_fault(value):
                raise InputError(field, fault.problem, fault.remedy)
        elif isinstance(value, float) and not math.isfinite(value):
            raise InputError(field, f"is {value}", "send a finite number")
    if total > MAX_MESSAGE_CHARACTERS:
        raise InputError("message", f"holds {total:,} characters", f"send at most {MAX_MESSAGE_CHARACTERS:,}")


def _walk(raw: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every key and every leaf, each with the field it belongs to; without recursion, as depth is the sender's."""
    todo: list[tuple[str, Any, int]] = [(str(key), value, 1) for key, value in raw.items()]
    yield from (("message", key) for key in raw)
    while todo:
        field, value, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise InputError(field.partition(".")[0], f"is nested deeper than {MAX_DEPTH} levels", "send it flatter")
        if isinstance(value, Mapping):
            yield from ((field, key) for key in value)
            todo.extend((f"{field}.{key}", inner, depth + 1) for key, inner in value.items())
        elif isinstance(value, list | tuple):
            todo.extend((f"{field}.{index}", inner, depth + 1) for index, inner in enumerate(value))
        else:
            yield field, value


def _as_input_error(details: ErrorDetails, raw: Mapping[str, Any]) -> InputError:
    field = ".".join(str(part) for part in details["loc"]) or "message"
    context = details.get("ctx", {})
    if field == "content" and field not in raw:
        return InputError(field, "is missing", "add it")
    match details["type"]:
        case "missing":
            return InputError(field, "is missing", "add it")
        case "enum" | "literal_error":
            return InputError(field, "is not known", f"use one of {context['expected']}")
        case "string_too_long":
            return InputError(field, "is too long", f"send at most {context['max_length']:,} characters")
        case "string_too_short":
            return InputError(field, "is empty", "send some text")
        case "less_than_equal":
            return InputError(field, "is newer than this worker knows", f"send {context['le']}, or upgrade the workers")
    return InputError(field, "cannot be used", _plain(details["msg"]))


def _plain(pydantic_message: str) -> str:
    return pydantic_message[:1].lower() + pydantic_message[1:]
