"""Batches: one row for each, with how far it was taken in, fed to the workers, and answered.

Their lines are ordinary jobs. A job's id is its batch's id with the number of the line in its last 32 bits, so that the
lines of a batch lie side by side, in their order, in every index that begins with a job's id.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

OWN_TENANT = "(select nullif(current_setting('llmyard.tenant_id', true), ''))"

# The system role feeds every tenant's batches, and is kept from reading what they ask (`options`).
UPGRADE = (
    """
    create table batches (
        id             uuid        constraint batches_pkey primary key,
        tenant_id      text        not null,
        fingerprint    text        not null,
        generation     integer     not null default 1,
        parent_id      uuid,
        name           text        not null,
        shape          text        not null,
        options        jsonb       not null default '{}',
        limit_usd      numeric(18, 9),
        state          text        not null default 'importing',
        imported_lines integer     not null default 0,
        total_lines    integer,
        fed_line       integer     not null default 0,
        settled_lines  integer     not null default 0,
        fed_at         timestamptz not null default now(),
        created_at     timestamptz not null default now(),
        finished_at    timestamptz,
        constraint batches_tenant_id_fingerprint_generation_key unique (tenant_id, fingerprint, generation),
        constraint batches_shape_check check (shape in ('openai', 'prompts')),
        constraint batches_state_check check (state in ('importing', 'running', 'done', 'cancelling', 'cancelled'))
    ) with (fillfactor = 50)
    """,
    "create index batches_open_idx on batches (id) where finished_at is null",
    "create index batches_parent_id_idx on batches (parent_id) where parent_id is not null",
    "grant select, insert, update on batches to llmyard_app",
    """
    grant select (id, tenant_id, state, imported_lines, total_lines, fed_line, settled_lines, fed_at, finished_at),
          update (state, fed_line, settled_lines, fed_at, finished_at)
    on batches to llmyard_system
    """,
    "alter table batches enable row level security",
    "alter table batches force row level security",
    f"create policy own_tenant on batches to llmyard_app using (tenant_id = {OWN_TENANT})",
    "create policy every_tenant on batches to llmyard_system using (true)",
)
DOWNGRADE = ("drop table batches",)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
