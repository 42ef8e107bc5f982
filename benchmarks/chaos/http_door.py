"""Hands messages in over HTTP as a careful caller does: what was not acknowledged is sent again under the same id."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Self

import aiohttp

from benchmarks.chaos.yard import Yard, build_message

IN_FLIGHT: Final = 20
ANSWER_SECONDS: Final = 30.0
AGAIN_SECONDS: Final = 1.0
SLOWEST_A_SECOND: Final = 20
"""Messages that are taken at least while nothing is broken."""
ACKNOWLEDGED: Final = (200, 202)
"""200 is 202 for a message that was sent before and is answered by now."""
UNANSWERED: Final = 0
"""Stands for a status where the connection was refused, was cut, or stayed silent."""
REFUSED: Final = (503, UNANSWERED)
"""How the API may say that it took nothing."""

Answers = Counter[int]
"""HTTP statuses, and how often each was the answer."""


class HttpDoor:
    """Records every try and every acknowledgement; one call of `submit` at a time."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._url = f"http://127.0.0.1:{yard.api_port}/v1/jobs"
        self._thread = ThreadPoolExecutor(1, "http-door")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def submit(self, message_ids: Sequence[str]) -> Answers:
        """As fast as they are taken, each until it is acknowledged."""
        return self.submit_over(0.0, message_ids).result()

    def submit_over(self, seconds: float, message_ids: Sequence[str]) -> Future[Answers]:
        """In the background, spread evenly over this time; each until it is acknowledged, or the time is long over."""
        return self._thread.submit(lambda: asyncio.run(self._submit_all(message_ids, seconds)))

    async def _submit_all(self, message_ids: Sequence[str], seconds: float) -> Answers:
        answers: Answers = Counter()
        room = asyncio.Semaphore(IN_FLIGHT)
        give_up_at = time.monotonic() + seconds + 4 * ANSWER_SECONDS + len(message_ids) / SLOWEST_A_SECOND
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:

            async def submit(message_id: str) -> None:
                async with room:
                    await self._insist(session, message_id, answers, give_up_at)

            for message_id in message_ids:
                group.create_task(submit(message_id))
                await asyncio.sleep(seconds / len(message_ids))
        return answers

    async def _insist(
        self, session: aiohttp.ClientSession, message_id: str, answers: Answers, give_up_at: float
    ) -> None:
        while time.monotonic() < give_up_at:
            if await self._post(session, message_id, answers):
                return
            await asyncio.sleep(AGAIN_SECONDS)

    async def _post(self, session: aiohttp.ClientSession, message_id: str, answers: Answers) -> bool:
        number = self._yard.recorder.attempt(message_id)
        status = UNANSWERED
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with session.post(self._url, json=build_message(message_id)) as response:
                status = response.status
        answers[status] += 1
        if status in ACKNOWLEDGED:
            self._yard.recorder.acknowledge(number)
        return status in ACKNOWLEDGED


def describe_answers(answers: Answers) -> str:
    acknowledged = sum(answers[status] for status in ACKNOWLEDGED)
    return f"{acknowledged} acknowledged, {answers[503]} refused with 503, {answers[UNANSWERED]} unanswered"


def find_improper(answers: Answers) -> tuple[str, ...]:
    """Answers that tell a caller neither that the message was taken nor that it may be sent again."""
    return tuple(
        f"{count} submissions were answered with {status}"
        for status, count in sorted(answers.items())
        if status not in (*ACKNOWLEDGED, *REFUSED)
    )
