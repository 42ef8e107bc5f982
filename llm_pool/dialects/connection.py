"""An answer lasts as long as its caller listens: whoever hangs up cancels the call, and so the provider's."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from llm_pool.asking.asking import closing
from llm_pool.types import StreamChunk
from shared.errors import InputError, LLMError

CLIENT_CLOSED_REQUEST = 499
"""Nobody reads it; it keeps the access log true."""

AnswerT = TypeVar("AnswerT")


class StreamDialect(Protocol):
    """How one dialect writes one stream; made anew for each."""

    media_type: str

    def open(self) -> Iterable[bytes]:
        """What stands before the first piece."""

    def write(self, chunk: StreamChunk) -> Iterable[bytes]:
        """A piece; the last one, which carries the response, ends the stream."""

    def write_error(self, error: LLMError) -> Iterable[bytes]:
        """After something was said: it ends the stream in place of the last piece."""


async def answer_while_connected(connection: Request, work: Coroutine[Any, Any, AnswerT]) -> AnswerT | None:
    """None when the caller hung up: `work` is cancelled then, which closes the socket to the provider."""
    await connection.body()
    answering = asyncio.ensure_future(work)
    # The body has been read, so the only thing still to come from the caller is its end.
    hanging_up = asyncio.ensure_future(connection.receive())
    try:
        await asyncio.wait((answering, hanging_up), return_when=asyncio.FIRST_COMPLETED)
        return answering.result() if answering.done() else None
    finally:
        answering.cancel()
        hanging_up.cancel()
        await asyncio.gather(answering, hanging_up, return_exceptions=True)


def close_unheard() -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def build_route_class(refuse: Callable[[LLMError | InputError], Response]) -> type[APIRoute]:
    """Routes whose errors are told in their own dialect."""

    class DialectRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                try:
                    return await handle(request)
                except (LLMError, InputError) as error:
                    return refuse(error)

            return answer

    return DialectRoute


class StreamedAnswer(Response):
    """Status and headers wait for the first piece: what fails before it is an ordinary error answer."""

    def __init__(
        self,
        chunks: AsyncIterator[StreamChunk],
        dialect: StreamDialect,
        refuse: Callable[[LLMError | InputError], Response],
    ) -> None:
        super().__init__(media_type=dialect.media_type, headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._chunks = chunks
        self._dialect = dialect
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = asyncio.ensure_future(self._answer(scope, receive, send))
        hanging_up = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((answering, hanging_up), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            answering.cancel()
            hanging_up.cancel()
            await asyncio.gather(answering, hanging_up, return_exceptions=True)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with closing(self._chunks) as chunks:
            try:
                first = await anext(chunks)
            except (LLMError, InputError) as error:
                await self._refuse(error)(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await _send_all(send, (*self._dialect.open(), *self._dialect.write(first)))
            await self._relay(chunks, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _relay(self, chunks: AsyncIterator[StreamChunk], send: Send) -> None:
        try:
            async for chunk in chunks:
                await _send_all(send, self._dialect.write(chunk))
        except LLMError as error:
            await _send_all(send, self._dialect.write_error(error))


async def _send_all(send: Send, parts: Iterable[bytes]) -> None:
    body = b"".join(parts)
    if body:
        await send({"type": "http.response.body", "body": body, "more_body": True})
