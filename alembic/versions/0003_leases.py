"""Leases in a table of their own: exactly the runs in hand, whatever the number of jobs that wait or are done.

A heartbeat and the search for dead runs then touch nothing but this small table, and `jobs` changes only when a state
does. Its indexes lead to the queued, in the order they were dispatched, and from a Celery task to its open job.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

OWN_TENANT = "(select nullif(current_setting('llmyard.tenant_id', true), ''))"

# Room for heap-only updates on every page; vacuum comes early, as rows come and go with every job.
UPGRADE = (
    """
    create table leases (
        job_id      uuid        constraint leases_pkey primary key
                                constraint leases_job_id_fkey references jobs (id) on delete cascade,
        run         integer     not null,
        tenant_id   text        not null,
        worker      text        not null,
        claim_id    uuid        not null,
        lease_until timestamptz not null
    ) with (
        fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0
    )
    """,
    """
    insert into leases (job_id, run, tenant_id, worker, claim_id, lease_until)
    select id, run, tenant_id, worker, id, lease_until from jobs where state = 'running'
    """,
    "drop index jobs_open_idx",
    "alter table jobs drop column worker, drop column lease_until",
    "create index jobs_queued_idx on jobs (dispatched_at) where state = 'queued'",
    "create index jobs_task_id_idx on jobs (task_id) where finished_at is null",
    "grant select, insert, update, delete on leases to llmyard_app, llmyard_system",
    "alter table leases enable row level security",
    "alter table leases force row level security",
    f"create policy own_tenant on leases to llmyard_app using (tenant_id = {OWN_TENANT})",
    "create policy every_tenant on leases to llmyard_system using (true)",
    """
    create table sweeps (
        name       text        constraint sweeps_pkey primary key,
        ran_at     timestamptz not null,
        calm_since timestamptz not null
    )
    """,
    "grant select, insert, update on sweeps to llmyard_system",
)
DOWNGRADE = (
    "drop table sweeps",
    "alter table jobs add column worker text, add column lease_until timestamptz",
    """
    update jobs set worker = leases.worker, lease_until = leases.lease_until from leases
    where id = leases.job_id and state = 'running'
    """,
    "create index jobs_open_idx on jobs (created_at) where finished_at is null",
    "drop index jobs_task_id_idx",
    "drop index jobs_queued_idx",
    "drop table leases",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
