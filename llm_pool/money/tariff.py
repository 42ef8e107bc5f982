"""What a model's tokens cost. Pure, and quick enough to be asked several times for each call."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from llm_pool.catalog import Price
from shared.attempts import Usage

_MILLION = Decimal(1_000_000)
_NOTHING = Decimal(0)

FREE = Price(_NOTHING, _NOTHING)


@dataclass(frozen=True, slots=True)
class Tier:
    """A price that holds for all tokens of a request as soon as its prompt is long enough."""

    above_prompt_tokens: int
    """Prompts longer than this; -1 is every prompt."""
    price: Price


@dataclass(frozen=True, slots=True)
class Tariff:
    """One model's prices."""

    tiers: Sequence[Tier]
    """From the shortest prompts to the longest; the first holds for every prompt."""
    request_usd: Decimal = _NOTHING
    """For each request, besides its tokens."""
    knows_completions: bool = True
    """False where only reading is priced, as with embeddings: an answer in tokens then costs nobody knows what."""

    @property
    def is_free(self) -> bool:
        return self.request_usd == 0 and all(_is_free(tier.price) for tier in self.tiers)

    def choose(self, prompt_tokens: int) -> Price:
        if len(self.tiers) == 1:
            return self.tiers[0].price
        return next(tier.price for tier in reversed(self.tiers) if prompt_tokens > tier.above_prompt_tokens)

    def cost(self, usage: Usage) -> Decimal | None:
        """USD; None where it cannot be known."""
        if usage.completion_tokens and not self.knows_completions:
            return None
        price = self.choose(usage.prompt_tokens)
        cached = price.cached_prompt_usd_per_million
        written = price.cache_write_usd_per_million
        extra = _NOTHING
        if usage.cached_prompt_tokens and cached is not None:
            extra += usage.cached_prompt_tokens * (cached - price.prompt_usd_per_million)
        if usage.cache_write_tokens and written is not None:
            extra += usage.cache_write_tokens * (written - price.prompt_usd_per_million)
        prompt = usage.prompt_tokens * price.prompt_usd_per_million
        completion = usage.completion_tokens * price.completion_usd_per_million
        return self.request_usd + (prompt + completion + extra) / _MILLION

    def bound(self, prompt_tokens: int, completion_tokens: int) -> Decimal | None:
        """The most that so many tokens can cost: the whole prompt may be written to the provider's cache."""
        price = self.choose(prompt_tokens)
        written = price.cache_write_usd_per_million
        is_dearer = written is not None and written > price.prompt_usd_per_million
        return self.cost(Usage(prompt_tokens, completion_tokens, cache_write_tokens=prompt_tokens if is_dearer else 0))


def build_tariff(price: Price) -> Tariff:
    """One price for prompts of any length."""
    return Tariff((Tier(-1, price),))


def _is_free(price: Price) -> bool:
    return not any(
        (
            price.prompt_usd_per_million,
            price.completion_usd_per_million,
            price.cached_prompt_usd_per_million,
            price.cache_write_usd_per_million,
        )
    )
