"""Programs that answer a prompt on their output: never through a shell, bounded, and ended with all their children."""

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from llm_pool.providers.failures import shorten
from shared.errors import LLMBrokenAnswerError, LLMConnectionError

GRACE_SECONDS = 0.5
"""From SIGTERM to SIGKILL; whoever cancelled waits for it."""
LARGEST_OUTPUT_BYTES = 16 * 2**20
LARGEST_LINE_BYTES = 4 * 2**20
_BLOCK = 2**16
_TAIL = 2000


@dataclass(frozen=True, slots=True)
class Program:
    """What is to be started."""

    command: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str] = field(repr=False)


class RunningProgram:
    """One that was started, until `open_program` ends it."""

    def __init__(self, process: Process, complaints: "asyncio.Task[bytes]") -> None:
        self._process = process
        self._complaints = complaints

    async def read_all(self) -> bytes:
        """
        Raises:
            LLMBrokenAnswerError: it is more than anyone would say.
        """
        blocks = [block async for block in self._read_blocks()]
        return b"".join(blocks)

    async def read_lines(self) -> AsyncGenerator[bytes, None]:
        """As they come. Raises what `read_all` raises."""
        lines = _get_pipe(self._process.stdout)
        try:
            while line := await lines.readline():
                yield line
        except ValueError as error:
            raise LLMBrokenAnswerError("the program wrote a line without end") from error

    async def has_succeeded(self) -> bool:
        return await self._process.wait() == 0

    async def describe_end(self) -> str:
        """Its exit status, and the end of what it complained of."""
        status = await self._process.wait()
        said = (await self._complaints).decode(errors="replace").strip()
        return shorten(f"exit status {status}: {said}")

    async def _read_blocks(self) -> AsyncIterator[bytes]:
        left = LARGEST_OUTPUT_BYTES
        while block := await _get_pipe(self._process.stdout).read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise LLMBrokenAnswerError("the program wrote without end")
            yield block


@asynccontextmanager
async def open_program(program: Program, prompt: str) -> AsyncIterator[RunningProgram]:
    """Gives it the prompt on its input, which unlike an argument has no bound and is seen by nobody else.

    Raises:
        LLMConnectionError: it cannot be started.
    """
    process = await _start(program)
    complaints = asyncio.create_task(_read_tail(_get_pipe(process.stderr)))
    feeding = asyncio.create_task(_feed(process, prompt.encode()))
    try:
        yield RunningProgram(process, complaints)
    finally:
        feeding.cancel()
        complaints.cancel()
        await _end(process)


async def _start(program: Program) -> Process:
    try:
        return await asyncio.create_subprocess_exec(
            *program.command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd=program.directory,
            env=program.environment,
            limit=LARGEST_LINE_BYTES,
            # Its children end with it, and a Ctrl-C at our terminal is ours to handle.
            start_new_session=True,
        )
    except OSError as error:
        raise LLMConnectionError(f"'{program.command[0]}' cannot be started: {error}") from error


async def _feed(process: Process, prompt: bytes) -> None:
    if process.stdin is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):  # it may answer without reading to the end
        process.stdin.write(prompt)
        await process.stdin.drain()
    process.stdin.close()


async def _read_tail(complaints: asyncio.StreamReader) -> bytes:
    tail = b""
    while block := await complaints.read(_BLOCK):
        tail = (tail + block)[-_TAIL:]
    return tail


async def _end(process: Process) -> None:
    try:
        if process.returncode is None:
            _signal(process, signal.SIGTERM)
            await _wait(process)
    finally:
        # Also to children that outlived it.
        _signal(process, signal.SIGKILL)
    await _wait(process)


async def _wait(process: Process) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(GRACE_SECONDS):
            await process.wait()


def _signal(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a process that has ended
        os.killpg(process.pid, number)


def _get_pipe(pipe: asyncio.StreamReader | None) -> asyncio.StreamReader:
    assert pipe is not None, "opened as a pipe"
    return pipe
