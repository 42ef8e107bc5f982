"""The books of a fleet: what was sent, what the model server saw, what the ledger says; for the checker to compare."""

import json
import time
from itertools import chain, repeat
from typing import Any

import redis

from benchmarks.chaos.calls import Call
from benchmarks.chaos.checker import Evidence, Verdict, check
from benchmarks.chaos.ledger import JOBS, Reply, build_jobs
from benchmarks.chaos.recorder import Enqueue
from tests.acceptance.yard import Yard


class Books:
    """Keeps what was enqueued through a yard."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._enqueues: list[Enqueue] = []

    def send(self, contents: list[str]) -> None:
        """Each content is also the id of its message. Acknowledged is what the broker took: else this raises."""
        for number, (content, reply) in enumerate(zip(contents, self._yard.send(contents), strict=True), start=1):
            now = time.time()
            self._enqueues.append(Enqueue(number, content, now, now, reply.task_id))

    def close(self) -> Verdict:
        return check(
            Evidence(
                enqueues=self._enqueues,
                calls=[Call(number, asked, 0.0) for number, asked in enumerate(self._list_calls(), start=1)],
                jobs=build_jobs(self._yard.rows(JOBS)),
                replies=self._read_replies(),
            )
        )

    def _list_calls(self) -> list[str]:
        return list(chain.from_iterable(repeat(asked, times) for asked, times in self._yard.model.calls.items()))

    def _read_replies(self) -> list[Reply]:
        """What Celery's backend tells each poller; nothing of whom it has not told."""
        with redis.Redis.from_url(self._yard.redis_url) as client:
            stored = client.mget([f"celery-task-meta-{enqueue.task_id}" for enqueue in self._enqueues])
        return [build_reply(json.loads(text)) for text in stored if text]


def build_reply(told: dict[str, Any]) -> Reply:
    content = told["result"]["content"] if told["status"] == "SUCCESS" else None
    return Reply(told["task_id"], told["status"], content)


def describe(verdict: Verdict) -> str:
    """A row of the table of faults."""
    cells = {
        "attempted": verdict.attempted,
        "acknowledged": verdict.acknowledged,
        "answered": verdict.answered,
        "lost": len(verdict.lost),
        "duplicated": len(verdict.duplicated),
        "unexpected": len(verdict.unexpected),
        "provider calls": verdict.calls,
        "extra calls": verdict.extra_calls,
        "explained": verdict.explained_calls,
    }
    return f"| {' | '.join(cells)} |\n| {' | '.join(map(str, cells.values()))} |"
