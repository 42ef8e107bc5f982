"""Runs the scripts on one Redis, and stops asking for a while when it does not answer."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from llm_pool.policies import CooldownPolicy
from llm_pool.stores.cooldowns.base import Phase
from shared.clock import Clock

log = structlog.get_logger()

PATIENCE_SECONDS = 0.5
"""A script takes a tenth of a millisecond: who waits longer gets no answer."""
AWAY_SECONDS = 5.0
"""So long nobody asks again after that."""

Operation = Literal["admit", "succeed", "fail", "release", "cool", "read"]
_OPERATIONS: tuple[Operation, ...] = ("admit", "succeed", "fail", "release", "cool", "read")
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Told:
    """What Redis said of one deployment; moments are the clock's."""

    phase: Phase
    failures: int
    ends_at: float
    """Of the cooling or the ramp; never later than it is."""
    asked_at: float
    word: str
    """What this script had to say besides."""
    seconds: float
    """Likewise."""


class Scripts:
    """Knows one server, and whether it is away."""

    def __init__(self, redis: Redis, policy: CooldownPolicy, clock: Clock) -> None:
        self._scripts = _register(redis)
        times = (policy.first_seconds, policy.longest_seconds, policy.ramp_seconds)
        self._policy: tuple[str | int, ...] = (policy.failures, *(count_microseconds(seconds) for seconds in times))
        self._clock = clock
        self._away_until: float | None = None

    @property
    def is_away(self) -> bool:
        return self._away_until is not None and self._clock.monotonic() < self._away_until

    async def run(self, operation: Operation, key: str, *arguments: str | int) -> Told | None:
        """None: there is no answer."""
        asked_at = self._clock.monotonic()
        keys = [f"llmyard:cooldown:{{{key}}}", f"llmyard:cooldown:{{{key}}}:ramp"]
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reply = await self._scripts[operation](keys, [*self._policy, *arguments])
        except (RedisError, OSError, TimeoutError) as error:
            self._note_absence(error)
            return None
        if self._away_until is not None:
            self._away_until = None
            log.info("cooldowns_shared_again")
        phase, failures, left, word, number = reply
        ends_at = asked_at + left / 1e6
        return Told(phase.decode(), failures, ends_at, asked_at, word.decode(), number / 1e6)

    def _note_absence(self, error: Exception) -> None:
        if self._away_until is None:
            log.warning("cooldowns_not_shared", error_type=type(error).__name__)
        self._away_until = self._clock.monotonic() + AWAY_SECONDS


def count_microseconds(seconds: float) -> int:
    return int(seconds * 1e6)


def _register(redis: Redis) -> Mapping[Operation, AsyncScript]:
    state = (_HERE / "state.lua").read_text(encoding="utf-8")
    return {
        name: redis.register_script(state + (_HERE / f"{name}.lua").read_text(encoding="utf-8")) for name in _OPERATIONS
    }
