"""The queries of the drain, over either table of what failed: how the replays go, and who is next.

For the system role; each runs inside the caller's transaction. None grows with what is parked or with what has ended:
every count is bounded, and every search walks an index from tenant to tenant.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from string import Template
from typing import Final

from sqlalchemy import ARRAY, Text, TextClause, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.failed_requests.policy import OF_OUR_OWN_MAKING, PACE_LASTS_SECONDS, DrainedGroup, Pace, decide_pace

MOST_COUNTED: Final = 100_000
"""More would change no decision."""
LONGEST_DUE: Final = 1000
"""Among these the oldest goes first."""
WORKER_SEEN_SECONDS: Final = 60.0
"""A worker not seen for longer holds no slots."""


@dataclass(frozen=True, slots=True)
class DrainedTable:
    """One of the two tables, and where they differ; every field is SQL."""

    queue: str
    """Its name in `drains`."""
    table: str
    key: str
    """What identifies the work: the job, or the call itself."""
    under_way: str
    """Which of the rows in state `replaying` somebody works on."""
    parked_again: str
    """Which of the parked rows come from a replay."""


JOBS: Final = DrainedTable("jobs", "failed_requests", "job_id", "true", "parks > 1")
CALLS: Final = DrainedTable("calls", "failed_calls", "id", "lease_until > now()", "tries > 0")

# Any number will do that nobody else uses; held until the transaction ends.
_LOCKS: Final[Mapping[str, int]] = {"jobs": 6_215_473_021, "calls": 6_215_473_022}
_LOCK = text("select pg_try_advisory_xact_lock(:key)")

_SLOTS = text(
    """
    select sum(concurrency)::integer from workers
    where seen_at > now() - make_interval(secs => :seen_seconds) and not is_stopping
    """
)

_SAVE = text(
    """
    insert into drains (queue, model, allowed, answered_at, turned_away_at)
    values (:queue, :model, :allowed, case when :is_answered then now() end, case when :is_turned_away then now() end)
    on conflict (queue, model) do update
    set allowed = excluded.allowed, passed_at = now(),
        answered_at = coalesce(excluded.answered_at, drains.answered_at),
        turned_away_at = coalesce(excluded.turned_away_at, drains.turned_away_at)
    """
)

_SAVE_TURN = text("update drains set served_tenant = :tenant_id where queue = :queue and model = :model")


# In the order of an index, so that what has ended is not looked through, whatever the statistics say.
_IS_ANYTHING_OPEN = text(
    """
    select coalesce(
        (select true from failed_requests where state = 'parked' order by created_at limit 1),
        (select true from failed_calls where state in ('parked', 'replaying') order by id limit 1),
        false)
    """
)

_COUNT = Template(
    "select count(*) from (select from $table where state = 'replaying' and $under_way limit :most) counted"
)

# One row for each model group of which something is parked; the groups are found by leaps through the index.
_GROUP = Template(
    """
    with recursive groups as (
        (select model from $table where state = 'parked' order by model limit 1)
        union all
        select (select f.model from $table f where f.state = 'parked' and f.model > groups.model
                order by f.model limit 1)
        from groups where groups.model is not null
    )
    select groups.model, coalesce(allowed, 1) as allowed,
           extract(epoch from now() - answered_at)::double precision as seconds_since_answer,
           extract(epoch from now() - turned_away_at)::double precision as seconds_since_turned_away,
           (select count(*) from (select from $table f where f.model = groups.model
             and f.state = 'replaying' and $under_way limit :most) counted) as replaying,
           (select count(*) from (select from $table f where f.model = groups.model
             and f.state = 'answered' and f.updated_at > since limit :most) counted) as answered,
           (select count(*) from (select from $table f where f.model = groups.model
             and f.state = 'parked' and $parked_again and f.updated_at > since
             and f.error_type <> all (:of_our_own_making) limit :most) counted) as turned_away
    from groups
    left join drains on drains.queue = :queue and drains.model = groups.model
    cross join lateral (select greatest(passed_at, now() - make_interval(secs => :longest_seconds)) as since) pass
    where groups.model is not null
    """
)

# `turns` goes round the tenants once, from the one behind who was served last, until enough have something due.
_CHOICE = Template(
    """
    with recursive served as (
        select coalesce(max(served_tenant), '') as tenant_id from drains where queue = :queue and model = :model
    ),
    turns (turn, lap, tenant_id, is_due, due) as (
        select 0, 0, tenant_id, false, 0 from served
        union all
        select turn + 1, next.lap, next.tenant_id, next_try_at <= now(), due + (next_try_at <= now())::integer
        from turns cross join lateral (
            (select turns.lap as lap, f.tenant_id, f.next_try_at from $table f
             where f.state = 'parked' and f.model = :model and f.tenant_id > turns.tenant_id
               and (turns.lap = 0 or f.tenant_id <= (select tenant_id from served))
             order by f.tenant_id, f.next_try_at limit 1)
            union all
            (select 1, f.tenant_id, f.next_try_at from $table f
             where f.state = 'parked' and f.model = :model and turns.lap = 0
               and f.tenant_id <= (select tenant_id from served)
             order by f.tenant_id, f.next_try_at limit 1)
            order by lap limit 1
        ) next
        where due < :limit
    ),
    chosen as (
        select key, turn, row_number() over (partition by turn order by created_at, key) as round
        from turns cross join lateral (
            select f.$key as key, f.created_at from $table f
            where f.state = 'parked' and f.model = :model and f.tenant_id = turns.tenant_id and f.next_try_at <= now()
            order by f.next_try_at limit (select 1 + $longest_due / greatest(1, max(due)) from turns)
        ) longest_due
        where is_due order by round, turn limit :limit
    )
    """
)


def build_choice(of: DrainedTable, then: str) -> TextClause:
    """A statement on `chosen (key, turn, round)`: who is next of a model group, in the order they are to go."""
    return text(f"{_CHOICE.substitute(asdict(of), longest_due=LONGEST_DUE)}, {then}")


def _build_groups(of: DrainedTable) -> TextClause:
    return text(_GROUP.substitute(asdict(of))).bindparams(bindparam("of_our_own_making", type_=ARRAY(Text)))


_COUNTS: Final = {of.queue: text(_COUNT.substitute(asdict(of))) for of in (JOBS, CALLS)}
_GROUPS: Final = {of.queue: _build_groups(of) for of in (JOBS, CALLS)}


async def try_lock(connection: AsyncConnection, of: DrainedTable) -> bool:
    """Whether this transaction alone may release; two at once would each fill the same room."""
    return bool(await connection.scalar(_LOCK, {"key": _LOCKS[of.queue]}))


async def is_anything_open(connection: AsyncConnection) -> bool:
    """Whether a pass could find anything to do: a job that is parked, or a call that waits or is asked again."""
    return bool(await connection.scalar(_IS_ANYTHING_OPEN))


async def read_slots(connection: AsyncConnection) -> int | None:
    """How many jobs the workers that live can hold at once; None if none has told."""
    slots: int | None = await connection.scalar(_SLOTS, {"seen_seconds": WORKER_SEEN_SECONDS})
    return slots


async def count_replaying(connection: AsyncConnection, of: DrainedTable) -> int:
    """Replays under way, of all groups."""
    return int(await connection.scalar(_COUNTS[of.queue], {"most": MOST_COUNTED}) or 0)


async def read_groups(connection: AsyncConnection, of: DrainedTable) -> list[DrainedGroup]:
    """How the replays go of each model group of which something is parked, by the database's clock."""
    parameters = {
        "queue": of.queue,
        "most": MOST_COUNTED,
        "longest_seconds": PACE_LASTS_SECONDS,
        "of_our_own_making": list(OF_OUR_OWN_MAKING),
    }
    rows = await connection.execute(_GROUPS[of.queue], parameters)
    return [
        DrainedGroup(
            row.model,
            row.replaying,
            row.answered,
            row.turned_away,
            Pace(row.allowed, row.seconds_since_answer, row.seconds_since_turned_away),
        )
        for row in rows
    ]


async def save_pace(connection: AsyncConnection, of: DrainedTable, group: DrainedGroup, most: int) -> None:
    """What the next pass goes by."""
    parameters = {
        "queue": of.queue,
        "model": group.model,
        "allowed": decide_pace(group, most).allowed,
        "is_answered": group.answered > 0,
        "is_turned_away": group.turned_away > 0,
    }
    await connection.execute(_SAVE, parameters)


async def save_turn(connection: AsyncConnection, of: DrainedTable, model: str, tenant_id: str) -> None:
    """Whose turn it was last."""
    await connection.execute(_SAVE_TURN, {"queue": of.queue, "model": model, "tenant_id": tenant_id})
