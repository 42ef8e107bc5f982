"""`llmyard failed`, as a person at a terminal and a script see it."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from llm_pool.types import ChatMessage, CompletionRequest
from orchestrator.agents.catalog import ensure_default_tenant
from orchestrator.cli.main import app
from orchestrator.failed_requests.calls import PostgresFailedCalls
from orchestrator.outcomes import Parked
from shared.database import Database, create_engine, plain_dsn
from shared.errors import InputError, LLMUnavailableError, NotFoundError
from tests.builders import build_attempt, build_message
from tests.ledger import Jobs
from tests.running import build_recorder

UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture
def parked(database_url: str, broker: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A job and a call, by their ids; made before the commands run, each of which has a loop of its own."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    return asyncio.run(park(database_url))


async def park(database_url: str) -> tuple[str, str]:
    database = Database(create_engine(database_url), create_engine(database_url))
    await ensure_default_tenant(database)
    claim = await Jobs(database).add_and_claim(build_message(content="what was asked"))
    assert claim
    attempts = (build_attempt(error_type="LLMOverloadedError"),)
    recorded = await build_recorder(database).record(claim, Parked("LLMUnavailableError", "all down", 3600.0, attempts))
    request = CompletionRequest("fast", (ChatMessage("user", "hello"),), tenant_id="acme")
    call = await PostgresFailedCalls(database).add("chat", request, LLMUnavailableError())
    await database.aclose()
    assert recorded.result
    return recorded.result["failed_request_id"], call


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["failed", *words])


def read(*words: str) -> Any:
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_look_replay_and_discard(parked: tuple[str, str]) -> None:
    job, call = parked
    listed = run("list").stdout
    assert all(text in listed for text in (job, call, "LLMUnavailableError", "in 3,", "acme", "parked under a minute"))
    assert "parked under a minute" in run("list", "--stats").stdout
    assert job not in run("list", "--stats").stdout
    shown = run("show", job).stdout
    assert all(text in shown for text in (job, "all down", "what was asked", "LLMOverloadedError"))

    assert run("discard", job, "--reason", "not wanted").stdout == f"{job} is discarded\n"
    assert run("replay", call).stdout == f"{call} is replaying\n"
    states = {entry["id"]: entry["state"] for entry in read("list")["failed_requests"]}
    assert states == {job: "discarded", call: "replaying"}


def test_everything_as_json(parked: tuple[str, str]) -> None:
    job, call = parked
    page = read("list", "--limit", "1")
    assert ([entry["id"] for entry in page["failed_requests"]], page["next"]) == ([call], call)
    assert page["stats"]["by_state"]["parked"]["number"] == 2
    assert [entry["id"] for entry in read("list", "--after", call)["failed_requests"]] == [job]
    assert read("list", "--tenant", "acme", "--model", "fast")["failed_requests"][0]["id"] == call
    assert read("list", "--stats").keys() == {"stats"}
    assert read("show", job)["params"]["content"] == "what was asked"
    assert read("replay", "--tenant", "acme") == {"replayed": 1}
    assert read("replay", "--all") == {"replayed": 1}
    assert run("replay", "--all").stdout == "0 sent back\n"


RETURNING = """
create function come_back() returns trigger language plpgsql as $$ begin new.state := 'parked'; return new; end $$;
create trigger come_back before update on failed_calls for each row when (new.state = 'replaying')
execute function come_back();
insert into failed_calls (id, tenant_id, operation, model, request, state, error_type, error_message)
select gen_random_uuid(), 'acme', 'chat', 'fast', '{}', 'parked', 'T', 'm' from generate_series(1, 2000)
"""
"""Many calls, each of which is turned away again at once."""


def test_what_comes_back_meanwhile_is_not_sent_again(parked: tuple[str, str], database_url: str) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(plain_dsn(database_url))
        await connection.execute(RETURNING)
        await connection.close()

    asyncio.run(execute())
    assert read("replay", "--all") == {"replayed": 2002}


@pytest.mark.parametrize(("option", "value"), [("--state", "lost"), ("--operation", "sing")])
def test_a_list_of_what_cannot_be_is_refused(option: str, value: str) -> None:
    done = run("list", option, value)
    assert (done.exit_code, value in done.stderr) == (2, True)


def test_one_that_cannot_be_changed_does_not_keep_the_others(parked: tuple[str, str]) -> None:
    job, _ = parked
    done = run("discard", UNKNOWN, job)
    assert (done.exit_code, done.stdout) == (2, f"{job} is discarded\n")
    assert f"no failed request {UNKNOWN}" in done.stderr
    assert isinstance(run("show", UNKNOWN).exception, NotFoundError)


@pytest.mark.parametrize("words", [(), (UNKNOWN, "--all"), ("--tenant", "acme", "--all")])
def test_replay_wants_to_know_exactly_what(words: tuple[str, ...]) -> None:
    assert isinstance(run("replay", *words).exception, InputError)
