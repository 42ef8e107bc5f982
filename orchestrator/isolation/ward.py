"""The life of one suspect's process: open a pool, ask it once, say what came of it, and beat meanwhile."""

import asyncio
import faulthandler
import socket
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from llm_pool.call import CompletionPool
from llm_pool.types import CompletionRequest
from orchestrator.isolation.wire import (
    LARGEST_LINE_BYTES,
    dump_answer,
    dump_beat,
    dump_refusal,
    dump_surprise,
    read_question,
)
from shared.errors import ConfigurationError, InputError, LLMError, LLMUnavailableError

log = structlog.get_logger()

BEAT_SECONDS: Final = 0.5
"""Silence is measured in many of these."""
EVIDENCE_AT: Final = 0.8
"""Part of the bearable silence after which a blocked ward prints where it is stuck, and ends."""
_OOM_SCORE = Path("/proc/self/oom_score_adj")

OpenPool = Callable[[], Awaitable[CompletionPool]]


def live(open_pool: OpenPool, connection: socket.socket) -> None:
    """From the fork to the end; returns when the worker has been told, or does not listen any more."""
    volunteer_to_be_killed()
    asyncio.run(_live(open_pool, connection))


def volunteer_to_be_killed() -> None:
    """When memory runs out, the kernel is to take this process and not the worker. Linux only."""
    with suppress(OSError):
        _OOM_SCORE.write_text("1000")


async def _live(open_pool: OpenPool, connection: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=connection, limit=LARGEST_LINE_BYTES)
    line = await reader.readline()
    if not line:
        return
    question = read_question(line)
    structlog.contextvars.bind_contextvars(job_id=str(question.job_id))
    beating = asyncio.create_task(_beat(writer, question.silent_seconds))
    await _unless_left(reader, _answer(open_pool, question.request, partial(_say, writer)))
    beating.cancel()


async def _unless_left(reader: StreamReader, answering: Awaitable[None]) -> None:
    """To the end, or until the worker hangs up; then the provider is hung up on."""
    answered, left = asyncio.ensure_future(answering), asyncio.ensure_future(reader.read())
    await asyncio.wait({answered, left}, return_when=asyncio.FIRST_COMPLETED)
    left.cancel()
    answered.cancel()
    with suppress(asyncio.CancelledError):
        await answered


async def _answer(open_pool: OpenPool, request: CompletionRequest, say: Callable[[bytes], Awaitable[None]]) -> None:
    try:
        pool = await open_pool()
    except ConfigurationError as error:
        # The worker had one when it started: what is out of reach now is an outage, which costs the job nothing.
        await say(dump_refusal(LLMUnavailableError(str(error))))
        return
    try:
        await say(await _ask(pool, request))
    finally:
        await pool.aclose()


async def _ask(pool: CompletionPool, request: CompletionRequest) -> bytes:
    try:
        return dump_answer(await pool.complete(request))
    except (InputError, LLMError) as error:
        return dump_refusal(error)
    except Exception as surprise:
        log.exception("run_crashed")
        return dump_surprise(surprise)


async def _beat(writer: StreamWriter, silent_seconds: float) -> None:
    """For as long as the loop turns. Once it does not, a thread of C's, which needs no lock of Python's, ends all."""
    try:
        while True:
            faulthandler.dump_traceback_later(silent_seconds * EVIDENCE_AT, exit=True, file=sys.stderr)
            await _say(writer, dump_beat())
            await asyncio.sleep(BEAT_SECONDS)
    finally:
        faulthandler.cancel_dump_traceback_later()


async def _say(writer: StreamWriter, line: bytes) -> None:
    with suppress(ConnectionError):  # nobody waits any more, which the reading side sees too
        writer.write(line)
        await writer.drain()
