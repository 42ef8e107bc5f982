"""Tells an outage of the database from workers that died: in an outage nobody could renew a lease.

Whatever takes leases away notes when it does: the time between two such sweeps is what is known of outages.
"""

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.beat import SWEEP_SECONDS
from orchestrator.jobs import sweeps
from orchestrator.jobs.leases import BEATS_PER_LEASE
from orchestrator.jobs.sweeps import Rhythm


async def begin_sweep(connection: AsyncConnection, name: str, lease_seconds: float) -> float | None:
    """Note that this sweep runs now, and decide for how long a lease must have run out; None takes none."""
    rhythm = await sweeps.begin(connection, name, longest_gap_seconds=_decide_longest_gap_seconds(lease_seconds))
    return decide_spared_seconds(rhythm, lease_seconds)


async def find_spared_seconds(connection: AsyncConnection, name: str, lease_seconds: float) -> float | None:
    """The same for somebody else than the sweep. Where none runs, nothing is known of outages and nobody is spared."""
    rhythm = await sweeps.find_rhythm(connection, name)
    if rhythm is None or (rhythm.gap_seconds or 0.0) > _decide_longest_gap_seconds(lease_seconds):
        return 0.0
    return decide_spared_seconds(rhythm, lease_seconds)


def decide_spared_seconds(rhythm: Rhythm, lease_seconds: float) -> float | None:
    """For how long a lease must have run out to be taken away; None takes none.

    While the database was away nobody could renew a lease, so after a gap between sweeps each gets its length anew.
    Sweeps that come seldom are all gap: by the second after it ran out, a lease is taken all the same.
    """
    if rhythm.calm_seconds >= lease_seconds:
        return 0.0
    if rhythm.gap_seconds is not None and rhythm.gap_seconds >= lease_seconds:
        return rhythm.gap_seconds
    return None


def _decide_longest_gap_seconds(lease_seconds: float) -> float:
    """An outage shorter than a beat costs no lease: two more beats fit in it."""
    return max(2 * SWEEP_SECONDS, lease_seconds / BEATS_PER_LEASE)
