"""The workers that live: who they are, how many jobs each can hold, and when it was last seen to work."""

from collections.abc import Sequence

from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Each row is written again at every beat: room on its page, and no index on what changes.
UPGRADE = (
    """
    create table workers (
        name        text        constraint workers_pkey primary key,
        node        text        not null,
        concurrency integer     not null,
        started_at  timestamptz not null default now(),
        seen_at     timestamptz not null default now(),
        polled_at   timestamptz not null default now(),
        is_stopping boolean     not null default false
    ) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)
    """,
    "grant select, insert, update, delete on workers to llmyard_system",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("drop table workers")
