"""JSON over HTTP for the providers that need no SDK: one session and one SSL context for the whole pool.

The environment's proxies are not used: a key goes where the catalogue says, and nowhere else. Who needs a way out
names a gateway as `base_url`.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property

import aiohttp
from pydantic_core import PydanticSerializationError, from_json, to_json

from shared.errors import LLMBrokenAnswerError, LLMConnectionError, LLMTimeoutError

CONNECT_SECONDS = 10.0
"""A host that does not even shake hands in this time is not reachable, however long a model may think."""
LARGEST_ANSWER_BYTES = 64 * 1024 * 1024
"""What one answer or stream may hold: an error page without end must not fill the worker's memory."""

_JSON = "application/json"
_FAULTS = (aiohttp.ClientError, OSError)
_NOT_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """Names in any case."""
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

    def __init__(self, response: aiohttp.ClientResponse, largest_bytes: int) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._left_bytes = largest_bytes

    @property
    def is_json(self) -> bool:
        return self._response.content_type == _JSON

    def __aiter__(self) -> "OpenAnswer":
        return self

    async def __anext__(self) -> bytes:
        """
        Raises:
            LLMConnectionError, LLMBrokenAnswerError: as `Connections.post`.
        """
        try:
            data = await self._response.content.readany()
        except _FAULTS as error:
            raise _choose_fault(error, self._response.url) from error
        if not data:
            raise StopAsyncIteration
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise LLMBrokenAnswerError("the answer is too large")
        return data

    async def read(self) -> bytes:
        """All of it that is still to come."""
        size = self._response.content_length
        if size is not None and size > self._left_bytes:
            raise LLMBrokenAnswerError("the answer is too large")
        if size is not None and "Content-Encoding" not in self._response.headers:
            try:
                return await self._response.read()
            except _FAULTS as error:
                raise _choose_fault(error, self._response.url) from error
        return b"".join([data async for data in self])

    async def read_json(self) -> HttpAnswer:
        return HttpAnswer(self.status, self.headers, parse_json(await self.read()))


class Connections:
    """Opened at first use, inside the loop that will use them, and shared by every provider of a pool."""

    def __init__(
        self, *, connect_seconds: float = CONNECT_SECONDS, largest_answer_bytes: int = LARGEST_ANSWER_BYTES
    ) -> None:
        self._connect_seconds = connect_seconds
        self._largest_answer_bytes = largest_answer_bytes
        self._session: aiohttp.ClientSession | None = None

    @cached_property
    def ssl_context(self) -> ssl.SSLContext:
        """Making one takes about 15 ms: make one."""
        return ssl.create_default_context()

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            # The connector's default of 100 would queue the 101st call behind a model that thinks for a minute.
            connector = aiohttp.TCPConnector(limit=0, ssl=self.ssl_context)
            # `connect` also bounds the look-up of the name: nobody waits for a free connection here.
            timeout = aiohttp.ClientTimeout(total=None, connect=self._connect_seconds)
            # A cookie that came with one account's answer must not travel with another's question.
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar, trust_env=False)
        return self._session

    async def post_json(
        self, url: str, headers: Mapping[str, str], body: Mapping[str, object], timeout_seconds: float
    ) -> HttpAnswer:
        """
        Raises:
            LLMTimeoutError: no answer within `timeout_seconds`.
            LLMConnectionError, LLMBrokenAnswerError: as `post`.
        """
        return await self._ask("POST", url, {**headers, "Content-Type": _JSON}, dump_json(body), timeout_seconds)

    async def get_json(self, url: str, headers: Mapping[str, str], timeout_seconds: float) -> HttpAnswer:
        """Raises what `post_json` raises."""
        return await self._ask("GET", url, headers, None, timeout_seconds)

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
        response = await self._begin(method, url, headers, body)
        try:
            yield OpenAnswer(response, self._largest_answer_bytes)
        finally:
            response.close()

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> HttpAnswer:
        try:
            async with asyncio.timeout(timeout_seconds):
                response = await self._begin(method, url, headers, body)
                try:
                    return await OpenAnswer(response, self._largest_answer_bytes).read_json()
                finally:
                    response.close()
        except TimeoutError as error:
            raise LLMTimeoutError(f"no answer within {timeout_seconds:g} s") from error

    async def _begin(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> aiohttp.ClientResponse:
        try:
            return await self.session.request(method, url, headers=headers, data=body, allow_redirects=False)
        except _FAULTS as error:
            raise _choose_fault(error, url) from error


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


def _choose_fault(error: Exception, place: object) -> LLMBrokenAnswerError | LLMConnectionError:
    if isinstance(error, aiohttp.ClientPayloadError):
        return LLMBrokenAnswerError("the answer was cut off")
    fault = LLMConnectionError(f"{type(error).__name__} at {place}")
    fault.was_sent = not isinstance(error, _NOT_CONNECTED)
    return fault
