"""The whole pool: every middleware at work over memory stores, with limits, budgets, cache and metrics."""

import asyncio
from decimal import Decimal

from measure import measure, read_arguments, report

from llm_pool.catalog import Catalog, Deployment, Limits, ModelGroup, Price
from llm_pool.policies import BudgetPolicy, Policies
from llm_pool.pool import Instruments, Pool
from llm_pool.status.metrics import Metrics
from llm_pool.types import ChatMessage, CompletionRequest
from shared.settings import Settings
from shared.telemetry import configure_logging

LIMITS = Limits(1_000_000, 100_000_000, 100_000_000, 10_000_000_000, in_flight=1000)
PRICE = Price(Decimal(3), Decimal(15))


async def main() -> None:
    base_url, calls, in_flight = read_arguments()
    deployments = tuple(
        Deployment(name, "openai", "m", base_url, "key", limits=LIMITS, price=PRICE) for name in ("one", "two")
    )
    budget = BudgetPolicy(daily_usd=Decimal(1_000_000), tenant_daily_usd=Decimal(1_000_000))
    groups = {"quality": ModelGroup("quality", deployments)}
    catalog = Catalog(groups, policies=Policies(budget=budget))
    configure_logging(Settings(llmyard_log_format="json"))
    pool = Pool(catalog, instruments=Instruments(Metrics()))

    async def ask(number: int) -> str:
        messages = (ChatMessage("user", f"question {number}"),)
        request = CompletionRequest("quality", messages, tenant_id="acme", temperature=0.0, max_tokens=100)
        return (await pool.complete(request)).content

    report(await measure(ask, calls, in_flight))
    await pool.aclose()


asyncio.run(main())
