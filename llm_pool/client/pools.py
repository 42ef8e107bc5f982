"""Which pool answers a client: one for each model of its backend, or one for all groups of a catalogue."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from llm_pool.asking.asking import DEFAULT_GROUP, AskablePool
from llm_pool.catalog import Catalog
from llm_pool.catalogs.catalog_file import Lookup
from llm_pool.catalogs.startup import choose_catalog
from llm_pool.client.backends import build_cache_policy, build_chat_catalog, build_embedding_catalog
from llm_pool.client.config import LLMConfig
from llm_pool.client.open_pools import OpenPools
from llm_pool.pool import Pool
from llm_pool.remote.remote import RemotePool
from shared.settings import find_secret

EMBEDDING_GROUP: Final = "embedding"
"""Of a catalogue; the shipped one has it."""

BuildPool = Callable[[Catalog], AskablePool]


class ClientPools:
    """Opens each at its first use."""

    def __init__(self, config: LLMConfig, *, build_pool: BuildPool = Pool, lookup: Lookup = find_secret) -> None:
        self._config = config
        self._build_pool = build_pool
        self._lookup = lookup
        self._opened = OpenPools()

    @property
    def chat_name(self) -> str:
        """The model group that is asked where no model is named."""
        return self._config.backend or self._config.model or DEFAULT_GROUP

    @property
    def embedding_name(self) -> str:
        """Likewise for vectors."""
        return self._config.backend or EMBEDDING_GROUP

    async def get_for_chat(self, name: str) -> AskablePool:
        """A pool that has a group of this name, if it is one of a backend.

        Raises:
            ConfigurationError: in one sentence, what to set.
        """
        if self._config.backend is None:
            return await self._opened.get(None, self._open_groups)
        return await self._opened.get(("chat", name), lambda: self._open_for_chat(name))

    async def get_for_embedding(self, name: str) -> AskablePool:
        """Likewise."""
        if self._config.backend is None:
            return await self._opened.get(None, self._open_groups)
        return await self._opened.get(("embedding", name), lambda: self._open_for_embedding(name))

    async def list_open(self) -> tuple[AskablePool, ...]:
        """Whoever was asked in this loop so far; where nobody was, who would be."""
        return self._opened.list_open() or (await self.get_for_chat(self.chat_name),)

    async def aclose(self) -> None:
        await self._opened.aclose()

    async def _open_for_chat(self, name: str) -> AskablePool:
        return self._build_pool(build_chat_catalog(self._config, name, self._lookup))

    async def _open_for_embedding(self, name: str) -> AskablePool:
        return self._build_pool(build_embedding_catalog(self._config, name, self._lookup))

    async def _open_groups(self) -> AskablePool:
        if self._config.pool_url is not None:
            return RemotePool(self._config.pool_url)
        catalog = await choose_catalog(self._config.catalog_file, self._lookup, self._config.allow_mock)
        if self._config.cache_dir is None:
            return self._build_pool(catalog)
        policies = replace(catalog.policies, cache=build_cache_policy(self._config))
        return self._build_pool(replace(catalog, policies=policies))
