"""Runs migrations as the owner of the tables, one process at a time."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text

from shared.database import create_engine
from shared.models import metadata
from shared.settings import load_settings

# Any number works, as long as every llmyard uses the same one.
MIGRATION_LOCK = 6_215_473_012


def run_migrations(connection: Connection) -> None:
    """One transaction for all of them: a failing migration leaves nothing half made."""
    context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
    with context.begin_transaction():
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        context.run_migrations()


async def run_online() -> None:
    engine = create_engine(context.config.attributes.get("url") or load_settings().require_database_url())
    async with engine.connect() as connection:
        await connection.run_sync(run_migrations)
    await engine.dispose()


if context.is_offline_mode():
    raise SystemExit("Offline migrations are not supported: the roles can only be made in a running database.")
asyncio.run(run_online())
