"""Jobs that kill whoever runs them, among many that do not: only they are given up, and everybody else is answered."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from orchestrator.jobs import store
from orchestrator.jobs.lifecycle import MAX_CRASHES
from orchestrator.messages import parse_message
from orchestrator.stack.children import Child
from shared.database import Database, create_engine
from tests.acceptance.yard import Yard, build_message, wait_until

pytestmark = pytest.mark.long

CATALOG = """
deployments:
  - {{name: counted, provider: openai_compatible, model: m, base_url: "{url}", api_key: none}}
  - {{name: poisonable, provider: sync, model: m, options: {{adapter: "tests.fakes.poison:adapter"}}}}
groups:
  quality: {{deployments: [counted], retries: 0}}
  poison: {{deployments: [poisonable], retries: 0}}
"""
HARMS = {"please crash": "SIGSEGV", "please eat": "SIGKILL"}
"""What is asked, and what the evidence must name."""
ROOT = Path(__file__).parents[2]
WAITS = """
select extract(epoch from finished_at - created_at)::float from jobs join messages on id = job_id
where message_id like $1 order by 1
"""
WITHOUT_A_RUN = """
select count(*) from messages join (select job_id, count(*) as runs from runs group by job_id) r using (job_id)
where r.runs < $2 and message_id = $1
"""


@pytest.fixture
def poisoned(yard: Yard) -> Yard:
    """Its workers can be asked for harm."""
    Path(yard.environment["LLMYARD_CONFIG"]).write_text(CATALOG.format(url=yard.model.url))
    yard.environment["PYTHONPATH"] = str(ROOT)
    yard.environment["POISON_FILE"] = os.devnull
    return yard


def test_poison_among_innocents_is_all_that_is_quarantined(poisoned: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    poisoned.model.delay_seconds = 0.2
    poisoned.start_beat()
    with supervised(poisoned, "first", "second") as deaths:
        undisturbed = [f"undisturbed{n}" for n in range(200)]
        for reply in poisoned.send(undisturbed):
            reply.get(timeout=60)
        assert not deaths
        innocents = [f"innocent{n}" for n in range(200)]
        replies = poisoned.send(innocents[:20])
        poisons = poisoned.send_messages([build_message(harm, model="poison") for harm in HARMS])
        replies += poisoned.send(innocents[20:])
        said = [str(reply.get(timeout=90)) for reply in poisons]
        answers = [reply.get(timeout=90) for reply in replies]

    assert [answer["content"] for answer in answers] == [f"answer to {content}" for content in innocents]
    assert len(deaths) <= len(HARMS), "only those that were not yet suspects took a worker with them"
    for words, evidence in zip(said, HARMS.values(), strict=True):
        assert f"{MAX_CRASHES} runs ended without an outcome: run 1 was not heard of again" in words
        assert f"run {MAX_CRASHES} was ended by {evidence}" in words
    states = {row["state"]: row["n"] for row in poisoned.rows("select state, count(*) as n from jobs group by state")}
    assert states == {"succeeded": 400, "quarantined": len(HARMS)}
    for content, calls in poisoned.model.calls.items():
        assert poisoned.count(WITHOUT_A_RUN, content, calls) == 0, f"{content} was asked {calls} times"
    with capsys.disabled():
        calm, harmed = (find_p95(poisoned, f"{kind}%") for kind in ("undisturbed", "innocent"))
        print(f"\np95 wait: {calm:.1f} s undisturbed, {harmed:.1f} s beside poison; {len(deaths)} workers died")


def test_a_suspect_does_not_outlive_its_worker(poisoned: Yard) -> None:
    poisoned.model.delay_seconds = 60
    worker = poisoned.start_worker()
    send_suspect(poisoned, "suspect")
    wait_until(lambda: poisoned.model.calls["suspect"] == 1, seconds=20)
    os.kill(worker.pid, signal.SIGKILL)
    killed_at = time.monotonic()
    wait_until(lambda: poisoned.model.hung_up == 1, seconds=5)
    assert time.monotonic() - killed_at < 3

    poisoned.model.delay_seconds = 0
    poisoned.start_beat()
    second = poisoned.start_worker("second")
    wait_until(lambda: poisoned.count("select count(*) from results") == 1, seconds=30)
    assert poisoned.count("select count(*) from jobs where state = 'succeeded'") == 1
    assert "suspect_isolated" in second.new_log()


@contextmanager
def supervised(yard: Yard, *names: str) -> Iterator[list[str]]:
    """Workers that are started again when they die; yields how each of them did."""
    deaths: list[str] = []
    workers = {name: yard.start_worker(name) for name in names}
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(yard, workers, deaths, ended))
    thread.start()
    try:
        yield deaths
    finally:
        ended.set()
        thread.join(60)


def _watch(yard: Yard, workers: dict[str, Child], deaths: list[str], ended: threading.Event) -> None:
    while not ended.wait(0.1):
        for name, worker in workers.items():
            if worker.exit_status() is not None:
                deaths.append(worker.describe_exit())
                workers[name] = yard.start_worker(name)


def send_suspect(yard: Yard, content: str) -> None:
    """A job whose runs have crashed twice already."""
    job_id = uuid7()
    asyncio.run(add_job(yard.database_url, job_id, content))
    yard.rows("update jobs set crash_count = 2")
    yard.producer().send_task("run_job", ["default", str(job_id)])


async def add_job(database_url: str, job_id: UUID, content: str) -> None:
    engine = create_engine(database_url)
    database = Database(engine, engine)
    async with database.as_tenant("default") as connection:
        await store.add(connection, job_id, parse_message(build_message(content)), "task-1")
    await database.aclose()


def find_p95(yard: Yard, pattern: str) -> float:
    waits = [row[0] for row in yard.rows(WAITS, pattern)]
    return float(waits[len(waits) * 95 // 100])
