"""Keeps the leases of this worker process alive: one statement a beat, whatever the number of runs."""

import asyncio
from collections.abc import Callable, Collection
from typing import Final
from uuid import UUID

import structlog

from orchestrator.jobs import sweeps
from orchestrator.jobs.store import Claim
from shared.database import DATABASE_ERRORS, Database, describe_fault

log = structlog.get_logger()

BEATS_PER_LEASE: Final = 3
"""Two beats may be lost before a run is taken for dead."""
TRIES_PER_LEASE: Final = 2 * BEATS_PER_LEASE
"""A beat that was not answered by then is made again, on another connection."""
PAUSES_PER_LEASE: Final = 30
"""Between such tries: a database that is away is not asked without end."""


class LeaseKeeper:
    """Knows the runs in hand and renews their leases until they are let go."""

    def __init__(
        self,
        database: Database,
        *,
        lease_seconds: float,
        interrupt: Callable[[Collection[UUID]], object] = lambda _: None,
    ) -> None:
        """`database` is best one of its own, so that no beat waits for what others write.

        `interrupt` is told of jobs in hand that were cancelled, should nobody else have told of it.
        """
        self.lease_seconds = lease_seconds
        self._database = database
        self._interrupt = interrupt
        self._held: set[tuple[UUID, int]] = set()

    def hold(self, claim: Claim) -> "_Hold":
        """Renew this claim's lease while the block runs."""
        return _Hold(self._held, (claim.job_id, claim.run))

    async def keep(self) -> None:
        """Beat until cancelled; a beat that is lost is made up for as soon as the database can be reached again."""
        pause_seconds = self.lease_seconds / BEATS_PER_LEASE
        while True:
            await asyncio.sleep(pause_seconds)
            is_lost = bool(self._held) and not await self._beat()
            pause_seconds = self.lease_seconds / (PAUSES_PER_LEASE if is_lost else BEATS_PER_LEASE)

    async def _beat(self) -> bool:
        """Whether the database took it."""
        runs = frozenset(self._held)
        try:
            lost, cancelled = await self._renew(runs)
        except DATABASE_ERRORS as error:
            log.warning("heartbeat_missed", error=describe_fault(error), runs=len(runs))
            return False
        for job_id, run in runs & self._held:
            if job_id in lost:
                log.warning("lease_lost", job_id=str(job_id), run=run)
        if cancelled:
            self._interrupt(cancelled)
        return True

    async def _renew(self, runs: frozenset[tuple[UUID, int]]) -> tuple[frozenset[UUID], frozenset[UUID]]:
        """Jobs that are no longer ours, and those of them that were cancelled."""
        # Ended from within, it still waits for a dead connection to be rolled back: hence the second bound.
        bound_seconds = self.lease_seconds / TRIES_PER_LEASE
        async with (
            asyncio.timeout(bound_seconds),
            self._database.as_system(longest_seconds=bound_seconds) as connection,
        ):
            kept = await sweeps.renew_leases(connection, runs, lease_seconds=self.lease_seconds)
            lost = frozenset(job_id for job_id, _ in runs) - kept
            return lost, await sweeps.find_cancelled(connection, lost) if lost else frozenset()


class _Hold:
    """One run among those that are held, while the block runs."""

    def __init__(self, held: set[tuple[UUID, int]], run: tuple[UUID, int]) -> None:
        self._held = held
        self._run = run

    def __enter__(self) -> None:
        self._held.add(self._run)

    def __exit__(self, *_: object) -> None:
        self._held.discard(self._run)
