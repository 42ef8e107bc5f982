"""`llmyard cancel`, as a person at a terminal sees it."""

import asyncio

import pytest
from typer.testing import CliRunner

from orchestrator.agents.catalog import ensure_default_tenant
from orchestrator.cli.main import app
from shared.database import Database, create_engine
from tests.builders import build_message
from tests.ledger import ANSWERED, Jobs

UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture
def made(database_url: str, broker: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A job that waits and one that is answered, by their ids; each command has a loop of its own."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    return asyncio.run(make(database_url))


async def make(database_url: str) -> tuple[str, str]:
    engine = create_engine(database_url)
    database = Database(engine, engine)
    await ensure_default_tenant(database)
    jobs = Jobs(database)
    claim, waiting = await jobs.start(), await jobs.add(build_message())
    assert await jobs.record(claim, ANSWERED)
    await database.aclose()
    return str(waiting), str(claim.job_id)


def test_an_id_of_no_one_does_not_keep_the_others_from_ending(made: tuple[str, str]) -> None:
    waiting, answered = made
    done = CliRunner().invoke(app, ["cancel", UNKNOWN, answered, waiting])
    assert done.exit_code == 2
    assert done.stdout == f"{answered} is succeeded\n{waiting} is cancelled\n"
    assert f"no job {UNKNOWN}" in done.stderr


def test_one_that_had_ended_is_told_by_the_exit_status(made: tuple[str, str]) -> None:
    waiting, answered = made
    assert CliRunner().invoke(app, ["cancel", waiting]).exit_code == 0
    assert CliRunner().invoke(app, ["cancel", waiting, answered]).exit_code == 1
