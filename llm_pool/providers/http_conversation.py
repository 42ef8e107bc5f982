"""One connection to a server that speaks HTTP/1.1, and the one question that is under way on it.

The parser is llhttp, Node.js' own, by way of httptools. A client for every purpose costs more than all that the pool
does for a call (docs/decisions/0021-http-without-a-client.md); what is left out here is what no call of a model needs.
"""

import asyncio
import socket
import zlib
from enum import Enum, auto
from typing import Final, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from shared.errors import LLMBrokenAnswerError, LLMConnectionError, LLMError

MOST_UNREAD_BYTES: Final = 256 * 1024
"""Of an answer that is read piece by piece; the server waits meanwhile."""
LARGEST_HEAD_BYTES: Final = 256 * 1024
"""Of an answer, whatever was said before it included."""
PACKED: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""How zlib is told what it unpacks."""
INTERIM_BELOW: Final = 200
"""A status that only says that the real answer is still to come."""


class _Unpacker(Protocol):
    """What `zlib.decompressobj` gives, whose type has no name."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Stage(Enum):
    """What has come of an answer."""

    HEAD = auto()
    BODY = auto()
    WHOLE = auto()


class Conversation(asyncio.Protocol):
    """Ask, wait for the answer to begin, and read it; again, while `is_reusable`. Whatever goes wrong is raised by what
    waits, as an `LLMError`.
    """

    status: int
    headers: dict[str, str]
    """Of the answer; names in lower case."""
    _stage: _Stage
    _fault: LLMError | None
    _incoming: dict[str, str]
    """Headers whose end has not come."""
    _unpacker: _Unpacker | None
    _pieces: list[bytes]
    """Of the body, not read by anybody yet."""
    _head_bytes: int
    _read_bytes: int
    _unread_bytes: int
    _is_read_whole: bool
    _keeps: bool

    def __init__(self, place: str, largest_bytes: int) -> None:
        """`place` is for people; `largest_bytes` bounds an answer, unpacked."""
        self._place = place
        self._largest_bytes = largest_bytes
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._parser = HttpResponseParser(self)
        self._is_open = False
        self._forget()
        self._stage = _Stage.WHOLE  # there is nothing to wait for yet

    @property
    def is_reusable(self) -> bool:
        """The answer has come whole, nothing came after it, and both sides keep the connection."""
        return self._is_open and self._keeps and self._fault is None and not self._transport.get_write_buffer_size()

    def ask(self, request: bytes) -> None:
        self._forget()
        self._transport.write(request)

    async def begin(self) -> None:
        """Until `status` and `headers` are those of the answer."""
        while self._stage is _Stage.HEAD:
            await self._hear()

    async def read_piece(self) -> bytes:
        """What has come by now, and at least something; nothing when that was all."""
        while not self._pieces and not self._is_answered:
            await self._hear()
        piece = b"".join(self._pieces)
        self._pieces.clear()
        self._go_on_reading()
        return piece

    async def read_whole(self) -> bytes:
        """The body, or what is left of it."""
        self._is_read_whole = True
        self._go_on_reading()
        while self._stage is not _Stage.WHOLE:
            await self._hear()
        return b"".join(self._pieces)

    def give_up(self, fault: LLMError) -> None:
        """Have what waits here raise that, unless the answer has come."""
        self._fail(fault)
        self._tell()

    def close(self) -> None:
        """At once: what has not been sent, or not been read, is given up."""
        self._keeps = False
        if self._is_open:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's says so of itself, and is none
        self._is_open = True
        connected: socket.socket = transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        if self._stage is _Stage.WHOLE:  # whatever it is, it was not asked for
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._fail(LLMConnectionError(f"{self._place} wants to speak something else than HTTP"))
        except HttpParserError as error:
            self._fail(self._build_break(f"{type(error).__name__}: {error}"))
        self._bound_head(len(data))
        if self._is_read_whole and not self._is_answered and self._fault is None:
            return
        if self._unread_bytes > MOST_UNREAD_BYTES:
            self._transport.pause_reading()
        self._tell()

    def eof_received(self) -> None:
        """The connection is lost at the loop's next turn; until then it looks as if it could be used."""
        self._keeps = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_open = False
        if self._stage is _Stage.BODY and exc is None and self._lasts_until_the_end:
            self._stage = _Stage.WHOLE
        self._fail(self._build_break("the server closed the connection" if exc is None else repr(exc)))
        self._tell()

    def on_message_begin(self) -> None:
        """Called by the parser, as are the next."""
        self._keeps = False  # if this is one too many, nothing else says so until its end

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self._incoming.get(key)
        self._incoming[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        status, headers = self._parser.get_status_code(), self._incoming
        self._incoming = {}
        if self._stage is not _Stage.HEAD or status < INTERIM_BELOW:
            return
        self.status, self.headers = status, headers
        self._stage = _Stage.BODY
        encoding = headers.get("content-encoding")
        if encoding is not None:
            self._unpacker = self._choose_unpacker(encoding.lower())
        if int(headers.get("content-length", 0)) > self._largest_bytes:
            self._fail(LLMBrokenAnswerError("the answer is too large"))

    def on_body(self, data: bytes) -> None:
        if self._stage is not _Stage.BODY or self._fault is not None:
            return
        if self._unpacker is not None:
            data = self._unpack(data, self._unpacker)
        self._read_bytes += len(data)
        self._unread_bytes += len(data)
        self._pieces.append(data)
        if self._read_bytes > self._largest_bytes:
            self._fail(LLMBrokenAnswerError("the answer is too large"))

    def on_message_complete(self) -> None:
        if self._stage is _Stage.BODY and self._fault is None:
            self._stage = _Stage.WHOLE
            self._keeps = self._parser.should_keep_alive()

    @property
    def _is_answered(self) -> bool:
        return self._stage is _Stage.WHOLE

    @property
    def _lasts_until_the_end(self) -> bool:
        """Of the connection, as nothing says how long the body is."""
        return "content-length" not in self.headers and "chunked" not in self.headers.get("transfer-encoding", "")

    def _forget(self) -> None:
        """The answer before."""
        self.status = 0
        self.headers, self._incoming = {}, {}
        self._stage = _Stage.HEAD
        self._fault = self._unpacker = None
        self._pieces = []
        self._head_bytes = self._read_bytes = self._unread_bytes = 0
        self._is_read_whole = self._keeps = False

    def _hear(self) -> "asyncio.Future[None]":
        """Done when something has come that is waited for."""
        if self._fault is not None:
            raise self._fault
        self._waiter = self._loop.create_future()
        return self._waiter

    def _tell(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, fault: LLMError) -> None:
        """The first fault counts; none does where the answer has come."""
        if self._is_answered:
            self._keeps = False
        elif self._fault is None:
            self._fault = fault

    def _bound_head(self, more_bytes: int) -> None:
        if self._stage is _Stage.HEAD:
            self._head_bytes += more_bytes
            if self._head_bytes > LARGEST_HEAD_BYTES:
                self._fail(LLMBrokenAnswerError("the head of the answer is too large"))

    def _build_break(self, cause: str) -> LLMError:
        if self._stage is _Stage.BODY:
            return LLMBrokenAnswerError("the answer was cut off")
        return LLMConnectionError(f"{self._place}: {cause}")

    def _go_on_reading(self) -> None:
        if self._unread_bytes > MOST_UNREAD_BYTES:
            self._transport.resume_reading()
        self._unread_bytes = 0

    def _choose_unpacker(self, encoding: str) -> "_Unpacker | None":
        if encoding in PACKED:
            return zlib.decompressobj(PACKED[encoding])
        if encoding != "identity":
            self._fail(LLMBrokenAnswerError(f"the answer comes as {encoding!r}, which was not asked for"))
        return None

    def _unpack(self, data: bytes, unpacker: "_Unpacker") -> bytes:
        """No more than is borne at most, and one byte, however much it would be."""
        try:
            return unpacker.decompress(data, self._largest_bytes + 1)
        except zlib.error:
            self._fail(LLMBrokenAnswerError("the answer cannot be unpacked"))
            return b""
