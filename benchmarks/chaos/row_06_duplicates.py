"""Row 6: every message is delivered 2 to 10 times, out of order.

Each message is sent under one to three task ids (a producer that retries, several pollers); the broker's list is then
filled with copies of these entries, byte for byte (what a visibility timeout makes), until each message stands there 2
to 10 times, and shuffled, before two workers take it. It ends when no copy is left anywhere, not when all are answered.
"""

import json
from collections import defaultdict
from random import Random
from typing import Final

import redis

from benchmarks.chaos.behaviour import Behaviour
from benchmarks.chaos.bench import Bench, Finding, Row
from benchmarks.chaos.parts import wait_until
from benchmarks.chaos.yard import Yard, YardSettings, build_ids

MOST_EXTRA_CALLS: Final = 0.01
"""As a share of the messages: the common case is one call."""
LEASE_SECONDS: Final = 15.0
"""Longer than a busy machine keeps a worker from renewing it: an expired lease is no duplicate's doing."""


def run(bench: Bench) -> Finding:
    messages = build_ids("m", bench.choose(300, 3000))
    with bench.open_yard(YardSettings(lease_seconds=LEASE_SECONDS)) as yard:
        yard.model.behave("", Behaviour(delay_seconds=0.1))
        sent = send_tasks(yard, messages, bench.random)
        delivered = copy_and_shuffle(yard, bench.random)
        yard.start_beat()
        for name in ("one", "two"):
            yard.start_worker(name, wait=False)
        longest_seconds = bench.choose(90, 600)
        yard.wait_until_done(longest_seconds)
        wait_until(lambda: is_used_up(yard), longest_seconds, "every delivery is used up")
        verdict = yard.check()
    too_many = verdict.extra_calls > MOST_EXTRA_CALLS * len(messages)
    notes = f"{len(messages)} messages under {sent} tasks, {delivered} deliveries"
    return Finding(verdict, notes, wrong=("more than one call is not the exception",) if too_many else ())


def send_tasks(yard: Yard, messages: list[str], chance: Random) -> int:
    """Each message under one to three task ids; returns how many tasks it were."""
    tasks = [(message, f"{message}-t{copy}") for message in messages for copy in range(chance.randint(1, 3))]
    yard.send([message for message, _ in tasks], [task for _, task in tasks])
    return len(tasks)


def copy_and_shuffle(yard: Yard, chance: Random) -> int:
    """Make it 2 to 10 deliveries a message, every task among them; returns how many it makes."""
    with redis.Redis.from_url(yard.redis_url) as client:
        copies = [copy for entries in group(client.lrange("celery", 0, -1)) for copy in multiply(entries, chance)]
        chance.shuffle(copies)
        client.delete("celery")
        client.rpush("celery", *copies)
    return len(copies)


def group(entries: list[bytes]) -> list[list[bytes]]:
    """Of each message its tasks; a task's id begins with its message's."""
    by_message: defaultdict[str, list[bytes]] = defaultdict(list)
    for entry in entries:
        task_id = json.loads(entry)["headers"]["id"]
        by_message[task_id.rpartition("-")[0]].append(entry)
    return list(by_message.values())


def multiply(entries: list[bytes], chance: Random) -> list[bytes]:
    wanted = chance.randint(max(2, len(entries)), 10)
    return entries + chance.choices(entries, k=wanted - len(entries))


def is_used_up(yard: Yard) -> bool:
    """No delivery waits, and none is in a worker's hands."""
    with redis.Redis.from_url(yard.redis_url) as client:
        return client.llen("celery") == 0 and client.hlen("unacked") == 0


ROW = Row(6, "every message delivered 2 to 10 times, out of order", run)
