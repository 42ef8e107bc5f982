"""Which pool answers the jobs of this process. Apart from `wiring`, so that a warden loads little besides."""

from llm_pool import assembly
from llm_pool.call import CompletionPool
from llm_pool.remote.remote import RemotePool
from llm_pool.status.metrics import Metrics
from shared.settings import Settings


async def open_pool(settings: Settings, metrics: Metrics | None = None) -> CompletionPool:
    """The pool service where one is named, else a pool in this process.

    Raises:
        ConfigurationError: no provider is configured or in reach.
    """
    if settings.llm_pool_url:
        return RemotePool(settings.llm_pool_url)
    _, pool = await assembly.open_pool(settings, meter=metrics)
    return pool
