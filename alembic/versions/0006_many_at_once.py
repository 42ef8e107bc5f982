"""Many jobs in one statement: what that asks of the tables, and what each row need not cost.

A job's last update is heap-only now: no index looks at what it changes. `queued_at` is kept by Postgres itself, so that
no statement can forget it; jobs of a batch, which are fed in slices, never have one. The cold tables name their job
without a foreign key: each is written by the statement that holds the job's row, and the check was a third of its cost.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

WITHOUT_KEYS = ("messages", "runs", "leases", "attempts", "results")

# Room on its page for the one update a run gets, at its end.
UPGRADE = (
    *(f"alter table {table} drop constraint {table}_job_id_fkey" for table in WITHOUT_KEYS),
    "drop index jobs_queued_idx",
    "drop index jobs_task_id_idx",
    """
    alter table jobs
    add column batch_id uuid,
    add column queued_at timestamptz
        generated always as (case when state = 'queued' and batch_id is null then dispatched_at end) stored
    """,
    "create index jobs_queued_at_idx on jobs (queued_at) where queued_at is not null",
    "create index jobs_task_id_idx on jobs (task_id) where batch_id is null",
    "alter table runs set (fillfactor = 50)",
    "alter table attempts drop constraint attempts_pkey, drop constraint attempts_job_id_run_position_key",
    "alter table attempts drop column id, add constraint attempts_pkey primary key (job_id, run, position)",
    "grant select (id) on tenants to llmyard_system",
    "grant insert, select (job_id, tenant_id, message_id) on messages to llmyard_system",
)
DOWNGRADE = (
    "revoke insert, select (job_id, tenant_id, message_id) on messages from llmyard_system",
    "revoke select (id) on tenants from llmyard_system",
    "alter table attempts drop constraint attempts_pkey",
    """
    alter table attempts
    add column id bigint generated always as identity constraint attempts_pkey primary key,
    add constraint attempts_job_id_run_position_key unique (job_id, run, position)
    """,
    "alter table runs reset (fillfactor)",
    "drop index jobs_task_id_idx",
    "drop index jobs_queued_at_idx",
    "alter table jobs drop column queued_at, drop column batch_id",
    "create index jobs_queued_idx on jobs (dispatched_at) where state = 'queued'",
    "create index jobs_task_id_idx on jobs (task_id) where finished_at is null",
    *(
        f"alter table {table} add constraint {table}_job_id_fkey"
        " foreign key (job_id) references jobs (id) on delete cascade"
        for table in WITHOUT_KEYS
    ),
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
