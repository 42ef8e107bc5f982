"""Sends parked jobs back: a probe first, then a paced drain; and ends those that waited too long.

A pass decides for every model group by itself; between tenants it goes in turn, and of one the oldest goes first. Two
passes at once are harmless.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import ARRAY, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator import dispatch
from orchestrator.failed_requests import discards, drains
from orchestrator.failed_requests.discards import TOO_LONG
from orchestrator.failed_requests.drains import JOBS
from orchestrator.failed_requests.policy import choose_order, decide_most, decide_release
from orchestrator.jobs.sweeps import Waiting
from orchestrator.outcomes import EndedJob
from shared.database import Database

log = structlog.get_logger()

PASSES: Final = 4
"""Of one drain while there is something to send: answers that come at once are not waited for until the next one."""
PAUSE_SECONDS: Final = 0.2
EXPIRED_AT_ONCE: Final = 100
"""Most jobs ended in one drain for having waited too long; the next one follows in a second."""

_RELEASE = drains.build_choice(
    JOBS,
    """
    parked as (
        select id from jobs where id in (select key from chosen) and state = 'parked' order by id
        for update skip locked
    ),
    queued as (
        update jobs set state = 'queued', dispatched_at = now() where id in (select id from parked)
        returning id, tenant_id, task_id
    ),
    replaying as (
        update failed_requests set state = 'replaying', updated_at = now()
        where job_id in (select id from queued) and state = 'parked'
    )
    select id, tenant_id, task_id from queued join chosen on key = id order by round, turn
    """,
)

# Waits for a lock that another holds: what that other makes of the job decides.
_SEND_BACK = text(
    """
    with parked as (
        select id from jobs where id = any (:job_ids) and state = 'parked' order by id for update
    ),
    queued as (
        update jobs set state = 'queued', dispatched_at = now()
        where id in (select id from parked) and state = 'parked'
        returning id, tenant_id, task_id
    ),
    replaying as (
        update failed_requests set state = 'replaying', updated_at = now()
        where job_id in (select id from queued) and state = 'parked'
    )
    select id, tenant_id, task_id from queued order by id
    """
).bindparams(bindparam("job_ids", type_=ARRAY(Uuid)))


async def drain(database: Database, *, expires_seconds: float) -> None:
    """One pass: release what is due, and end what waited too long."""
    for number in range(PASSES):
        if number:
            await asyncio.sleep(PAUSE_SECONDS)
        released = await release_due(database)
        if not released:
            break
        await asyncio.to_thread(dispatch.dispatch, released)
    expired = await discard_expired(database, expires_seconds=expires_seconds)
    await asyncio.to_thread(dispatch.tell_ended, expired)


async def release_due(database: Database) -> list[Waiting]:
    """Queue as many parked jobs as the pace of each group allows; to be dispatched after this commit."""
    async with database.as_system() as connection:
        released = await release(connection)
    if released:
        log.info("parked_jobs_released", count=len(released))
    return released


async def release(connection: AsyncConnection) -> list[Waiting]:
    """One pass, inside the caller's transaction; nothing while another one is under way."""
    if not await drains.try_lock(connection, JOBS):
        return []
    groups = await drains.read_groups(connection, JOBS)
    if not groups:
        return []
    most = decide_most(await drains.read_slots(connection))
    room = most - await drains.count_replaying(connection, JOBS)
    released: list[Waiting] = []
    for group in choose_order(groups):
        await drains.save_pace(connection, JOBS, group, most)
        if limit := decide_release(group, most=most, room=room - len(released)):
            released += await _release_group(connection, group.model, limit)
    return released


async def _release_group(connection: AsyncConnection, model: str, limit: int) -> list[Waiting]:
    rows = (await connection.execute(_RELEASE, {"queue": JOBS.queue, "model": model, "limit": limit})).all()
    if rows:
        await drains.save_turn(connection, JOBS, model, rows[-1].tenant_id)
    return [Waiting(row.id, row.tenant_id, row.task_id) for row in rows]


async def send_back(connection: AsyncConnection, job_ids: Sequence[UUID]) -> list[Waiting]:
    """Queue those of the jobs that are parked, due or not; to be dispatched after the commit."""
    rows = await connection.execute(_SEND_BACK, {"job_ids": list(job_ids)})
    return [Waiting(row.id, row.tenant_id, row.task_id) for row in rows]


async def discard_expired(database: Database, *, expires_seconds: float) -> list[EndedJob]:
    """End what has been parked for longer than that; whoever waits is to be told after this commit."""
    reason = f"nobody could answer it within {timedelta(seconds=expires_seconds)}"
    async with database.as_system() as connection:
        job_ids = await discards.take_expired_jobs(connection, expires_seconds=expires_seconds, limit=EXPIRED_AT_ONCE)
        ended = await discards.discard_jobs(connection, job_ids, error_type=TOO_LONG, reason=reason) if job_ids else []
        ids = await discards.take_expired_calls(connection, expires_seconds=expires_seconds, limit=EXPIRED_AT_ONCE)
        calls = await discards.discard_calls(connection, ids, error_type=TOO_LONG, reason=reason) if ids else 0
    if ended or calls:
        log.warning("parked_requests_expired", jobs=len(ended), calls=calls)
    return ended
