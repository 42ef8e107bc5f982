"""Cooldowns of a fleet, kept in Redis; each step is one script, and the same as in `memory.py`.

What a process last heard of a deployment is asked for anew by the first call after 20 ms, which does not wait for it:
one that is well costs few round trips, and nobody time. What is older than 100 ms is waited for. For that long a
process may ask a deployment that another has just found to fail, and a cooldown shorter than that may pass unheard; and
an answer here may not end a row of failures there. Who knows that a deployment is not open asks Redis before each call:
probe and ramp are exact.
"""

import asyncio
import itertools
import secrets
from functools import partial

from redis.asyncio import Redis

from llm_pool.policies import CooldownPolicy
from llm_pool.stores.cooldowns.base import Admission, CooldownState, Cooling
from llm_pool.stores.cooldowns.memory import MemoryCooldowns
from llm_pool.stores.cooldowns.redis_scripts import Operation, Scripts, Told, count_microseconds
from llm_pool.stores.finishing import Finishing, Undo
from shared.clock import Clock

RENEWED_AFTER_SECONDS = 0.02
"""Where calls come often, nothing is much older. At a whole second a storm of refusals met them by the dozen."""
VIEW_SECONDS = 0.1
"""How long a process trusts what it last heard: a busy event loop takes tens of milliseconds for a round trip."""


class RedisCooldowns:
    """While Redis cannot be reached, each process goes by what it last heard and then sees itself."""

    def __init__(
        self, redis: Redis, policy: CooldownPolicy, clock: Clock, *, view_seconds: float = VIEW_SECONDS
    ) -> None:
        """`redis` stays the caller's to close."""
        self._policy = policy
        self._clock = clock
        self._view_seconds = view_seconds
        self._scripts = Scripts(redis, policy, clock)
        self._heard: dict[str, Told] = {}
        self._looking: dict[str, asyncio.Task[Told | None]] = {}
        self._finishing = Finishing()
        self._open: dict[str, Admission] = {}
        self._alone: MemoryCooldowns | None = None
        self._process = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    async def admit(self, key: str, lease_seconds: float) -> Admission:
        """See `CooldownStore.admit`."""
        told = self._recall(key) or await self._look(key)
        if told is None:
            return await (await self._go_alone()).admit(key, lease_seconds)
        if told.phase == "open":
            return self._admit_freely(key)
        now = self._clock.monotonic()
        if told.phase == "cooling" and now < told.ends_at:
            return Admission(key, "refused", retry_after_seconds=told.ends_at - now)
        return await self._ask_for_place(key, lease_seconds)

    async def succeed(self, admission: Admission) -> None:
        """See `CooldownStore.succeed`."""
        told = self._heard.get(admission.key)
        is_news = told is None or told.failures > 0 or admission.way != "open"
        if is_news or self._alone is not None:
            done = await self._run("succeed", admission.key, admission.token)
            if done is None:
                await (await self._go_alone()).succeed(admission)

    async def fail(self, admission: Admission, cool_seconds: float | None) -> Cooling | None:
        """See `CooldownStore.fail`."""
        named = -1 if cool_seconds is None else count_microseconds(cool_seconds)
        told = await self._run("fail", admission.key, admission.token, named, self._make_name())
        if told is None:
            return await (await self._go_alone()).fail(admission, cool_seconds)
        if told.phase != "cooling":
            return None
        return Cooling(told.ends_at - told.asked_at, is_new=told.word == "began")

    async def release(self, admission: Admission) -> None:
        """See `CooldownStore.release`."""
        if admission.way != "open" and await self._run("release", admission.key, admission.token) is None:
            await (await self._go_alone()).release(admission)

    async def cool(self, key: str, seconds: float) -> None:
        """See `CooldownStore.cool`."""
        if await self._run("cool", key, count_microseconds(seconds)) is None:
            await (await self._go_alone()).cool(key, seconds)

    async def read(self, key: str) -> CooldownState:
        """See `CooldownStore.read`."""
        told = await self._run("read", key)
        if told is None:
            return await (await self._go_alone()).read(key)
        return CooldownState(told.phase, told.failures, max(0.0, told.ends_at - told.asked_at))

    async def aclose(self) -> None:
        """See `CooldownStore.aclose`."""
        await self._finishing.aclose()

    async def _ask_for_place(self, key: str, lease_seconds: float) -> Admission:
        token = self._make_name()
        # Nobody else would hand back a place whose taker was cancelled: until its lease ends it would keep others out.
        undo = partial(self._take_back, key, token)
        told = await self._run("admit", key, token, count_microseconds(lease_seconds), undo=undo)
        if told is None:
            return await (await self._go_alone()).admit(key, lease_seconds)
        return _build_admission(key, told, token)

    def _recall(self, key: str) -> Told | None:
        """What was heard lately; while it still holds, it is heard anew for those who come next."""
        told = self._heard.get(key)
        if told is None or self._scripts.is_away:
            return None
        age = self._clock.monotonic() - told.asked_at
        if age >= self._view_seconds:
            return None
        if age >= RENEWED_AFTER_SECONDS and told.phase == "open":
            self._begin_look(key)
        return told

    async def _look(self, key: str) -> Told | None:
        return None if self._scripts.is_away else await asyncio.shield(self._begin_look(key))

    def _begin_look(self, key: str) -> asyncio.Task[Told | None]:
        """Of many who ask at once one looks, and all share what it hears."""
        looking = self._looking.get(key)
        if looking is None:
            looking = self._looking[key] = self._finishing.start(self._run_and_hear("read", key))
            looking.add_done_callback(lambda _: self._looking.pop(key))
        return looking

    async def _take_back(self, key: str, token: str, _: Told | None) -> None:
        await self._run("release", key, token)

    async def _run(
        self, operation: Operation, key: str, *arguments: str | int, undo: Undo[Told | None] | None = None
    ) -> Told | None:
        """None: Redis is away. Goes on to its end even if its caller is cancelled: a verdict must not be lost."""
        if self._scripts.is_away:
            return None
        return await self._finishing.wait_for(self._run_and_hear(operation, key, *arguments), undo)

    async def _run_and_hear(self, operation: Operation, key: str, *arguments: str | int) -> Told | None:
        told = await self._scripts.run(operation, key, *arguments)
        if told is None:
            return None
        self._alone = None
        latest = self._heard.get(key)
        if latest is None or latest.asked_at <= told.asked_at:
            self._heard[key] = told
        return told

    async def _go_alone(self) -> MemoryCooldowns:
        """Who was cooling, so much is known, still is."""
        if self._alone is None:
            self._alone = MemoryCooldowns(self._policy, self._clock)
            now = self._clock.monotonic()
            for key, told in self._heard.items():
                if told.phase == "cooling" and told.ends_at > now:
                    await self._alone.cool(key, told.ends_at - now)
        return self._alone

    def _admit_freely(self, key: str) -> Admission:
        if key not in self._open:
            self._open[key] = Admission(key, "open")
        return self._open[key]

    def _make_name(self) -> str:
        """Of a place or of a failure, so that a command that arrives twice counts once."""
        return f"{self._process}-{next(self._numbers)}"


def _build_admission(key: str, told: Told, token: str) -> Admission:
    match told.word:
        case "probe":
            return Admission(key, "probe", token)
        case "ramp":
            return Admission(key, "ramp", token)
        case "refused":
            return Admission(key, "refused", retry_after_seconds=told.seconds)
        case _:
            return Admission(key, "open")
