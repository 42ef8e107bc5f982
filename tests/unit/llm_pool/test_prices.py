"""What a call costs: the catalogue first, then the public prices, and never nothing for what nobody knows."""

import subprocess
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal

import genai_prices
import pytest
from genai_prices import data_snapshot
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from llm_pool.catalog import Deployment, Price
from llm_pool.money.prices import Prices
from llm_pool.money.public_prices import PublicPrices
from shared.attempts import Usage
from tests.fakes.moving_clock import MovingClock

MILLION = 1_000_000
SOLD = [
    (provider.id, model)
    for provider in data_snapshot.get_snapshot().providers
    if provider.id in {"anthropic", "openai", "google", "groq", "together", "openrouter"}
    for model in provider.models
]


@pytest.fixture
def prices() -> Prices:
    return Prices(MovingClock())


def deploy(provider: str, model: str, **fields: object) -> Deployment:
    return Deployment(name="a", provider=provider, model=model, **fields)


def price(prompt: str, completion: str, cached: str | None = None, written: str | None = None) -> Price:
    return Price(Decimal(prompt), Decimal(completion), cached and Decimal(cached), written and Decimal(written))


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-sonnet-5-5"),
        ("openai", "gpt-4o"),
        ("gemini", "gemini-2.5-pro"),
        ("groq", "llama-3.3-70b-versatile"),
        ("litellm", "anthropic/claude-sonnet-5-5"),
        ("claude_code", "claude-sonnet-5-5"),
    ],
)
def test_what_is_sold_in_public_has_its_public_price(prices: Prices, provider: str, model: str) -> None:
    found = prices.find(deploy(provider, model))
    assert found is not None
    assert found.prompt_usd_per_million > 0
    assert found.completion_usd_per_million > found.prompt_usd_per_million


def test_the_price_in_the_catalogue_goes_before_the_public_one(prices: Prices) -> None:
    own = price("1", "2")
    deployment = deploy("openai", "gpt-4o", price=own)
    assert prices.find(deployment) == own
    assert prices.cost(deployment, Usage(MILLION, MILLION), "gpt-4o-2024-08-06") == 3


def test_a_deployment_of_the_same_name_has_its_own_price(prices: Prices) -> None:
    found = [prices.find(deploy("openai", "gpt-4o", price=price(usd, usd))) for usd in ("1", "2")]
    assert found == [price("1", "1"), price("2", "2")]


def test_whoever_serves_at_a_public_address_is_known_by_it(prices: Prices) -> None:
    served = deploy("openai_compatible", "deepseek-chat", base_url="https://api.deepseek.com/v1")
    assert prices.find(served) is not None


@pytest.mark.parametrize(
    "deployment",
    [
        deploy("ollama", "qwen3:8b"),
        deploy("vllm", "gpt-4o", base_url="http://10.0.0.1:8000/v1"),
        deploy("openai_compatible", "gpt-4o", base_url="http://127.0.0.1:8000/v1"),
        deploy("openai_compatible", "gpt-4o", base_url="https://models.example.com/v1"),
        deploy("openai", "no-such-model"),
    ],
)
def test_what_nobody_sells_has_no_price_rather_than_none_to_pay(prices: Prices, deployment: Deployment) -> None:
    assert prices.find(deployment) is None
    assert prices.cost(deployment, Usage(10, 10)) is None
    assert prices.bound(deployment, 10, 10) is None
    assert not prices.is_free(deployment)


def test_a_model_listed_without_a_price_is_not_free(prices: Prices) -> None:
    name = next(model.id for seller, model in SOLD if seller == "google" and model.prices == ModelPrice())
    assert prices.find(deploy("gemini", name)) is None


def test_the_mock_costs_nothing(prices: Prices) -> None:
    mock = deploy("mock", "mock")
    assert prices.is_free(mock)
    assert prices.cost(mock, Usage(10, 10)) == 0


def test_without_its_usage_a_call_cost_nobody_knows_what(prices: Prices) -> None:
    assert prices.cost(deploy("openai", "gpt-4o"), None) is None


def test_an_unknown_price_is_told_once_for_each_model(prices: Prices) -> None:
    with capture_logs() as logs:
        for model in ("qwen3:8b", "qwen3:8b", "gemma4:31b"):
            prices.cost(deploy("ollama", model), Usage(1, 1))
    assert [(log["event"], log["model"]) for log in logs] == [
        ("price_unknown", "qwen3:8b"),
        ("price_unknown", "gemma4:31b"),
    ]


def test_tokens_of_the_providers_cache_have_their_own_price(prices: Prices) -> None:
    deployment = deploy("vllm", "m", price=price("10", "20", cached="1", written="12.5"))
    usage = Usage(10 * MILLION, 0, cached_prompt_tokens=4 * MILLION, cache_write_tokens=2 * MILLION)
    assert prices.cost(deployment, usage) == 4 * 10 + 4 * 1 + 2 * Decimal("12.5")


def test_tokens_of_the_providers_cache_cost_as_any_other_where_nothing_else_is_said(prices: Prices) -> None:
    deployment = deploy("vllm", "m", price=price("10", "20"))
    assert prices.cost(deployment, Usage(MILLION, 0, MILLION, 0)) == 10


def test_who_answered_sets_the_price(prices: Prices) -> None:
    routed = deploy("openrouter", "openai/gpt-4o")
    answered = prices.cost(routed, Usage(MILLION, 0), "openai/gpt-4o-mini")
    assert answered == prices.cost(deploy("openrouter", "openai/gpt-4o-mini"), Usage(MILLION, 0))
    assert answered != prices.cost(routed, Usage(MILLION, 0))


def test_an_answer_under_a_name_nobody_knows_costs_what_was_asked_for(prices: Prices) -> None:
    deployment = deploy("openai", "gpt-4o")
    assert prices.cost(deployment, Usage(MILLION, 0), "gateway-7") == prices.cost(deployment, Usage(MILLION, 0))


def test_an_embedding_model_is_priced_for_what_it_reads_only(prices: Prices) -> None:
    model = deploy("openai", "text-embedding-3-small")
    assert prices.cost(model, Usage(MILLION, 0)) == Decimal("0.02")
    assert prices.cost(model, Usage(MILLION, 1)) is None


def test_the_bound_takes_the_whole_prompt_for_written_to_the_cache(prices: Prices) -> None:
    deployment = deploy("vllm", "m", price=price("10", "20", cached="1", written="12.5"))
    assert prices.bound(deployment, MILLION, MILLION) == Decimal("32.5")


@settings(max_examples=400, deadline=None)
@given(
    sold=st.sampled_from(SOLD),
    prompt=st.integers(0, 2 * MILLION),
    completion=st.integers(0, MILLION),
    shares=st.tuples(st.integers(0, 50), st.integers(0, 50)),
)
def test_every_public_price_is_reckoned_as_its_library_does(
    sold: tuple[str, ModelInfo], prompt: int, completion: int, shares: tuple[int, int]
) -> None:
    seller, model = sold
    at = datetime(2026, 11, 1, 18, tzinfo=UTC)
    tariff = PublicPrices().find(seller, None, model.id, at)
    cached, written = (prompt * share // 100 for share in shares)
    if tariff is not None and tariff.knows_completions:
        usage = genai_prices.Usage(
            input_tokens=prompt, output_tokens=completion, cache_read_tokens=cached, cache_write_tokens=written
        )
        expected = genai_prices.calc_price(usage, model.id, provider_id=seller, genai_request_timestamp=at)
        assert tariff.cost(Usage(prompt, completion, cached, written)) == pytest.approx(
            expected.total_price, rel=Decimal("1e-15")
        )


@settings(max_examples=200, deadline=None)
@given(
    sold=st.sampled_from(SOLD),
    prompt=st.integers(0, 2 * MILLION),
    completion=st.integers(0, MILLION),
    shares=st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 100)),
)
def test_no_call_within_its_tokens_costs_more_than_its_bound(
    sold: tuple[str, ModelInfo], prompt: int, completion: int, shares: tuple[int, int, int]
) -> None:
    tariff = PublicPrices().find(sold[0], None, sold[1].id, datetime(2026, 11, 1, tzinfo=UTC))
    if tariff is None or (completion and not tariff.knows_completions):
        return
    cached, written, answered = shares
    usage = Usage(prompt, completion * answered // 100, prompt * cached // 100, prompt * written // 100)
    bound, cost = tariff.bound(prompt, completion), tariff.cost(usage)
    assert bound is not None
    assert cost is not None
    assert cost <= bound


def list_prices(*prices: ConditionalPrice) -> None:
    model = ModelInfo("m", ClauseEquals("m"), prices=list(prices))
    provider = Provider("openai", "OpenAI", "https://x", models=[model])
    data_snapshot.set_custom_snapshot(data_snapshot.DataSnapshot([provider], from_auto_update=False))


@pytest.fixture
def own_list():
    yield list_prices
    data_snapshot.set_custom_snapshot(None)


def ask_prompt_price(at: datetime) -> Decimal:
    tariff = PublicPrices().find("openai", None, "m", at)
    assert tariff is not None
    return tariff.choose(0).prompt_usd_per_million


def test_a_price_holds_from_its_day_on(own_list) -> None:
    own_list(
        ConditionalPrice(prices=ModelPrice(input_mtok=Decimal(1))),
        ConditionalPrice(StartDateConstraint(date(2026, 6, 1)), prices=ModelPrice(input_mtok=Decimal(2))),
    )
    assert ask_prompt_price(datetime(2026, 5, 31, 23, tzinfo=UTC)) == 1
    assert ask_prompt_price(datetime(2026, 6, 1, tzinfo=UTC)) == 2


def test_a_price_that_began_while_the_process_runs_is_used(own_list) -> None:
    own_list(
        ConditionalPrice(prices=ModelPrice(input_mtok=Decimal(1))),
        ConditionalPrice(StartDateConstraint(date(2026, 1, 2)), prices=ModelPrice(input_mtok=Decimal(2))),
    )
    clock = MovingClock()
    prices, deployment = Prices(clock), deploy("openai", "m")
    costs = []
    for _ in range(2):
        costs.append(prices.cost(deployment, Usage(MILLION, 0)))
        clock.seconds += 86_400
    assert costs == [1, 2]


def test_a_price_may_hold_at_night_only(own_list) -> None:
    night = TimeOfDateConstraint(time(22, tzinfo=UTC), time(4, tzinfo=UTC))
    own_list(
        ConditionalPrice(prices=ModelPrice(input_mtok=Decimal(4))),
        ConditionalPrice(night, prices=ModelPrice(input_mtok=Decimal(1))),
    )
    assert ask_prompt_price(datetime(2026, 6, 1, 12, tzinfo=UTC)) == 4
    assert ask_prompt_price(datetime(2026, 6, 1, 23, tzinfo=UTC)) == 1


def test_a_long_prompt_is_dearer_in_all_its_tokens(own_list) -> None:
    tiered = TieredPrices(Decimal(1), [Tier(200_000, Decimal(2))])
    own_list(ConditionalPrice(prices=ModelPrice(input_mtok=tiered, output_mtok=Decimal(10))))
    tariff = PublicPrices().find("openai", None, "m", datetime(2026, 6, 1, tzinfo=UTC))
    assert tariff is not None
    assert tariff.cost(Usage(200_000, 0)) == Decimal("0.2")
    assert tariff.cost(Usage(200_001, 0)) == Decimal("0.400002")


def test_the_public_prices_are_loaded_only_when_one_is_looked_up() -> None:
    code = (
        "import sys; from llm_pool.money.prices import Prices; from llm_pool.catalog import Deployment;"
        "from shared.clock import SystemClock; prices = Prices(SystemClock());"
        "prices.load([Deployment('a', 'ollama', 'm'), Deployment('b', 'mock', 'm')]);"
        "seen = 'genai_prices' in sys.modules;"
        "prices.load([Deployment('c', 'openai', 'gpt-4o')]); print(seen, 'genai_prices' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
