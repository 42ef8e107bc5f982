"""Steps on a store of budgets: single ones, and any interleaving of them, played against plain sums."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from hypothesis import strategies as st

from llm_pool.stores.budgets.base import Account, BudgetStore, Full, Hold

LEASE_SECONDS = 60
_DAY = Account("day", Decimal(2), Decimal(2))
_TENANTS = (Account("tenant:a", Decimal(1), Decimal(1)), Account("tenant:b", Decimal(1), Decimal(1)))
_NOTHING = Decimal(0)


@dataclass(frozen=True)
class Step:
    """One thing that happens to the store."""

    kind: Literal["reserve", "settle", "release"]
    usd: Decimal
    """Held; or, of a settling, spent, be it more or less than was held."""
    pick: int
    """Which tenant, or which of the open holds."""


def allow(usd: str, name: str = "day", alert_usd: str | None = None) -> Account:
    limit = Decimal(usd)
    return Account(name, limit, limit if alert_usd is None else Decimal(alert_usd))


async def hold(store: BudgetStore, account: Account, usd: str) -> Hold:
    held = await store.reserve([account], Decimal(usd), LEASE_SECONDS)
    assert isinstance(held, Hold)
    return held


def steps() -> st.SearchStrategy[list[Step]]:
    kinds = st.sampled_from(["reserve", "reserve", "settle", "release"])
    amounts = st.decimals(0, Decimal("0.6"), places=2)
    return st.lists(st.builds(Step, kinds, amounts, st.integers(0, 99)), max_size=40)


async def play(store: BudgetStore, script: list[Step]) -> None:
    """Asserts after each step that the store and the sums agree, and at the end that nothing is held any more."""
    sums = _Sums(store)
    for step in script:
        if step.kind == "reserve":
            await sums.reserve([_DAY, _TENANTS[step.pick % 2]], step.usd)
        elif sums.holds:
            await sums.end(step.pick % len(sums.holds), step.usd if step.kind == "settle" else None)
        await sums.check()
    while sums.holds:
        await sums.end(0, _NOTHING)
    await sums.check()


@dataclass
class _Sums:
    """What ought to stand in the store."""

    store: BudgetStore
    holds: list[Hold] = field(default_factory=list)
    spent: dict[str, Decimal] = field(default_factory=lambda: dict.fromkeys(("day", "tenant:a", "tenant:b"), _NOTHING))
    beyond: dict[str, Decimal] = field(default_factory=lambda: dict.fromkeys(("day", "tenant:a", "tenant:b"), _NOTHING))
    """What calls cost beyond their holds: so far, and no farther, may a limit be passed."""

    def used(self, account: Account) -> Decimal:
        return self.spent[account.name] + self.held(account)

    def held(self, account: Account) -> Decimal:
        return sum((hold.usd for hold in self.holds if account in hold.accounts), _NOTHING)

    async def reserve(self, accounts: list[Account], usd: Decimal) -> None:
        fits = all(self.used(account) + usd <= account.limit_usd for account in accounts)
        outcome = await self.store.reserve(accounts, usd, LEASE_SECONDS)
        assert isinstance(outcome, Full) is not fits
        if isinstance(outcome, Hold):
            self.holds.append(outcome)

    async def end(self, index: int, spent_usd: Decimal | None) -> None:
        hold = self.holds.pop(index)
        if spent_usd is None:
            await self.store.release(hold)
            return
        await self.store.settle(hold, spent_usd)
        for account in hold.accounts:
            self.spent[account.name] += spent_usd
            self.beyond[account.name] += max(_NOTHING, spent_usd - hold.usd)

    async def check(self) -> None:
        for account in (_DAY, *_TENANTS):
            seen = await self.store.read(account.name)
            assert (seen.spent_usd, seen.held_usd) == (self.spent[account.name], self.held(account))
            assert seen.spent_usd + seen.held_usd <= account.limit_usd + self.beyond[account.name]
