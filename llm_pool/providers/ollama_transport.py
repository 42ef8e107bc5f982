"""Carries the ollama client's requests over the pool's own connections: httpx's slow with each call in flight."""

import codecs
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import httpx

from llm_pool.providers.failures import build_failure, choose_class
from llm_pool.providers.http import Connections, OpenAnswer, RawAnswer
from llm_pool.providers.quota_headers import OPENAI, read_quota
from llm_pool.providers.retry_after import read_retry_after
from shared.errors import LLMError

HEARD = "llmyard_quota"
"""The extension of a request that is a list: it takes what the answer's headers say, which the client does not tell.
Ollama itself sends none on a chat; gateways in front of it do, as OpenAI writes them.
"""

# httpx ends a line at these too, in the middle of a text that holds one.
_NO_LINE_ENDS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}


class PooledTransport(httpx.AsyncBaseTransport):
    """One for each client."""

    def __init__(self, connections: Connections, *, sends_key: bool) -> None:
        self._connections = connections
        self._sends_key = sends_key

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        async with AsyncExitStack() as opened:
            answer = await opened.enter_async_context(
                self._connections.open(request.method, str(request.url), self._choose_headers(request), body or None)
            )
            # Here, as the client's own error has lost the headers.
            if answer.status != 200:
                raise map_error(RawAnswer(answer.status, answer.headers, await answer.read()), datetime.now(UTC))
            request.extensions.get(HEARD, []).extend(read_quota(answer.headers, OPENAI, datetime.now(UTC)))
            return httpx.Response(200, stream=_Body(answer, opened.pop_all()))

    def _choose_headers(self, request: httpx.Request) -> Mapping[str, str]:
        """The client sends OLLAMA_API_KEY from the environment to any server; ours goes only where it is configured."""
        passed_on = ["content-type", "user-agent", *(["authorization"] if self._sends_key else [])]
        return {name: request.headers[name] for name in passed_on}


class _Body(httpx.AsyncByteStream):
    """What is still to come; closing it early closes the socket."""

    def __init__(self, answer: OpenAnswer, opened: AsyncExitStack) -> None:
        self._answer = answer
        self._opened = opened

    async def __aiter__(self) -> AsyncIterator[bytes]:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        async for data in self._answer:
            yield decoder.decode(data).translate(_NO_LINE_ENDS).encode()
        yield decoder.decode(b"", final=True).encode()

    async def aclose(self) -> None:
        await self._opened.aclose()


def map_error(answer: RawAnswer, now: datetime) -> LLMError:
    """By status alone: the body is `{"error": "text"}`, which is for people."""
    return build_failure(
        choose_class(answer.status),
        f"HTTP {answer.status}: {answer.body.decode(errors='replace')}",
        retry_after_seconds=read_retry_after(answer.headers, now),
        quota=read_quota(answer.headers, OPENAI, now),
    )
