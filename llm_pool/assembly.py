"""Puts a pool together from settings: which catalogue holds, where it remembers, who watches."""

from llm_pool.catalog import Catalog
from llm_pool.catalogs.catalog_file import Lookup
from llm_pool.catalogs.startup import choose_catalog
from llm_pool.middleware.metrics import Meter
from llm_pool.policies import Policies
from llm_pool.pool import Instruments, Pool
from llm_pool.stores.bundle import Stores, build_memory_stores
from llm_pool.stores.on_redis import build_redis_stores
from llm_pool.tokens.counting import TokenCounter
from shared.clock import SystemClock
from shared.settings import Settings, find_secret
from shared.telemetry import configure_logging_of_guest
from shared.tracing import open_tracer


async def open_pool(
    settings: Settings, *, meter: Meter | None = None, lookup: Lookup = find_secret
) -> tuple[Catalog, Pool]:
    """A pool in this process, which with a REDIS_URL shares its limits, budgets and cooldowns with all that have it.

    Raises:
        ConfigurationError: in one sentence, before anybody is asked.
    """
    configure_logging_of_guest(settings)
    catalog = await choose_catalog(settings.llmyard_config, lookup, settings.llmyard_mock_when_no_provider)
    return catalog, build_pool(settings, catalog, meter=meter)


def build_pool(settings: Settings, catalog: Catalog, *, meter: Meter | None = None) -> Pool:
    """The same for a catalogue that is already known.

    Raises:
        ConfigurationError: a deployment lacks what its provider needs, or a budget could not be kept.
    """
    stores = _build_stores(settings.redis_url, catalog.policies)
    tracer = open_tracer(settings.otel_exporter_otlp_endpoint)
    instruments = Instruments(meter, tracer, shows_content=settings.llmyard_trace_content)
    return Pool(catalog, stores=stores, instruments=instruments, tokens=TokenCounter(settings.tiktoken_cache_dir))


def _build_stores(redis_url: str | None, policies: Policies) -> Stores:
    if redis_url is None:
        return build_memory_stores(policies, SystemClock())
    return build_redis_stores(redis_url, policies, SystemClock())
