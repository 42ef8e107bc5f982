"""What worker, warden and ward say to each other, a line each, so that both ends stand in one place.

Worker and ward share one socket; the warden, which holds the ward's end too, tells on it of birth and death. Nothing
here is pickled: what comes from a process that may have gone mad is only ever read as data.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter

from llm_pool.remote.wire import build_error_body, choose_status, dump_response, read_error, read_response
from llm_pool.types import CompletionRequest, CompletionResponse
from shared.errors import InputError, LLMError, LLMUnavailableError

LARGEST_LINE_BYTES: Final = 64 * 2**20
"""More than any answer; a line without end is not kept for ever."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a ward is given, once."""

    job_id: UUID
    """For its log."""
    silent_seconds: float
    """A ward that has not beaten for so long is taken for dead."""
    request: CompletionRequest


@dataclass(frozen=True, slots=True)
class Started:
    """By the warden: from here on something may have been sent to a provider."""

    pid: int


@dataclass(frozen=True, slots=True)
class Beat:
    """By the ward's event loop: it is not blocked."""


@dataclass(frozen=True, slots=True)
class Answered:
    """By the ward: what its pool returned."""

    response: CompletionResponse


@dataclass(frozen=True, slots=True)
class Refused:
    """By the ward: what its pool raised."""

    error: InputError | LLMError


@dataclass(frozen=True, slots=True)
class Surprised:
    """By the ward: nobody expected this."""

    description: str


@dataclass(frozen=True, slots=True)
class Ended:
    """By the warden: nothing more will come."""

    status: int
    """Negative when a signal ended it."""


Told = Started | Beat | Answered | Refused | Surprised | Ended


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An error on its way; a pool service says the same in status, body and headers."""

    status: int
    body: dict[str, Any]
    message: str
    """In full, which the body leaves out where every provider was unavailable."""
    retry_after_seconds: float | None


_QUESTION = TypeAdapter(Question)
_REFUSAL = TypeAdapter(_Refusal)
_RESPONSE = TypeAdapter(dict[str, Any])


def dump_question(question: Question) -> bytes:
    return _QUESTION.dump_json(question) + b"\n"


def read_question(line: bytes) -> Question:
    """
    Raises:
        pydantic.ValidationError: it is not what `dump_question` writes.
    """
    return _QUESTION.validate_json(line)


def dump_start(pid: int) -> bytes:
    return b"+%d\n" % pid


def dump_beat() -> bytes:
    return b".\n"


def dump_answer(response: CompletionResponse) -> bytes:
    return b"=" + dump_response(response) + b"\n"


def dump_refusal(error: InputError | LLMError) -> bytes:
    return b"!" + _REFUSAL.dump_json(_describe(error)) + b"\n"


def dump_surprise(surprise: Exception) -> bytes:
    return b"?" + type(surprise).__name__.encode() + b"\n"


def dump_end(status: int) -> bytes:
    """On a line of its own, even when the ward died in the middle of one."""
    return b"\n-%d\n" % status


def read_told(line: bytes) -> Told | None:
    """None for a line that says nothing, as one that was cut off.

    Raises:
        ValueError: it claims to be whole, and is not.
    """
    read = _READERS.get(line[:1])
    return read(line[1:-1]) if read and line.endswith(b"\n") else None


def _describe(error: InputError | LLMError) -> _Refusal:
    if isinstance(error, InputError):
        return _Refusal(error.http_status, {"error": error.as_dict()}, str(error), None)
    return _Refusal(choose_status(error), build_error_body(error, True), str(error), error.retry_after_seconds)


def _read_refusal(text: bytes) -> Refused:
    told = _REFUSAL.validate_json(text)
    error = read_error(told.status, told.body, told.retry_after_seconds)
    if isinstance(error, LLMUnavailableError):
        error = LLMUnavailableError(told.message, retry_after_seconds=told.retry_after_seconds, attempts=error.attempts)
    return Refused(error)


_READERS: Final[Mapping[bytes, Callable[[bytes], Told]]] = {
    b"+": lambda text: Started(int(text)),
    b".": lambda _: Beat(),
    b"=": lambda text: Answered(read_response(_RESPONSE.validate_json(text))),
    b"!": _read_refusal,
    b"?": lambda text: Surprised(text.decode(errors="replace")),
    b"-": lambda text: Ended(int(text)),
}
