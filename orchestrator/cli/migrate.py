"""`llmyard migrate`: bring the database to this version's tables."""

import asyncio
from contextlib import aclosing

import typer

from orchestrator.agents.catalog import ensure_default_tenant
from orchestrator.wiring import open_database
from shared import migrations
from shared.database import DATABASE_ERRORS, describe_fault
from shared.errors import ConfigurationError
from shared.settings import Settings, load_settings


def migrate() -> None:
    """Make or update the tables, the two working roles and the default tenant. Needs the owner's DATABASE_URL."""
    settings = load_settings()
    try:
        migrations.upgrade(settings.require_database_url())
    except (*DATABASE_ERRORS, ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"The database cannot be migrated ({describe_fault(error)}): set DATABASE_URL to one that can be reached, "
            "with the login that owns its tables and may create roles."
        ) from error
    asyncio.run(_seed(settings))
    typer.echo("The database is up to date.")


async def _seed(settings: Settings) -> None:
    async with aclosing(await open_database(settings)) as database:
        await ensure_default_tenant(database)
