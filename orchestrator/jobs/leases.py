"""Keeps the leases of this worker process alive: one statement a beat, whatever the number of runs."""

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

import structlog

from orchestrator.jobs import sweeps
from orchestrator.jobs.store import Claim
from shared.database import DATABASE_ERRORS, Database

log = structlog.get_logger()

BEATS_PER_LEASE: Final = 3
"""Two beats may be lost before a run is taken for dead."""


class LeaseKeeper:
    """Knows the runs in hand and renews their leases until they are let go."""

    def __init__(
        self,
        database: Database,
        *,
        lease_seconds: float,
        interrupt: Callable[[Collection[UUID]], object] = lambda _: None,
    ) -> None:
        """`interrupt` is told of jobs in hand that were cancelled, should nobody else have told of it."""
        self.lease_seconds = lease_seconds
        self._database = database
        self._interrupt = interrupt
        self._held: set[tuple[UUID, int]] = set()

    @contextmanager
    def hold(self, claim: Claim) -> Iterator[None]:
        """Renew this claim's lease while the block runs."""
        key = (claim.job_id, claim.run)
        self._held.add(key)
        try:
            yield
        finally:
            self._held.discard(key)

    async def keep(self) -> None:
        """Beat until cancelled; a database that is away for a beat costs that beat only."""
        while True:
            await asyncio.sleep(self.lease_seconds / BEATS_PER_LEASE)
            if self._held:
                await self._beat()

    async def _beat(self) -> None:
        runs = frozenset(self._held)
        try:
            async with self._database.as_system() as connection:
                kept = await sweeps.renew_leases(connection, runs, lease_seconds=self.lease_seconds)
                lost = {job_id for job_id, _ in runs} - kept
                cancelled = await sweeps.find_cancelled(connection, lost) if lost else ()
        except DATABASE_ERRORS as error:
            log.warning("heartbeat_missed", error=str(error), runs=len(runs))
            return
        for job_id, run in runs & self._held:
            if job_id in lost:
                log.warning("lease_lost", job_id=str(job_id), run=run)
        if cancelled:
            self._interrupt(cancelled)
