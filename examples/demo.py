"""The whole of llmyard in a minute, on this machine, without a key: `make demo`.

Starts the embedded stack, sends messages as a foreign program would (Celery and two URLs, nothing of llmyard's), and
shows who answered. Then one provider fails, then all of them, and at the end the books must balance.
"""

import asyncio
import gc
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import yaml
from celery import Celery
from celery.result import AsyncResult
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.stack.configuration import StackOptions
from orchestrator.stack.stack import Stack
from shared.settings import Settings, find_running_stack

HERE = Path(__file__).parent
DATA = HERE.parent / ".demo"
ANSWER_SECONDS = 60

console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
say = console.print


def main() -> None:
    """Exit status 0 means: everything that was enqueued has been answered, once."""
    DATA.mkdir(mode=0o700, exist_ok=True)
    os.environ["DEMO_DIRECTORY"] = str(DATA)
    _end_outages()
    with Stack(StackOptions(DATA), Settings(llmyard_config=HERE / "demo.yaml"), say) as stack:
        _show_stack(stack)
        _load_agents()
        urls = find_running_stack(DATA)
        enqueued = _run_scenes(Celery(broker=urls["broker_url"], backend=urls["redis_url"]))
        # Celery's results unsubscribe when they are collected; Valkey must still be there.
        gc.collect()
        is_balanced = asyncio.run(_balance(urls["database_url"], enqueued))
        say("\nStopping everything …")
    if not is_balanced:
        sys.exit("The books do not balance.")
    say("Done. `llmyard up` starts the same stack, to stay.")


def _run_scenes(producer: Celery) -> list[str]:
    """Returns the ids of all messages that were enqueued."""
    questions = yaml.safe_load((HERE / "demo_messages.yaml").read_text())

    say("\n[bold]1. Messages come in through Celery, and are answered.[/bold]")
    calm = _send(producer, questions)
    _show_answers(calm)

    say("\n[bold]2. The large model fails: its group falls back to the small one. Nobody waits.[/bold]")
    with _outage("large"):
        fallen = _send(producer, [question for question in questions if question["tenant_id"] == "museum"][:4])
        _show_answers(fallen)

    say("\n[bold]3. Every provider fails: jobs are parked in Postgres, and cost nothing while they wait.[/bold]")
    with _outage("large"), _outage("small"):
        parked = _send(producer, questions[:12])
        _wait_until(lambda: all(result.state == "PARKED" for _, result in parked))
        _show_parked(parked)

    say("\n[bold]4. The providers are back: one job goes first as a probe, then the rest, faster and faster.[/bold]")
    started_at = time.monotonic()
    _show_answers(parked)
    say(f"Drained in {time.monotonic() - started_at:.1f} s.")
    return [message["id"] for message, _ in (*calm, *fallen, *parked)]


Sent = list[tuple[dict[str, Any], AsyncResult]]


def _send(producer: Celery, questions: list[Mapping[str, Any]]) -> Sent:
    return [
        (message, producer.send_task("handle_message", [message]))
        for message in (_build_message(question) for question in questions)
    ]


def _build_message(question: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "channel": "slack",
        "timestamp": datetime.now(UTC).isoformat(),
        **question,
    }


@contextmanager
def _outage(model: str) -> Iterator[None]:
    switch = DATA / f"{model}-is-down"
    switch.touch()
    try:
        yield
    finally:
        switch.unlink()


def _end_outages() -> None:
    """A demo that was killed in one leaves its switches behind."""
    for switch in DATA.glob("*-is-down"):
        switch.unlink()


def _load_agents() -> None:
    command = [sys.executable, "-m", "orchestrator.cli.main", "agents", "load", str(HERE / "agents.yaml")]
    subprocess.run(command, check=True, env={**os.environ, "LLMYARD_DATA_DIR": str(DATA)})


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"Nothing came of it within {ANSWER_SECONDS} s.")
        time.sleep(0.1)


def _show_stack(stack: Stack) -> None:
    table = Table("what", "where", title="Running on this machine")
    for part in stack.parts:
        table.add_row(part.name, part.address)
    say(table)


def _show_answers(sent: Sent) -> None:
    table = Table("job", "tenant", "question", "answer", "by")
    for message, result in sent:
        answer = result.get(timeout=ANSWER_SECONDS)
        by = f"{answer['provider']} ({answer['model']})"
        cells = (answer["job_id"], message["tenant_id"], message["content"], answer["content"], by)
        table.add_row(*map(Text, cells))
    say(table)


def _show_parked(sent: Sent) -> None:
    table = Table("job", "failed request", "question", "what the user reads meanwhile")
    for message, result in sent:
        waiting = result.info
        table.add_row(waiting["job_id"], waiting["failed_request_id"], message["content"], waiting["content"])
    say(table)


async def _balance(database_url: str, enqueued: list[str]) -> bool:
    """Count in the ledger what became of every message."""
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch(
        """
        select jobs.state, results.job_id is not null as has_result, failed_requests.state as failed_request
        from messages join jobs on jobs.id = messages.job_id
        left join results on results.job_id = jobs.id
        left join failed_requests on failed_requests.job_id = jobs.id
        where message_id = any ($1)
        """,
        enqueued,
    )
    await connection.close()
    states = Counter(row["state"] for row in rows)
    answered = sum(row["has_result"] for row in rows)
    replayed = sum(row["failed_request"] == "answered" for row in rows)
    say(f"\nEnqueued {len(enqueued)}, answered {answered}, of these after parking {replayed}; states {dict(states)}.")
    return answered == len(enqueued) == states["succeeded"]


if __name__ == "__main__":
    main()
