"""Reads the lines of a stream from the pool service, and tells a whole one from one that was cut off."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from llm_pool.providers.http import Connections, HttpAnswer, OpenAnswer, dump_json
from llm_pool.remote.wire import read_line
from llm_pool.types import StreamChunk
from shared.errors import LLMBrokenAnswerError, LLMTimeoutError


class Refused(Exception):  # noqa: N818 - an answer, not a fault: `remote` reads the error out of it
    """The service answered with another status than 200."""

    def __init__(self, answer: HttpAnswer) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.answer = answer


async def read_stream(
    connections: Connections, url: str, body: Mapping[str, object], timeout_seconds: float
) -> AsyncGenerator[StreamChunk, None]:
    """`timeout_seconds` bounds each wait; closing the iterator closes the socket.

    Raises:
        Refused: it never began.
        LLMTimeoutError, LLMConnectionError, LLMBrokenAnswerError: the service did not say all it had to say.
        LLMError: the service says that it failed.
    """
    async with _open(connections, url, body, timeout_seconds) as answer:
        rest = b""
        while piece := await _read(answer, timeout_seconds):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                chunk = _parse(line)
                yield chunk
                if chunk.response is not None:
                    return
    raise LLMBrokenAnswerError("the stream was cut off")


@asynccontextmanager
async def _open(
    connections: Connections, url: str, body: Mapping[str, object], timeout_seconds: float
) -> AsyncIterator[OpenAnswer]:
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(timeout_seconds):
                opening = connections.open("POST", url, {"Content-Type": "application/json"}, dump_json(body))
                answer = await stack.enter_async_context(opening)
                refusal = None if answer.status == 200 else await answer.read_json()
        except TimeoutError as error:
            raise LLMTimeoutError(f"no answer within {timeout_seconds:g} s") from error
        if refusal is not None:
            raise Refused(refusal)
        yield answer


async def _read(answer: OpenAnswer, timeout_seconds: float) -> bytes:
    """Empty at the end. Not by lines: the last one holds the whole answer, and may be long."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await anext(answer, b"")
    except TimeoutError as error:
        raise LLMTimeoutError(f"the stream stood still for {timeout_seconds:g} s") from error


def _parse(line: bytes) -> StreamChunk:
    try:
        return read_line(line)
    except ValueError as error:
        raise LLMBrokenAnswerError("a line of the stream is not what a pool service writes") from error
