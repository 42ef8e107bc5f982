"""The worker's side: ask for a suspect in a process of its own, and know how that process ended if it did not answer.

Whoever is cancelled meanwhile closes the socket, which ends the process, and with it the connection to the provider.
"""

import asyncio
import signal
import time
from asyncio import StreamReader
from contextlib import suppress
from typing import Final

import structlog

from llm_pool.types import CompletionRequest, CompletionResponse
from orchestrator.isolation.distrust import Distrust
from orchestrator.isolation.suspect import Suspect, SuspectDiedError, choose_wait_seconds
from orchestrator.isolation.warden_process import WardenProcess
from orchestrator.isolation.wire import (
    Answered,
    Beat,
    Ended,
    Question,
    Refused,
    Started,
    Surprised,
    Told,
    dump_question,
    read_told,
)
from shared.clock import SystemClock
from shared.errors import LLMUnavailableError, LLMYardError, RunCrashedError

log = structlog.get_logger()

MOST_AT_ONCE: Final = 8
"""For one worker: about 10 MB each. Further suspects wait, and keep their claims."""
WORTH_TELLING_SECONDS: Final = 1.5
"""A ward that was silent for less before it died was not stuck."""
STARTS: Final = 2
"""The warden may have ended, for want of work, at the moment when it was asked."""
START_SECONDS: Final = 60.0
"""For the warden to import everything, on a busy machine."""
LEAST_SILENCE_SECONDS: Final = 10.0
"""However short the leases: a ward that is merely slow is not to be taken for dead."""

_SIGNAL_NAMES: Final = {number.value: number.name for number in signal.Signals}


class _NeverStartedError(LLMYardError):
    """The warden ended before it forked: nothing was asked, so it may be tried again."""


class Suspects:
    """All suspects of one worker."""

    def __init__(self, *, lease_seconds: float, silent_seconds: float | None = None) -> None:
        self._lease_seconds = lease_seconds
        self._silent_seconds = silent_seconds or max(lease_seconds, LEAST_SILENCE_SECONDS)
        self._distrust = Distrust(SystemClock())
        self._in_hand = 0
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._warden = WardenProcess()

    async def complete(self, suspect: Suspect, request: CompletionRequest) -> CompletionResponse:
        """See `SuspectPool.complete`."""
        self._in_hand += 1
        try:
            return await self._complete(suspect, request)
        except SuspectDiedError as death:
            if not death.wants_memory:  # more processes would want more of it
                self._distrust.note(request.model)
            raise
        finally:
            self._in_hand -= 1

    def distrusts(self, model: str) -> bool:
        """See `SuspectPool.distrusts`."""
        return self._distrust.holds(model) and self._in_hand < MOST_AT_ONCE

    async def aclose(self) -> None:
        """End the warden, if there is one, and with it whatever it keeps."""
        await self._warden.aclose()

    async def _complete(self, suspect: Suspect, request: CompletionRequest) -> CompletionResponse:
        await asyncio.sleep(choose_wait_seconds(suspect.crash_count, self._lease_seconds))
        question = Question(suspect.job_id, self._silent_seconds, request)
        async with self._places:
            log.info("suspect_isolated", crashes=suspect.crash_count)
            for _ in range(STARTS):
                with suppress(_NeverStartedError):
                    return await self._ask(question)
        # Not the job's fault: it waits, and it costs it nothing.
        raise LLMUnavailableError("no process of its own could be started for a suspect")

    async def _ask(self, question: Question) -> CompletionResponse:
        async with self._warden.fork() as (reader, writer):
            writer.write(dump_question(question))
            match await Hearing(reader, self._silent_seconds).hear_out():
                case Answered(response):
                    return response
                case Refused(error):
                    raise error
                case Surprised(description):
                    raise RunCrashedError(f"{description} in a process of its own")
                case Ended() | Started() | Beat():
                    raise AssertionError("heard out only when it has answered")


class Hearing:
    """Listens to one ward."""

    def __init__(self, reader: StreamReader, silent_seconds: float) -> None:
        self._reader = reader
        self._silent_seconds = silent_seconds
        self._heard_at = time.monotonic()
        self._has_started = False

    async def hear_out(self) -> Told:
        """What the ward says in the end.

        Raises:
            SuspectDiedError: it died or went silent before.
            _NeverStartedError: there was none.
        """
        while True:
            match await self._hear():
                case Started(pid):
                    self._has_started = True
                    log.debug("suspect_started", pid=pid)
                case Ended(status):
                    last_words = describe_end(status, time.monotonic() - self._heard_at)
                    raise SuspectDiedError(last_words, wants_memory=status == -signal.SIGKILL)
                case Beat():
                    self._heard_at = time.monotonic()
                case Answered() | Refused() | Surprised() as told:
                    return told
                case None:
                    continue

    async def _hear(self) -> Told | None:
        try:
            return read_told(await (self._read() if self._has_started else self._read_first()))
        except ValueError as fault:
            # As when it dies in the middle of its answer; how it ended is yet to come.
            log.warning("suspect_not_understood", fault=type(fault).__name__)
            return None

    async def _read(self) -> bytes:
        try:
            async with asyncio.timeout(self._silent_seconds):
                line = await _read_line(self._reader)
        except TimeoutError:
            raise SuspectDiedError(f"was silent for {self._silent_seconds:g} s and was killed") from None
        if not line:
            raise SuspectDiedError("ended, and so did whoever could have told how")
        return line

    async def _read_first(self) -> bytes:
        line = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                line = await _read_line(self._reader)
        if not line:
            raise _NeverStartedError("nobody was there to fork")
        return line


async def _read_line(reader: StreamReader) -> bytes:
    """Empty at the end, however it came."""
    try:
        return await reader.readline()
    except ConnectionError:
        return b""


def describe_end(status: int, silent_seconds: float) -> str:
    """A ward's last words; what it was doing stands in the log, if it could still say so."""
    killer = _SIGNAL_NAMES.get(-status, f"signal {-status}")
    end = f"was ended by {killer}" if status < 0 else f"exited with status {status}"
    return end if silent_seconds < WORTH_TELLING_SECONDS else f"{end} after {silent_seconds:.0f} s of silence"
