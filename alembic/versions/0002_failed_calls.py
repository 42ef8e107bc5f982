"""Calls of the library that nobody could answer, kept to be asked again.

They belong to no job: a job's own failed requests stay where they are. The policies are those of every table with a
tenant, written out here, as a migration does not change when an earlier one is read anew.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

OWN_TENANT = "(select nullif(current_setting('llmyard.tenant_id', true), ''))"

# The system role claims for all tenants at once, so it sees the narrow columns only, and never what was asked.
STATEMENTS = (
    """
    create table failed_calls (
        id            uuid        constraint failed_calls_pkey primary key,
        tenant_id     text        not null,
        operation     text        not null,
        model         text        not null,
        request       jsonb       not null,
        state         text        not null,
        tries         integer     not null default 0,
        lease_until   timestamptz,
        error_type    text        not null,
        error_message text        not null,
        response      jsonb,
        created_at    timestamptz not null default now(),
        updated_at    timestamptz not null default now(),
        constraint failed_calls_state_check check (state in ('parked', 'replaying', 'answered', 'discarded'))
    )
    """,
    "create index failed_calls_open_idx on failed_calls (id) where state in ('parked', 'replaying')",
    "grant select, insert, update on failed_calls to llmyard_app",
    """
    grant select (id, tenant_id, operation, model, state, tries, lease_until, created_at, updated_at),
          update (state, tries, lease_until, updated_at) on failed_calls to llmyard_system
    """,
    "alter table failed_calls enable row level security",
    "alter table failed_calls force row level security",
    f"create policy own_tenant on failed_calls to llmyard_app using (tenant_id = {OWN_TENANT})",
    "create policy every_tenant on failed_calls to llmyard_system using (true)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("drop table failed_calls")
