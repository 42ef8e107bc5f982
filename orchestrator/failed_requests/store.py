"""Every query on failed requests and rejected messages; each runs inside the caller's transaction."""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from orchestrator.failed_requests.policy import RECENT_SECONDS, DrainPulse
from orchestrator.jobs.store import Claim
from orchestrator.jobs.sweeps import Waiting
from shared.errors import InputError

MAX_EVIDENCE_CHARACTERS: Final = 10_000

_PARK = text(
    """
    insert into failed_requests (id, tenant_id, job_id, state, parks, next_try_at, error_type, error_message)
    values (:id, :tenant_id, :job_id, 'parked', 1, now() + make_interval(secs => :delay_seconds),
            :error_type, :error_message)
    on conflict (job_id) do update
    set state = 'parked', parks = failed_requests.parks + 1, next_try_at = excluded.next_try_at,
        error_type = excluded.error_type, error_message = excluded.error_message, updated_at = now()
    returning id
    """
)

_END = text(
    """
    update failed_requests set state = :state, updated_at = now()
    where job_id = :job_id and state in ('parked', 'replaying')
    """
)

_PULSE = text(
    """
    select (select count(*) from failed_requests where state = 'replaying') as replaying,
           (select count(*) from failed_requests
            where state = 'answered' and updated_at > now() - make_interval(secs => :recent_seconds))
               as answered_lately,
           extract(epoch from now() - (select max(updated_at) from failed_requests where state = 'answered'))
               ::double precision as seconds_since_answer,
           extract(epoch from now() - (select max(updated_at) from failed_requests where state = 'parked'))
               ::double precision as seconds_since_parking
    """
)

_RELEASE = text(
    """
    with due as (
        select id, job_id from failed_requests where state = 'parked' and next_try_at <= now()
        order by next_try_at limit :limit for update skip locked
    ),
    released as (
        update failed_requests set state = 'replaying', updated_at = now() where id in (select id from due)
    )
    update jobs set state = 'queued', dispatched_at = now()
    where id in (select job_id from due) and state = 'parked'
    returning id, tenant_id, task_id
    """
)

_REJECT = text(
    "insert into rejected_messages (id, task_id, error, evidence) values (:id, :task_id, :error, :evidence)"
).bindparams(bindparam("error", type_=JSONB))


async def park(
    connection: AsyncConnection, claimed: Claim, *, error_type: str, error_message: str, delay_seconds: float
) -> UUID:
    """Keep a job until later; returns the failed request's id, the same one each time it is parked."""
    parameters = {
        "id": uuid7(),
        "tenant_id": claimed.tenant_id,
        "job_id": claimed.job_id,
        "error_type": error_type,
        "error_message": error_message,
        "delay_seconds": delay_seconds,
    }
    request_id: UUID = (await connection.execute(_PARK, parameters)).scalar_one()
    return request_id


async def end(connection: AsyncConnection, job_id: UUID, *, answered: bool) -> None:
    """The job came to a final state; nothing happens if it never was parked."""
    await connection.execute(_END, {"job_id": job_id, "state": "answered" if answered else "discarded"})


async def read_pulse(connection: AsyncConnection) -> DrainPulse:
    """How the drain goes, by the database's clock."""
    row = (await connection.execute(_PULSE, {"recent_seconds": RECENT_SECONDS})).one()
    return DrainPulse(row.replaying, row.answered_lately, row.seconds_since_answer, row.seconds_since_parking)


async def release(connection: AsyncConnection, *, limit: int) -> list[Waiting]:
    """Send back parked jobs whose time has come, the longest due first."""
    rows = await connection.execute(_RELEASE, {"limit": limit})
    return [Waiting(row.id, row.tenant_id, row.task_id) for row in rows]


async def keep_rejected(
    connection: AsyncConnection, *, task_id: str | None, error: InputError, evidence: object
) -> None:
    """Keep what a producer sent that could not become a job. Anything at all can be evidence."""
    parameters: dict[str, Any] = {
        "id": uuid7(),
        "task_id": task_id,
        "error": error.as_dict(),
        "evidence": _printable(evidence),
    }
    await connection.execute(_REJECT, parameters)


def _printable(evidence: object) -> str:
    """Escaped, so that NULs and lone surrogates are shown instead of stored."""
    text_form = evidence if isinstance(evidence, str) else repr(evidence)
    cut = text_form[:MAX_EVIDENCE_CHARACTERS]
    return cut.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
