"""What a store of permits is asked, and what it answers.

A permit takes from several cells at once, or from none: requests and tokens of the last minute and of the last day,
calls in flight, and what the provider itself said is left.

Minutes and days slide: in no window of that length, wherever it begins, does more pass than the limit. So a fresh
minute can be used at once, as providers allow it, with no burst on top; a bucket that refills (GCRA) would either let
through up to twice the limit, or make callers wait beside an unused quota.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from llm_pool.catalog import Limits
from shared.attempts import QuotaReading

Cell = Literal["requests_per_minute", "tokens_per_minute", "requests_per_day", "tokens_per_day", "in_flight"]
"""The fields of `Limits`."""
Told = Literal["told_requests", "told_tokens", "told_input_tokens", "told_output_tokens"]
"""What the provider said of its own counts."""

LONGEST_PAUSE_SECONDS = 2.0
"""Who waits asks again after so long at most, which also keeps up its claim."""
CLAIM_SECONDS = 5.0
"""So long is room kept for the one who has waited longest, counted from when it last asked."""
UNKNOWN_WAIT_SECONDS = 1.0
"""What is said where a call in flight might end at any moment."""


@dataclass(frozen=True, slots=True)
class Period:
    """The length of a sliding window, and how finely it is counted."""

    seconds: float
    parts: int = 240
    """Memory and work grow with them, not with the calls. What is counted in a part leaves when all of it has left."""
    transit_seconds: float = 1.5
    """A permit counts for so much longer, as the provider counts the request when it arrives: one may travel slowly
    and a later one fast. With the length of a part, this is what is lost of the limit: up to 1.75 s of 61.75."""

    @property
    def part_seconds(self) -> float:
        return self.seconds / self.parts

    @property
    def span_seconds(self) -> float:
        return self.seconds + self.transit_seconds


@dataclass(frozen=True, slots=True)
class Periods:
    """Shorter in tests that cannot move the clock of a real server."""

    minute: Period = Period(60.0)
    day: Period = Period(86_400.0)


PERIODS = Periods()


@dataclass(frozen=True, slots=True)
class Need:
    """What one try may take from its deployment, at most."""

    id: str
    """Of the try, unique in the fleet: asking twice with it takes once."""
    deployment: str
    limits: Limits
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def find_too_small(self) -> Cell | None:
        """The limit that this could not fit into even if nobody else took anything."""
        limits, tokens = self.limits, self.tokens
        if limits.tokens_per_minute is not None and tokens > limits.tokens_per_minute:
            return "tokens_per_minute"
        if limits.tokens_per_day is not None and tokens > limits.tokens_per_day:
            return "tokens_per_day"
        return None


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one try. It is to be settled or released, once."""

    need: Need
    reserved_at: float
    """Seconds by the store's own clock: where its tokens are counted, also when they are corrected."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """There is no permit now, and nothing was taken."""

    cell: Cell | Told
    """What there is least of."""
    wait_seconds: float
    """Until there may be room, as far as is known."""
    ask_again_seconds: float
    """When to ask next: sooner, where others may give something back, or a claim has to be kept up."""
    may_come_sooner: bool = False
    """A permit that is settled or released may be enough."""


@dataclass(frozen=True, slots=True)
class CellReading:
    """How much of one limit of ours is used."""

    cell: Cell
    limit: int
    used: int
    """Permits that are open count with all they may take."""

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)


class PermitStore(Protocol):
    """Counts for one process or for a fleet. Every operation is atomic."""

    def counts(self, deployment: str, limits: Limits) -> bool:
        """False: there is no limit, neither of ours nor that its provider told of, so calls need no permit."""

    async def reserve(self, need: Need, waited_seconds: float | None = None) -> Permit | Refusal:
        """Take from all cells or from none.

        `waited_seconds` is None for who asks only once. Of those who wait, room is kept for the one who has waited
        longest, so that a large request is not starved by small ones.
        """

    async def withdraw(self, need: Need) -> None:
        """Who waited for this gave up: no room is kept for it any more."""

    async def settle(self, permit: Permit, used_tokens: int | None, readings: tuple[QuotaReading, ...] = ()) -> None:
        """The try was answered: correct its tokens, up too, where they were counted. None leaves them as reserved."""

    async def release(self, permit: Permit, *, was_sent: bool, readings: tuple[QuotaReading, ...] = ()) -> None:
        """The try failed or was cancelled: give back its tokens, and its request where the provider never saw it."""

    async def lower(self, deployment: str, readings: tuple[QuotaReading, ...]) -> None:
        """What the provider said is left bounds what is given out until its reset, and never raises anything."""

    async def read(self, deployment: str, limits: Limits) -> tuple[CellReading, ...]:
        """One for each limit."""

    async def aclose(self) -> None:
        """Stop what runs beside the calls."""
