"""Agents as the runs of one worker process look them up: once for many jobs, and anew after a few seconds."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

from orchestrator.agents import catalog
from orchestrator.agents.catalog import AgentProfile
from shared.database import Database, patiently

STALE_SECONDS: Final = 2.0
"""An agent that was changed speaks its new way after this long at the latest."""
MOST: Final = 10_000
"""Agents remembered; beyond it all are forgotten, which costs one look-up each."""


class AgentDirectory:
    """Remembers what it found; not what it did not find."""

    def __init__(self, database: Database, clock: Callable[[], float] = monotonic) -> None:
        self._database = database
        self._clock = clock
        self._known: dict[tuple[str, str | None], tuple[float, asyncio.Future[AgentProfile]]] = {}

    async def get(self, tenant_id: str, agent_id: str | None) -> AgentProfile:
        """The agent asked for, or the tenant's default one.

        Raises:
            NotFoundError: no such tenant, or no such agent in it.
            InputError: the agent is switched off.
        """
        key = (tenant_id, agent_id)
        asked_at, answer = self._known.get(key, (0.0, None))
        if answer is None or self._clock() - asked_at > STALE_SECONDS:
            answer = asyncio.ensure_future(patiently(lambda: self._look_up(tenant_id, agent_id)))
            self._remember(key, answer)
        # Shared: whoever is cancelled takes nobody's answer away.
        return await asyncio.shield(answer)

    async def _look_up(self, tenant_id: str, agent_id: str | None) -> AgentProfile:
        async with self._database.as_tenant(tenant_id) as connection:
            return await catalog.get_agent(connection, tenant_id, agent_id)

    def _remember(self, key: tuple[str, str | None], answer: asyncio.Future[AgentProfile]) -> None:
        if len(self._known) >= MOST:
            self._known.clear()
        self._known[key] = (self._clock(), answer)
        answer.add_done_callback(lambda done: self._forget_failure(key, done))

    def _forget_failure(self, key: tuple[str, str | None], answer: asyncio.Future[AgentProfile]) -> None:
        if (answer.cancelled() or answer.exception() is not None) and self._known.get(key, (0.0, None))[1] is answer:
            del self._known[key]
