"""What every store of cooldowns does, in one process or for a fleet.

    open ──failures in a row, or a named wait──► cooling ──time──► half-open ──probe answered──► ramping ──time──► open
                                                    ▲                  │                            │
                                                    └───failed: twice as long ◄─────────────────────┘

Cooling never shortens: of two ends the later holds. Half-open, one call at a time goes through in the whole fleet.
Ramping, the number of calls at once doubles from 1 until everybody may go.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, Protocol

from llm_pool.catalog import Deployment

Phase = Literal["open", "cooling", "half_open", "ramping"]
Way = Literal["open", "probe", "ramp", "refused"]

RAMP_DOUBLINGS = 6
"""From 1 call at once to 64; those who then still stand in line are let go all together."""
LONGEST_NAMED_SECONDS = 86_400.0
"""A provider that names a longer wait is asked once a day all the same: it may have meant something else."""


@dataclass(frozen=True, slots=True)
class Admission:
    """How one try may go on, to be handed back with what became of it."""

    key: str
    way: Way
    token: str = ""
    """Of a probe and in a ramp: which place it holds."""
    retry_after_seconds: float = 0.0
    """Of a refusal: when it is worth another try."""


@dataclass(frozen=True, slots=True)
class CooldownState:
    """How a deployment stands."""

    phase: Phase
    failures: int
    """In a row, lately."""
    left_seconds: float
    """Of the cooling, or of the ramp; else 0."""


@dataclass(frozen=True, slots=True)
class Cooling:
    """What a failure led to, or met with."""

    left_seconds: float
    is_new: bool
    """This failure began it."""


class CooldownStore(Protocol):
    """Keys are `build_key`'s. A place that is never handed back is free again when its lease is over."""

    async def admit(self, key: str, lease_seconds: float) -> Admission:
        """May this try go on, and as what?"""

    async def succeed(self, admission: Admission) -> None:
        """It was answered: failures are no longer in a row; a probe opens the ramp."""

    async def fail(self, admission: Admission, cool_seconds: float | None) -> Cooling | None:
        """It failed; `cool_seconds` where one failure suffices. None: it is not left alone yet."""

    async def release(self, admission: Admission) -> None:
        """It ended without a word about the deployment."""

    async def cool(self, key: str, seconds: float) -> None:
        """Leave it alone for so long at least."""

    async def read(self, key: str) -> CooldownState:
        """For people and tables; nothing is taken."""

    async def aclose(self) -> None:
        """Verdicts and places that are on their way arrive first."""


def build_key(deployment: Deployment) -> str:
    """Not the name alone: whoever mends the key, the model or the address is not held up by what went before."""
    account = (deployment.provider, deployment.model, deployment.base_url, deployment.api_key)
    return f"{deployment.name}:{sha256(repr(account).encode()).hexdigest()[:12]}"
