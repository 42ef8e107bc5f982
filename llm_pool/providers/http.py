"""JSON over HTTP for the providers that need no SDK: one session and one SSL context for the whole pool."""

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import aiohttp

from shared.errors import LLMBrokenAnswerError, LLMConnectionError, LLMTimeoutError

CONNECT_SECONDS = 10.0
"""A host that does not even shake hands in this time is not reachable, however long a model may think."""

_JSON = "application/json"


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


class Connections:
    """Opened at first use, inside the loop that will use them, and shared by every provider of a pool."""

    def __init__(self) -> None:
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
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._session

    async def post_json(
        self, url: str, headers: Mapping[str, str], body: Mapping[str, object], timeout_seconds: float
    ) -> HttpAnswer:
        """
        Raises:
            LLMTimeoutError: no answer within `timeout_seconds`.
            LLMConnectionError, LLMBrokenAnswerError: as `post`.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await self.post(url, {**headers, "Content-Type": _JSON}, json.dumps(body).encode())
        except TimeoutError as error:
            raise LLMTimeoutError(f"no answer within {timeout_seconds:g} s") from error
        return HttpAnswer(answer.status, answer.headers, _parse_json(answer.body))

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> RawAnswer:
        """Takes as long as it takes; whoever calls sets the bound.

        Raises:
            LLMConnectionError: no answer began.
            LLMBrokenAnswerError: it was cut off.
        """
        try:
            async with self.session.post(url, headers=headers, data=body, allow_redirects=False) as response:
                return RawAnswer(response.status, response.headers, await response.read())
        except aiohttp.ClientPayloadError as error:
            raise LLMBrokenAnswerError("the answer was cut off") from error
        except (aiohttp.ClientError, OSError) as error:
            raise LLMConnectionError(f"{type(error).__name__} at {url}") from error

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


def _parse_json(body: bytes) -> object:
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document
