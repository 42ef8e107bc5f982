"""A client of the short forms, with a script in the place of its backend."""

from collections.abc import Sequence
from dataclasses import replace

from llm_pool.asking.asking import AskablePool
from llm_pool.catalog import Catalog
from llm_pool.client.client import Client
from llm_pool.client.config import LLMConfig
from llm_pool.client.pools import ClientPools
from llm_pool.middleware.retry import Backoff, Retry
from llm_pool.policies import CooldownPolicy
from llm_pool.pool import Pool
from shared.clock import SystemClock
from tests.fakes.scripted_provider import Script, build_registry

MOCK = LLMConfig(backend="mock")


class Scripted:
    """A client whose backend follows a script, whatever deployments its catalogue names."""

    def __init__(self, script: Script, config: LLMConfig = MOCK) -> None:
        self.catalogs: list[Catalog] = []
        self._script = script
        self.client = Client(config, pools=ClientPools(config, build_pool=self._build, lookup={}.get))

    def _build(self, catalog: Catalog) -> AskablePool:
        self.catalogs.append(catalog)
        (create,) = build_registry(dict.fromkeys(_names(catalog), self._script)).values()
        patient = replace(catalog, policies=replace(catalog.policies, cooldown=CooldownPolicy(failures=1000)))
        retry = Retry(SystemClock(), Backoff(draw=lambda low, _: low))
        return Pool(patient, retry=retry, registry=dict.fromkeys(("mock", "ollama"), create))


def _names(catalog: Catalog) -> Sequence[str]:
    return [deployment.name for deployment in catalog.deployments]
