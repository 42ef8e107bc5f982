"""JSON over HTTP for the providers that need no SDK: one session and one SSL context for the whole pool.

The environment's proxies are not used: a key goes where the catalogue says, and nowhere else. Who needs a way out
names a gateway as `base_url`.
"""

import asyncio
import json
import ssl
from asyncio import AbstractEventLoop, BaseEventLoop
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from math import inf
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError, from_json, to_json

from llm_pool.providers.http_address import Address, build_request, read_address, refuse
from llm_pool.providers.http_conversation import Conversation
from llm_pool.providers.http_deadlines import Deadlines
from llm_pool.providers.http_keeping import KeptConversations
from shared.errors import LLMTimeoutError

CONNECT_SECONDS = 10.0
"""A host that does not even shake hands in this time is not reachable, however long a model may think."""
LARGEST_ANSWER_BYTES = 64 * 1024 * 1024
"""What one answer or stream may hold: an error page without end must not fill the worker's memory."""
NEXT_ADDRESS_SECONDS = 0.25
"""Of a host that has several; RFC 8305 names this wait."""

_JSON = "application/json"


class HttpAnswer(NamedTuple):
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    document: object
    """The body as parsed JSON; None where it is none."""


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """The same, before anyone looked into the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class OpenAnswer:
    """One whose body is still coming. Iterate over its bytes as they come, once; or read it whole."""

    def __init__(self, conversation: Conversation) -> None:
        self.status = conversation.status
        self.headers: Mapping[str, str] = conversation.headers
        self._conversation = conversation

    @property
    def is_json(self) -> bool:
        kind, _, _ = self.headers.get("content-type", "").partition(";")
        return kind.strip().lower() == _JSON

    def __aiter__(self) -> "OpenAnswer":
        return self

    async def __anext__(self) -> bytes:
        """
        Raises:
            LLMConnectionError, LLMBrokenAnswerError: as `Connections.post`.
        """
        piece = await self._conversation.read_piece()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def read(self) -> bytes:
        """All of it that is still to come."""
        return await self._conversation.read_whole()

    async def read_json(self) -> HttpAnswer:
        return HttpAnswer(self.status, self.headers, parse_json(await self.read()))


class Connections:
    """Opened as they are needed, inside the loop that needs them, and shared by every provider of a pool."""

    def __init__(
        self, *, connect_seconds: float = CONNECT_SECONDS, largest_answer_bytes: int = LARGEST_ANSWER_BYTES
    ) -> None:
        self._connect_seconds = connect_seconds
        self._largest_answer_bytes = largest_answer_bytes
        self._kept = KeptConversations()
        self._deadlines = Deadlines()

    @cached_property
    def ssl_context(self) -> ssl.SSLContext:
        """Making one takes about 15 ms: make one."""
        return ssl.create_default_context()

    def post_json(
        self, url: str, headers: Mapping[str, str], body: Mapping[str, object], timeout_seconds: float
    ) -> Awaitable[HttpAnswer]:
        """
        Raises:
            LLMTimeoutError: no answer within `timeout_seconds`.
            LLMConnectionError, LLMBrokenAnswerError: as `post`.
        """
        return self._ask("POST", url, {**headers, "Content-Type": _JSON}, dump_json(body), timeout_seconds)

    def get_json(self, url: str, headers: Mapping[str, str], timeout_seconds: float) -> Awaitable[HttpAnswer]:
        """Raises what `post_json` raises."""
        return self._ask("GET", url, headers, None, timeout_seconds)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> RawAnswer:
        """Takes as long as it takes; whoever calls sets the bound.

        Raises:
            LLMConnectionError: no answer began.
            LLMBrokenAnswerError: it was cut off, or is too large.
        """
        async with self.open("POST", url, headers, body) as answer:
            return RawAnswer(answer.status, answer.headers, await answer.read())

    @asynccontextmanager
    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncIterator[OpenAnswer]:
        """An answer to be read as it comes. Left before its end, its socket is closed; bounds and errors as `post`."""
        address = read_address(url)
        request = build_request(method, address, headers, body)
        conversation = self._kept.take(address.place) or await self._connect(address)
        try:
            conversation.ask(request)
            await conversation.begin()
            yield OpenAnswer(conversation)
        finally:
            self._kept.put_back(address.place, conversation)

    async def aclose(self) -> None:
        """Whoever still waits for an answer is told that there will be none."""
        self._kept.close()
        self._deadlines.close()
        await asyncio.sleep(0)  # the loop closes sockets at its next turn

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> HttpAnswer:
        build_lateness = partial(_build_lateness, timeout_seconds)
        ends_at = asyncio.get_running_loop().time() + timeout_seconds
        address = read_address(url)
        request = build_request(method, address, headers, body)
        conversation = self._kept.take(address.place) or await self._connect(address, ends_at, build_lateness)
        try:
            conversation.ask(request)
            self._deadlines.add(conversation, ends_at, lambda: conversation.give_up(build_lateness()))
            answered = await conversation.read_whole()
            return HttpAnswer(conversation.status, conversation.headers, parse_json(answered))
        finally:
            self._deadlines.discard(conversation)
            self._kept.put_back(address.place, conversation)

    async def _connect(
        self, address: Address, ends_at: float = inf, build_lateness: Callable[[], LLMTimeoutError] | None = None
    ) -> Conversation:
        """What `build_lateness` gives is raised where there is no connection at `ends_at`, by the loop's clock."""
        loop = asyncio.get_running_loop()
        gives_up_at = loop.time() + self._connect_seconds
        try:
            async with asyncio.timeout_at(min(gives_up_at, ends_at)):
                conversation: Conversation
                _, conversation = await loop.create_connection(
                    partial(Conversation, address.place, self._largest_answer_bytes),
                    address.host,
                    address.port,
                    ssl=self.ssl_context if address.is_secure else None,
                    **_choose_options(loop),
                )
        except OSError as error:
            if isinstance(error, TimeoutError) and build_lateness is not None and ends_at < gives_up_at:
                raise build_lateness() from error
            raise refuse(f"{address.place} cannot be reached: {str(error) or type(error).__name__}") from error
        self._kept.add(conversation)
        return conversation


def _build_lateness(timeout_seconds: float) -> LLMTimeoutError:
    return LLMTimeoutError(f"no answer within {timeout_seconds:g} s")


def _choose_options(loop: AbstractEventLoop) -> dict[str, Any]:
    """uvloop tries one address after the other, and knows no such option."""
    return {"happy_eyeballs_delay": NEXT_ADDRESS_SECONDS} if isinstance(loop, BaseEventLoop) else {}


def dump_json(body: Mapping[str, object]) -> bytes:
    try:
        return to_json(body)
    except PydanticSerializationError:  # half of a surrogate pair, which the slower one can escape
        return json.dumps(body).encode()


def parse_json(body: bytes) -> object:
    """None where it is no JSON."""
    try:
        document: object = from_json(body)
    except ValueError:
        return _parse_leniently(body)
    return document


def _parse_leniently(body: bytes) -> object:
    """Halves of surrogate pairs, byte order marks and UTF-16 are left to the slower reader, which takes them."""
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document
