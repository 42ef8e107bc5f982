"""How a job comes to be a failed request and how that ends; and what could not become a job at all.

Each query runs inside the caller's transaction.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from llm_pool.client.failed_requests import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, bound_asked_seconds
from orchestrator.jobs.statements import fetch
from orchestrator.jobs.store import Claim
from shared.errors import InputError

MAX_EVIDENCE_CHARACTERS: Final = 10_000

# A run that was parked under an agent is parked for that agent's group, unless its message names one.
_PARK = text(
    """
    insert into failed_requests (id, tenant_id, job_id, model, state, parks, next_try_at, error_type, error_message)
    values (
        :id, :tenant_id, :job_id,
        coalesce(cast(:model as text), (
            select model_preference from tenants join agents on agents.tenant_id = tenants.id
            where tenants.id = :tenant_id and agents.id = coalesce(cast(:agent_id as text), default_agent_id)
        ), ''),
        'parked', 1, now() + make_interval(secs => greatest(cast(:asked_seconds as double precision), :first_seconds)),
        :error_type, :error_message
    )
    on conflict (job_id) do update
    set state = 'parked', parks = failed_requests.parks + 1, model = excluded.model,
        next_try_at = now() + make_interval(secs => greatest(
            cast(:asked_seconds as double precision),
            least(:first_seconds * 2.0 ^ least(failed_requests.parks, 30), :longest_seconds)
        )),
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

_END_ALL = text(
    """
    update failed_requests set state = cast(:state as text), updated_at = now()
    where job_id = any (cast(:job_ids as uuid[])) and state in ('parked', 'replaying')
    """
)

_REJECT = text(
    "insert into rejected_messages (id, task_id, error, evidence) values (:id, :task_id, :error, :evidence)"
).bindparams(bindparam("error", type_=JSONB))


async def park(
    connection: AsyncConnection,
    claimed: Claim,
    *,
    error_type: str,
    error_message: str,
    retry_after_seconds: float | None = None,
) -> UUID:
    """Keep a job until later; returns the failed request's id, the same one each time it is parked.

    It is left alone for as long as the provider asked for, and the longer the more often it came back.
    """
    parameters = {
        "id": uuid7(),
        "tenant_id": claimed.tenant_id,
        "job_id": claimed.job_id,
        "model": claimed.message.model,
        "agent_id": claimed.message.agent_id,
        "error_type": error_type,
        "error_message": error_message,
        "asked_seconds": bound_asked_seconds(retry_after_seconds),
        "first_seconds": FIRST_WAIT_SECONDS,
        "longest_seconds": LONGEST_WAIT_SECONDS,
    }
    request_id: UUID = (await connection.execute(_PARK, parameters)).scalar_one()
    return request_id


async def end(connection: AsyncConnection, job_id: UUID, *, answered: bool) -> None:
    """The job came to a final state; nothing happens if it never was parked."""
    await connection.execute(_END, {"job_id": job_id, "state": "answered" if answered else "discarded"})


async def end_all(connection: AsyncConnection, job_ids: Sequence[UUID], *, answered: bool) -> None:
    """Likewise many jobs, which the connection has ended or locked."""
    await fetch(connection, _END_ALL, {"job_ids": job_ids, "state": "answered" if answered else "discarded"})


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
