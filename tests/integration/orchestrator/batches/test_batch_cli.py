"""`llmyard batch`, as a person at a terminal and a script see it."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.agents.catalog import ensure_default_tenant
from orchestrator.batches import store
from orchestrator.batches.ids import build_job_id, parse_batch_id
from orchestrator.cli.main import app
from shared.database import Database, create_engine
from shared.errors import InputError, NotFoundError
from shared.settings import child_environment
from tests.ledger import ANSWERED, Jobs

UNKNOWN = "01890a5d-ac96-774b-bcce-b30200000000"


@pytest.fixture(autouse=True)
def stack(database_url: str, broker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each command has a loop and connections of its own."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text('"one"\n"two"\n{\n')
    asyncio.run(with_database(database_url, ensure_default_tenant))


async def with_database(url: str, use: Callable[[Database], Awaitable[None]]) -> None:
    database = Database(create_engine(url), create_engine(url))
    await use(database)
    await database.aclose()


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["batch", *words])


def take_in(*words: str) -> str:
    done = run("run", "in.jsonl", "--model", "fast", "--detach", *words)
    assert done.exit_code == 0, done.stderr
    return done.stderr.split()[1]


def test_a_batch_from_its_beginning_to_its_end(database_url: str) -> None:
    batch_id = take_in("--limit-usd", "5")
    assert f"{batch_id}   in.jsonl   running   3" in run("list").stdout
    assert run("cancel", batch_id).stdout == f"{batch_id} is cancelled\n"
    written = run("run", "--resume", batch_id, "-o", "out.jsonl")
    assert written.exit_code == 0
    assert "3 of 3 lines" in written.stderr
    assert "3 lines have no answer: `llmyard batch show` says why." in written.stderr
    assert [json.loads(line)["line"] for line in Path("out.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert run("retry-failed", batch_id).stdout == "2 lines are asked again\n"
    shown = run("show", batch_id).stdout
    assert "2 cancelled, 1 failed" in shown
    assert "1 × InputError" in shown
    assert "2 queued" in shown


def test_what_scripts_read() -> None:
    batch_id = take_in()
    listed = json.loads(run("list", "--json").stdout)
    shown = json.loads(run("show", batch_id, "--json").stdout)
    assert [batch["id"] for batch in listed] == [batch["id"] for batch in shown] == [batch_id]
    assert shown[0]["states"] == {"queued": 2, "failed": 1}
    assert shown[0]["reasons"][0]["type"] == "InputError"


def test_the_same_command_finds_the_same_batch() -> None:
    assert take_in() == take_in()
    assert take_in("--new") != take_in("--temperature", "0.5")
    assert len(run("list").stdout.splitlines()) == 4


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run"], "input: is missing; name a file, or --resume a batch"),
        (["run", "in.jsonl"], "output: is missing; name a file with -o, or --detach"),
        (["run", "none.jsonl", "-o", "out"], "input: there is no file 'none.jsonl'"),
        (["run", "--resume", UNKNOWN], "output: is missing; name a file with -o"),
        (["run", "in.jsonl", "-o", "out", "--limit-usd", "much"], "limit_usd: 'much' is no amount of money"),
        (["run", "in.jsonl", "-o", "out", "--limit-usd", "0"], "limit_usd: '0' is no amount of money"),
        (["run", "in.jsonl", "-o", "out", "--model", "fast", "--strict"], "line 3, line: is no JSON"),
        (["run", "in.jsonl", "-o", "out", "--model", "none"], "model: there is no model group 'none'; use one of: "),
        (["run", "in.jsonl", "-o", "out", "--tenant", "nobody"], "tenant_id: no tenant 'nobody'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(words: list[str], told: str) -> None:
    done = run(*words)
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith(told)


@pytest.mark.parametrize("command", ["show", "cancel", "retry-failed"])
def test_a_batch_of_no_one(command: str) -> None:
    assert isinstance(run(command, UNKNOWN).exception, NotFoundError)


def test_ctrl_c_leaves_the_batch_running_and_says_how_to_come_back(database_url: str) -> None:
    command = [sys.executable, "-m", "orchestrator.cli.main", "batch", "run", "in.jsonl", "-o", "out.jsonl"]
    environment = child_environment({"PYTHONPATH": str(Path(__file__).parents[4])})
    client = subprocess.Popen([*command, "--model", "fast"], stderr=subprocess.PIPE, text=True, env=environment)
    assert client.stderr
    batch_id = client.stderr.readline().split()[1]
    assert " lines" in client.stderr.readline(), "it is writing"
    client.send_signal(signal.SIGINT)
    told = client.communicate(timeout=30)[1]
    assert "What was taken in goes on without you. To come back, and take in the rest: the same command." in told
    assert client.returncode == 130

    async def answer(database: Database) -> None:
        async with database.as_tenant("default") as connection:
            batch = await store.get(connection, parse_batch_id(batch_id))
        for line in range(1, batch.imported_lines):
            claim = await Jobs(database).claim(build_job_id(batch.id, line))
            assert claim
            result = {**(ANSWERED.result or {}), "state": "succeeded", "job_id": str(claim.job_id)}
            assert await Jobs(database).record(claim, type(ANSWERED)(ANSWERED.state, ANSWERED.outcome, result))

    take_in()
    asyncio.run(with_database(database_url, answer))
    done = run("run", "in.jsonl", "--model", "fast", "-o", "out.jsonl")
    assert done.exit_code == 0
    assert f"batch {batch_id} goes on" in done.stderr
    states = [json.loads(line)["state"] for line in Path("out.jsonl").read_text().splitlines()]
    assert states == ["succeeded", "succeeded", "failed"]
