"""The ledger: tenants, agents, jobs and what becomes of them; the two working roles and what each may see.

Plain SQL, since most of it (roles, policies, storage settings) has no other form. `shared.models` describes the
same tables to Python, and a test holds the two together.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TENANT_TABLES = (
    "agents", "jobs", "messages", "runs", "attempts", "results", "waiting_tasks", "failed_requests",
)  # fmt: skip

TABLES = """
create table tenants (
    id               text        constraint tenants_pkey primary key,
    name             text        not null,
    default_agent_id text        not null,
    created_at       timestamptz not null default now()
);

create table agents (
    tenant_id        text        not null constraint agents_tenant_id_fkey references tenants (id) on delete cascade,
    id               text        not null,
    name             text        not null,
    role             text        not null,
    persona          text,
    system_prompt    text,
    model_preference text        not null default 'quality',
    tool_assignments jsonb       not null default '[]',
    escalation_rules jsonb       not null default '[]',
    is_active        boolean     not null default true,
    created_at       timestamptz not null default now(),
    updated_at       timestamptz not null default now(),
    constraint agents_pkey primary key (tenant_id, id)
);

-- Half-empty pages leave room for heap-only updates; vacuum follows every few thousand of them, however many rows.
create table jobs (
    id            uuid        constraint jobs_pkey primary key,
    tenant_id     text        not null,
    task_id       text        not null,
    state         text        not null,
    run           integer     not null default 0,
    crash_count   integer     not null default 0,
    worker        text,
    lease_until   timestamptz,
    created_at    timestamptz not null default now(),
    dispatched_at timestamptz not null default now(),
    finished_at   timestamptz,
    constraint jobs_state_check check (state in
        ('queued', 'running', 'parked', 'succeeded', 'failed', 'cancelled', 'discarded', 'quarantined'))
) with (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
create index jobs_open_idx on jobs (created_at) where finished_at is null;

create table messages (
    job_id      uuid        constraint messages_pkey primary key
                            constraint messages_job_id_fkey references jobs (id) on delete cascade,
    tenant_id   text        not null,
    message_id  text        not null,
    body        jsonb       not null,
    received_at timestamptz not null default now(),
    constraint messages_tenant_id_message_id_key unique (tenant_id, message_id)
);

create table runs (
    job_id        uuid        not null constraint runs_job_id_fkey references jobs (id) on delete cascade,
    number        integer     not null,
    tenant_id     text        not null,
    worker        text        not null,
    started_at    timestamptz not null default now(),
    ended_at      timestamptz,
    outcome       text,
    error_type    text,
    error_message text,
    constraint runs_pkey primary key (job_id, number)
);

create table attempts (
    id                bigint generated always as identity constraint attempts_pkey primary key,
    job_id            uuid             not null constraint attempts_job_id_fkey references jobs (id) on delete cascade,
    run               integer          not null,
    position          integer          not null,
    tenant_id         text             not null,
    deployment        text             not null,
    provider          text             not null,
    model             text             not null,
    started_at        timestamptz      not null,
    latency_seconds   double precision not null,
    prompt_tokens     integer,
    completion_tokens integer,
    cost_usd          numeric(18, 9),
    error_type        text,
    error_message     text,
    constraint attempts_job_id_run_position_key unique (job_id, run, position)
);

create table results (
    job_id     uuid        constraint results_pkey primary key
                           constraint results_job_id_fkey references jobs (id) on delete cascade,
    tenant_id  text        not null,
    run        integer     not null,
    body       jsonb       not null,
    created_at timestamptz not null default now()
);

create table waiting_tasks (
    job_id    uuid not null constraint waiting_tasks_job_id_fkey references jobs (id) on delete cascade,
    task_id   text not null,
    tenant_id text not null,
    constraint waiting_tasks_pkey primary key (job_id, task_id)
);

create table failed_requests (
    id            uuid        constraint failed_requests_pkey primary key,
    tenant_id     text        not null,
    job_id        uuid        not null constraint failed_requests_job_id_key unique
                              constraint failed_requests_job_id_fkey references jobs (id) on delete cascade,
    operation     text        not null default 'message',
    state         text        not null,
    parks         integer     not null,
    next_try_at   timestamptz not null,
    error_type    text        not null,
    error_message text        not null,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    constraint failed_requests_state_check check (state in ('parked', 'replaying', 'answered', 'discarded'))
);
create index failed_requests_due_idx on failed_requests (next_try_at) where state = 'parked';
create index failed_requests_state_updated_at_idx on failed_requests (state, updated_at);

create table rejected_messages (
    id          uuid        constraint rejected_messages_pkey primary key,
    task_id     text,
    error       jsonb       not null,
    evidence    text        not null,
    received_at timestamptz not null default now()
);
"""

# Roles belong to the cluster, not to the database: another database may have made them, perhaps at this very moment.
# Since Postgres 16 whoever makes a role is a member that may not become it, until it grants that to itself.
ROLES = """
do $$
declare
    role_name text;
    membership text := case when current_setting('server_version_num')::integer < 160000 then 'member' else 'set' end;
begin
    foreach role_name in array array['llmyard_app', 'llmyard_system'] loop
        if not exists (select from pg_roles where rolname = role_name) then
            begin
                execute format('create role %I nologin nosuperuser nobypassrls', role_name);
            exception when duplicate_object or unique_violation then null;
            end;
        end if;
        if not pg_has_role(current_user, role_name, membership) then
            execute format('grant %I to current_user', role_name);
        end if;
    end loop;
    execute format('grant usage on schema %I to llmyard_app, llmyard_system', current_schema());
end $$;
"""

# The system role works for all tenants at once, so it is kept from reading what they asked and what they got.
GRANTS = """
grant select, insert, update, delete on tenants, agents to llmyard_app;
grant select, insert, update on jobs, runs, failed_requests to llmyard_app, llmyard_system;
grant select, insert on messages, results to llmyard_app;
grant insert on results to llmyard_system;
grant select, insert on attempts to llmyard_app, llmyard_system;
grant select, insert, delete on waiting_tasks to llmyard_app, llmyard_system;
grant select, insert on rejected_messages to llmyard_system;
"""

# The sub-select is evaluated once a statement instead of once a row; an unset tenant sees nothing.
OWN_TENANT = "(select nullif(current_setting('llmyard.tenant_id', true), ''))"


def upgrade() -> None:
    execute_each(TABLES)
    op.execute(ROLES)
    execute_each(GRANTS)
    protect("tenants", "id")
    for table in TENANT_TABLES:
        protect(table, "tenant_id")


def execute_each(script: str) -> None:
    """asyncpg takes one statement at a time."""
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)


def protect(table: str, column: str) -> None:
    """Bind even the owner: a tenant sees its own rows, the system role all it was granted."""
    op.execute(f"alter table {table} enable row level security")
    op.execute(f"alter table {table} force row level security")
    op.execute(f"create policy own_tenant on {table} to llmyard_app using ({column} = {OWN_TENANT})")
    op.execute(f"create policy every_tenant on {table} to llmyard_system using (true)")


def downgrade() -> None:
    """The roles stay: they belong to the cluster, and other databases in it may use them."""
    op.execute("drop table rejected_messages, tenants cascade")
    op.execute(f"drop table {', '.join(TENANT_TABLES)} cascade")
    op.execute("do $$ begin execute format('revoke usage on schema %I from llmyard_app, llmyard_system', "
               "current_schema()); end $$")  # fmt: skip
