"""A TCP server that says, byte for byte, what a test wants to be heard."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class RawServer:
    """What it was asked, and over how many connections."""

    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    readers: list[asyncio.StreamReader] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """A caller closed a connection."""


Speak = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""Answers one request."""


def say(*pieces: bytes, closes: bool = False) -> Speak:
    """Each piece in a packet of its own."""

    async def speak(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if closes:
            writer.close()

    return speak


@asynccontextmanager
async def serve_raw(
    speak: Speak, *, host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> AsyncIterator[RawServer]:
    server = RawServer()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        server.readers.append(reader)
        server.writers.append(writer)
        try:
            while True:
                server.requests.append(await _read_request(reader))
                server.asked.set()
                await speak(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            server.ended.set()
            writer.close()
        except asyncio.CancelledError:  # the test is over; asyncio would log it as a fault
            writer.close()

    listening = await asyncio.start_server(talk, host, 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    server.url = f"{'https' if context else 'http'}://{shown}:{port}"
    try:
        yield server
    finally:
        listening.close()
        for writer in server.writers:
            writer.transport.abort()
        await asyncio.sleep(0)


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    body = await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b""
    return head + body
