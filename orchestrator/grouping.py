"""Lets what many coroutines ask for at about the same time be done as one: one transaction, one round trip.

Alone, an item is done at once. Where they come often they wait for one another, but never for longer than
`longest_seconds`, nor in larger groups than `most`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")

LONGEST_SECONDS: Final = 0.02
MOST: Final = 100
OFTEN_A_SECOND: Final = 250.0
"""Below this rate a group would be of one or two, and waiting for it only a delay."""

Do = Callable[[Sequence[ItemT]], Awaitable[Sequence[AnswerT | Exception]]]


class Grouping(Generic[ItemT, AnswerT]):
    """Collects items and has each group done by one call, which answers for each of them, in their order.

    Any number of groups may be under way at once. An answer that is an exception is raised to whoever put the item;
    what the call itself raises, everybody in the group gets.
    """

    def __init__(self, do: Do[ItemT, AnswerT], *, longest_seconds: float = LONGEST_SECONDS, most: int = MOST) -> None:
        self._do = do
        self._longest_seconds = longest_seconds
        self._most = most
        self._waiting: list[tuple[ItemT, asyncio.Future[AnswerT]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._rate = Rate(window_seconds=0.1)
        self._under_way: set[asyncio.Task[None]] = set()

    async def put(self, item: ItemT) -> AnswerT:
        """Have the item done with those that come at about the same time; returns its own answer."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[AnswerT] = loop.create_future()
        self._waiting.append((item, answer))
        now = loop.time()
        self._rate.note(now)
        if len(self._waiting) >= self._most:
            self._begin()
        elif self._timer is None:
            # At once is after everybody who can go on now: those that were woken together come together.
            is_often = self._rate.read(now) > OFTEN_A_SECOND
            self._timer = loop.call_later(self._longest_seconds if is_often else 0.0, self._begin)
        return await answer

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        group, self._waiting = self._waiting, []
        if group:
            task = asyncio.get_running_loop().create_task(self._do_all(group))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _do_all(self, group: Sequence[tuple[ItemT, asyncio.Future[AnswerT]]]) -> None:
        try:
            answers = await self._do([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - each of the group raises it where it waits
            answers = [error] * len(group)
        for (_, answer), value in zip(group, answers, strict=True):
            _give(answer, value)


def _give(answer: asyncio.Future[AnswerT], value: AnswerT | BaseException) -> None:
    """Unless whoever waited was cancelled meanwhile."""
    if answer.done():
        return
    if isinstance(value, BaseException):
        answer.set_exception(value)
    else:
        answer.set_result(value)


class Rate:
    """How often something happens, as seen over the last moments. These are of a monotonic clock."""

    def __init__(self, window_seconds: float) -> None:
        """It is counted anew after `window_seconds`."""
        self._window_seconds = window_seconds
        self._since = 0.0
        self._count = 0
        self._before = 0.0

    def note(self, now: float) -> None:
        """It happens."""
        self._count += 1
        if now - self._since >= self._window_seconds:
            self._before = self._count / (now - self._since)
            self._since, self._count = now, 0

    def read(self, now: float) -> float:
        """Times a second."""
        passed = now - self._since
        # What has not happened for a while does not happen often, however often it was before.
        return self._before if passed < self._window_seconds else self._count / passed
