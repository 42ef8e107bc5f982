"""The drain of what is parked: its pace by model group, and the indexes that keep it cheap at a million rows.

`drains` holds what one pass must know of the one before. Rows that were parked earlier name no group: they form one of
their own until they are parked again.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Vacuum comes early: what has been sent back would otherwise stand in the way of the search for what is due.
UPGRADE = (
    "alter table failed_requests add column model text not null default ''",
    """
    alter table failed_requests set (
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0
    )
    """,
    "drop index failed_requests_due_idx",
    "drop index failed_requests_state_updated_at_idx",
    """
    create index failed_requests_due_idx on failed_requests (model, tenant_id, next_try_at)
    include (created_at, job_id) where state = 'parked'
    """,
    "create index failed_requests_parked_idx on failed_requests (created_at) where state = 'parked'",
    "create index failed_requests_open_idx on failed_requests (tenant_id, id) where state in ('parked', 'replaying')",
    """
    create index failed_requests_again_idx on failed_requests (model, updated_at)
    where state = 'parked' and parks > 1
    """,
    "create index failed_requests_replaying_idx on failed_requests (model) where state = 'replaying'",
    "create index failed_requests_answered_idx on failed_requests (model, updated_at) where state = 'answered'",
    """
    alter table failed_calls add column next_try_at timestamptz not null default now(),
                             add column crash_count integer not null default 0
    """,
    """
    create index failed_calls_due_idx on failed_calls (model, tenant_id, next_try_at)
    include (created_at, id) where state = 'parked'
    """,
    "create index failed_calls_parked_idx on failed_calls (created_at) where state = 'parked'",
    """
    create index failed_calls_again_idx on failed_calls (model, updated_at)
    where state = 'parked' and tries > 0
    """,
    "create index failed_calls_replaying_idx on failed_calls (model) where state = 'replaying'",
    "create index failed_calls_answered_idx on failed_calls (model, updated_at) where state = 'answered'",
    """
    grant select (next_try_at, crash_count, error_type), update (next_try_at, crash_count, error_type, error_message)
    on failed_calls to llmyard_system
    """,
    """
    create table drains (
        queue          text        not null,
        model          text        not null,
        allowed        integer     not null default 1,
        served_tenant  text        not null default '',
        answered_at    timestamptz,
        turned_away_at timestamptz,
        passed_at      timestamptz not null default now(),
        constraint drains_pkey primary key (queue, model),
        constraint drains_queue_check check (queue in ('jobs', 'calls'))
    ) with (fillfactor = 50)
    """,
    "grant select, insert, update on drains to llmyard_system",
)
DOWNGRADE = (
    "drop table drains",
    """
    revoke select (next_try_at, crash_count, error_type), update (next_try_at, crash_count, error_type, error_message)
    on failed_calls from llmyard_system
    """,
    "drop index failed_calls_answered_idx",
    "drop index failed_calls_replaying_idx",
    "drop index failed_calls_again_idx",
    "drop index failed_calls_parked_idx",
    "drop index failed_calls_due_idx",
    "alter table failed_calls drop column next_try_at, drop column crash_count",
    "drop index failed_requests_answered_idx",
    "drop index failed_requests_replaying_idx",
    "drop index failed_requests_again_idx",
    "drop index failed_requests_open_idx",
    "drop index failed_requests_parked_idx",
    "drop index failed_requests_due_idx",
    "create index failed_requests_state_updated_at_idx on failed_requests (state, updated_at)",
    "create index failed_requests_due_idx on failed_requests (next_try_at) where state = 'parked'",
    """
    alter table failed_requests reset (
        autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, autovacuum_vacuum_cost_delay
    )
    """,
    "alter table failed_requests drop column model",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
