"""What a pool can say without an answer from a model: who of its deployments is there, how long a prompt is."""

import asyncio
from collections.abc import Callable, Mapping
from functools import cached_property

import structlog

from llm_pool.asking.asking import HEALTH_SECONDS, TokenCount
from llm_pool.asks import fit
from llm_pool.catalog import Catalog, Deployment
from llm_pool.providers.base import Provider
from llm_pool.types import CompletionRequest
from shared.errors import LLMError

log = structlog.get_logger()

COUNT_SECONDS = 10.0
"""How long a provider may take to count; a prompt is estimated in less than a millisecond."""

EstimatePrompt = Callable[[CompletionRequest, str], int]
"""Tokens of a prompt for a model, as near as can be said without asking anyone: `TokenCounter.count_prompt`."""


class Inspection:
    """Asks the providers themselves, outside of both rings: nothing of it costs money or quota."""

    def __init__(self, catalog: Catalog, providers: Mapping[str, Provider], estimate: EstimatePrompt) -> None:
        """`providers` by their deployments' names."""
        self._catalog = catalog
        self._providers = providers
        self._estimate = estimate

    async def count_tokens(self, request: CompletionRequest) -> TokenCount:
        """By the deployment that is named first for the group, as different models count differently."""
        everybody = (each for group in self._catalog.walk(request.model) for each in group.deployments)
        deployment = next(everybody, None)
        if deployment is None:
            return TokenCount(self._estimate(request, request.model), is_exact=False)
        if self._counts(deployment):
            try:
                provider = self._providers[deployment.name]
                asked = fit(request, provider, deployment)
                return TokenCount(await provider.count_tokens(asked, COUNT_SECONDS), is_exact=True)
            except LLMError as error:
                log.info("token_count_failed", deployment=deployment.name, error_type=type(error).__name__)
        return TokenCount(self._estimate(request, deployment.model), is_exact=False)

    def runs_foreign_code(self, model: str) -> bool:
        """See `CompletionPool.runs_foreign_code`."""
        return model in self._foreign_groups

    @cached_property
    def _foreign_groups(self) -> frozenset[str]:
        """Asked for before every job of a worker, so they are worked out once."""
        return frozenset(name for name in self._catalog.groups if self._reaches_foreign_code(name))

    async def health(self, timeout_seconds: float = HEALTH_SECONDS) -> Mapping[str, bool]:
        names = tuple(self._providers)
        answers = await asyncio.gather(*(self._is_healthy(name, timeout_seconds) for name in names))
        return dict(zip(names, answers, strict=True))

    def _reaches_foreign_code(self, group_name: str) -> bool:
        """Of anybody in reach: who of them will be asked is not known before."""
        everybody = (each for group in self._catalog.walk(group_name) for each in group.deployments)
        return any(self._providers[deployment.name].runs_foreign_code for deployment in everybody)

    def _counts(self, deployment: Deployment) -> bool:
        return "count_tokens" in self._providers[deployment.name].capabilities and deployment.may("count_tokens")

    async def _is_healthy(self, name: str, timeout_seconds: float) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._providers[name].is_healthy(timeout_seconds)
        except Exception as error:  # noqa: BLE001 - a check that raises is an answer too: it is logged, and no
            log.warning("health_check_failed", deployment=name, error_type=type(error).__name__)
            return False
