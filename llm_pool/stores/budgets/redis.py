"""Budgets of a whole fleet, in Redis or Valkey: one script for each step, by the server's own clock."""

from collections import deque
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import TypeVar, cast
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError

from llm_pool.stores.budgets.base import FOR_EVER, Account, AlertDue, Full, Hold, Spending, find_reset
from llm_pool.stores.finishing import Finishing
from shared.errors import LLMStoreUnavailableError

# One hash tag for all: a call's accounts are reckoned with in one script, so they must live in one slot of a cluster.
PREFIX = "llmyard:{budget}:"
_LEASES = f"{PREFIX}leases"
_HOLDS = f"{PREFIX}holds"

DAYS_KEPT_SECONDS = 3 * 86_400
"""Longer than any call; the record of what was spent is the job ledger. A purse is kept 30 times as long."""
MOST_UNSURE = 1_000
"""So many holds that no answer told of are given back when the server answers again; the others end by their lease."""
SETTLED_KEPT_MS = 60_000
"""A settling is sent again for half as long at most."""

_UNIT = Decimal("1e-12")
"""A pico-USD: no seller's price of one token is finer."""
_MOST_UNITS = 4 * 10**18
"""Four million USD, so that two of them still fit 64 bits."""
_DAY_SECONDS = 86_400

_ResultT = TypeVar("_ResultT")


class RedisBudgetStore:
    """Every step may be sent twice without harm, as a client does whose connection died."""

    may_wait = True

    def __init__(self, redis: Redis, *, ahead_seconds: int = 0) -> None:
        """`redis` is closed by who opened it. `ahead_seconds` moves the server's clock, to see a day end."""
        self._ahead = str(ahead_seconds)
        self._reserve = redis.register_script(_read_script("reserve"))
        self._settle = redis.register_script(_read_script("settle"))
        self._read = redis.register_script(_read_script("read"))
        self._finishing = Finishing()
        self._unsure: deque[Hold] = deque(maxlen=MOST_UNSURE)

    async def reserve(self, accounts: Sequence[Account], usd: Decimal, lease_seconds: float) -> Hold | Full:
        """See `BudgetStore`."""
        asking = self._ask_for_hold(accounts, usd, lease_seconds)
        return await self._finishing.wait_for(asking, undo=self._give_back)

    async def settle(self, hold: Hold, spent_usd: Decimal) -> Sequence[AlertDue]:
        """See `BudgetStore`."""
        keys = [
            _LEASES,
            _HOLDS,
            *(f"{PREFIX}{account.name}:{account.choose_day(hold.day)}" for account in hold.accounts),
        ]
        spent = _count_units(spent_usd, ROUND_HALF_EVEN)
        alerts = [_count_units(account.alert_usd, ROUND_CEILING) for account in hold.accounts]
        args: list[str | int] = [self._ahead, hold.id, spent, SETTLED_KEPT_MS, DAYS_KEPT_SECONDS, *alerts]
        due = await _reach(cast(Awaitable[list[int | bytes]], self._settle(keys, args)))
        return tuple(
            AlertDue(hold.accounts[int(place) - 1], _read_units(total), find_reset(hold.day))
            for place, total in zip(due[::2], due[1::2], strict=True)
        )

    async def release(self, hold: Hold) -> None:
        """See `BudgetStore`."""
        await self.settle(hold, Decimal(0))

    async def read(self, account_name: str, *, resets: bool = True) -> Spending:
        """See `BudgetStore`."""
        keys = [_LEASES, _HOLDS, _name_key(account_name, resets=resets)]
        used, spent, seconds = await _reach(cast(Awaitable[tuple[bytes, bytes, int]], self._read(keys, [self._ahead])))
        spent_usd = _read_units(spent)
        return Spending(spent_usd, _read_units(used) - spent_usd, find_reset(seconds // _DAY_SECONDS))

    async def aclose(self) -> None:
        """See `BudgetStore`."""
        await self._give_back_unsure()
        await self._finishing.aclose()

    async def _ask_for_hold(self, accounts: Sequence[Account], usd: Decimal, lease_seconds: float) -> Hold | Full:
        hold_id = uuid4().hex
        keys = [_LEASES, _HOLDS, *(_name_key(account.name, resets=account.resets) for account in accounts)]
        limits = [_count_units(account.limit_usd, ROUND_FLOOR) for account in accounts]
        amount = _count_units(usd, ROUND_CEILING)
        lease_ms = int(lease_seconds * 1000)
        args: list[str | int] = [self._ahead, hold_id, amount, lease_ms, DAYS_KEPT_SECONDS, *limits]
        try:
            full, seconds = await _reach(cast(Awaitable[tuple[int, int]], self._reserve(keys, args)))
        except LLMStoreUnavailableError:
            self._unsure.append(Hold(hold_id, (), usd, 0))
            raise
        if self._unsure:
            self._finishing.start(self._give_back_unsure())
        day = seconds // _DAY_SECONDS
        if full:
            return Full(accounts[full - 1], find_reset(day), (day + 1) * _DAY_SECONDS - seconds)
        return Hold(hold_id, tuple(accounts), usd, day)

    async def _give_back(self, outcome: Hold | Full) -> None:
        if isinstance(outcome, Hold):
            with suppress(LLMStoreUnavailableError):
                await self.release(outcome)

    async def _give_back_unsure(self) -> None:
        """Asked for when no answer came, and perhaps held all the same: nobody has them."""
        unsure = list(self._unsure)
        self._unsure.clear()
        for place, hold in enumerate(unsure):
            try:
                await self.release(hold)
            except LLMStoreUnavailableError:
                self._unsure.extend(unsure[place:])
                return


def _name_key(account_name: str, *, resets: bool) -> str:
    """The script puts the day behind a colon."""
    return f"{PREFIX}{account_name}:" if resets else f"{PREFIX}{account_name}:{FOR_EVER}"


def _read_script(name: str) -> str:
    here = Path(__file__)
    return here.with_name("prelude.lua").read_text() + here.with_name(f"{name}.lua").read_text()


async def _reach(reply: Awaitable[_ResultT]) -> _ResultT:
    try:
        return await reply
    except (RedisError, OSError) as error:
        raise LLMStoreUnavailableError(f"budgets cannot be kept: {type(error).__name__}") from error


def _count_units(usd: Decimal, rounding: str) -> str:
    units = int((usd / _UNIT).to_integral_value(rounding))
    return str(min(units, _MOST_UNITS))


def _read_units(units: bytes | int) -> Decimal:
    return int(units) * _UNIT
