"""What the sellers of models ask in public, as the library `genai-prices` tells it, offline.

The library takes 0.3 s and 30 MB to load: `prices` loads this file when a price is first looked up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache

from genai_prices import data_snapshot
from genai_prices.types import ConditionalPrice, ModelPrice, TieredPrices

from llm_pool.catalog import Price
from llm_pool.money.tariff import Tariff, Tier

_KEPT = 1024
"""Models whose price is remembered; a pool has a few dozen."""


@dataclass(frozen=True, slots=True)
class _Listing:
    """A tariff, and when it holds."""

    holds_at: Callable[[datetime], bool] | None
    """None: whenever no other does."""
    tariff: Tariff | None


class PublicPrices:
    """Looks a model up once and remembers what was found, or that nothing was."""

    def __init__(self) -> None:
        self._find_listings = lru_cache(_KEPT)(_find_listings)

    def find(self, seller: str | None, base_url: str | None, model: str, at: datetime) -> Tariff | None:
        """`seller` as the library names it; without one, whoever serves at `base_url`."""
        for listing in self._find_listings(seller, base_url, model):
            if listing.holds_at is None or listing.holds_at(at):
                return listing.tariff
        return None


def _find_listings(seller: str | None, base_url: str | None, model: str) -> Sequence[_Listing]:
    """The first that holds is the one."""
    try:
        _, found = data_snapshot.get_snapshot().find_provider_model(model, None, seller, base_url)
    except LookupError:
        return ()
    if isinstance(found.prices, ModelPrice):
        return (_Listing(None, _read_tariff(found.prices)),)
    # As the library chooses: later ones first, and the first of all where none holds.
    otherwise = _Listing(None, _read_tariff(found.prices[0].prices))
    return (*(_read_listing(conditional) for conditional in reversed(found.prices)), otherwise)


def _read_listing(conditional: ConditionalPrice) -> _Listing:
    constraint = conditional.constraint
    return _Listing(None if constraint is None else constraint.active, _read_tariff(conditional.prices))


def _read_tariff(prices: ModelPrice) -> Tariff | None:
    """None where no price of a prompt is listed: nobody says that it is free."""
    if prices.input_mtok is None:
        return None
    rates = (prices.input_mtok, prices.output_mtok, prices.cache_read_mtok, prices.cache_write_mtok)
    starts = {tier.start for rate in rates if isinstance(rate, TieredPrices) for tier in rate.tiers}
    thousand_requests = _choose_rate(prices.requests_kcount, 0) or Decimal(0)
    return Tariff(
        tuple(Tier(start, _read_price(rates, start + 1)) for start in (-1, *sorted(starts))),
        thousand_requests / 1000,
        prices.output_mtok is not None,
    )


def _read_price(rates: Sequence[Decimal | TieredPrices | None], prompt_tokens: int) -> Price:
    prompt, completion, cached, written = (_choose_rate(rate, prompt_tokens) for rate in rates)
    return Price(prompt or Decimal(0), completion or Decimal(0), cached, written)


def _choose_rate(rate: Decimal | TieredPrices | None, prompt_tokens: int) -> Decimal | None:
    if not isinstance(rate, TieredPrices):
        return rate
    return next((tier.price for tier in reversed(rate.tiers) if prompt_tokens > tier.start), rate.base)
