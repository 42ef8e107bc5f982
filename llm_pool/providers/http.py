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


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """Names in any case."""
    document: object
    """The body as parsed JSON; None where it is none."""


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
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session

    async def post_json(
        self, url: str, headers: Mapping[str, str], body: Mapping[str, object], timeout_seconds: float
    ) -> HttpAnswer:
        """
        Raises:
            LLMTimeoutError, LLMConnectionError, LLMBrokenAnswerError: no whole answer came.
        """
        try:
            return await self._post(url, headers, body, timeout_seconds)
        except aiohttp.ServerTimeoutError as error:
            raise LLMConnectionError(f"no connection to {url} within {CONNECT_SECONDS:g} s") from error
        except TimeoutError as error:
            raise LLMTimeoutError(f"no answer within {timeout_seconds:g} s") from error
        except aiohttp.ClientPayloadError as error:
            raise LLMBrokenAnswerError("the answer was cut off") from error
        except (aiohttp.ClientError, OSError) as error:
            raise LLMConnectionError(f"{type(error).__name__} at {url}") from error

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _post(
        self, url: str, headers: Mapping[str, str], body: Mapping[str, object], timeout_seconds: float
    ) -> HttpAnswer:
        async with (
            asyncio.timeout(timeout_seconds),
            self.session.post(
                url,
                headers=headers,
                json=body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            ) as response,
        ):
            return HttpAnswer(response.status, response.headers, _parse_json(await response.read()))


def _parse_json(body: bytes) -> object:
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document
