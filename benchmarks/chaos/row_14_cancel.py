"""Row 14: 200 running jobs are cancelled, then 200 more at about the moment of their answer.

The first 200 hang at the model server, over two workers. How soon a socket closes is told by that server's record, and
counted from when the API was asked, over 16 connections at once. The second 200 take a little while each, and are
cancelled meanwhile: each ends in exactly one of answered and cancelled. That a cancelled call is charged for by a
provider that had begun to answer it cannot be helped from here; this server charges the prompt.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import aiohttp

from benchmarks.chaos.behaviour import Behaviour
from benchmarks.chaos.bench import Bench, Finding, Row, list_faults
from benchmarks.chaos.checker import check
from benchmarks.chaos.parts import wait_until
from benchmarks.chaos.yard import Yard, YardSettings, build_ids

JOBS: Final = 200
CONNECTIONS: Final = 16
LONGEST_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 2.0
IDS = "select message_id, job_id::text from messages where message_id = any ($1)"


def run(bench: Bench) -> Finding:
    hanging, racing = build_ids("hang", JOBS), build_ids("race", JOBS)
    with bench.open_yard(YardSettings(lease_seconds=30, concurrency=JOBS)) as yard:
        for name in ("one", "two"):
            yard.start_worker(name)
        yard.start_beat()
        yard.start_api()
        slowest = cancel_what_hangs(yard, hanging)
        won = cancel_in_a_race(yard, racing, bench)
        yard.wait_until_done(30)
        verdict = check(replace(yard.gather(), expected_states=frozenset({"succeeded", "cancelled"})))
        states = {row["message_id"]: row["state"] for row in yard.rows(STATES)}
        answered = {call.question for call in yard.model.log.calls() if call.ending == "answered"}
        billed = {call.question for call in yard.model.log.calls() if call.is_billed}
    notes = f"{JOBS} sockets closed within {slowest:.2f} s; of {JOBS} races {won} were cancelled first"
    wrong = {
        "a hanging job was answered": any(question in answered for question in hanging),
        "a hanging job was billed": any(question in billed for question in hanging),
        "a hanging job is not cancelled": any(states.get(question) != "cancelled" for question in hanging),
    }
    missed = {
        "a socket stayed open for more than a second": slowest > LONGEST_SECONDS,
        "no race was close": not 0 < won < JOBS,
    }
    return Finding(verdict, notes, wrong=list_faults(wrong), missed=list_faults(missed))


STATES = "select message_id, state from jobs join messages on job_id = id"


def cancel_what_hangs(yard: Yard, messages: list[str]) -> float:
    """Returns how long the last socket stayed open."""
    yard.model.behave("hang", Behaviour(hold=True))
    yard.send(messages)
    wait_until(lambda: len(yard.model.log.open("hang")) == JOBS, 60, "every job is being asked")
    asked_at = asyncio.run(cancel_all(yard, messages, dict.fromkeys(messages, 0.0)))
    wait_until(lambda: not yard.model.log.open("hang"), 30, "every socket is closed")
    return max(call.ended_at - asked_at[call.question] for call in yard.model.log.calls("hang") if call.ended_at)


def cancel_in_a_race(yard: Yard, messages: list[str], bench: Bench) -> int:
    """Returns how many were cancelled before they were answered."""
    yard.model.behave("race", Behaviour(delay_seconds=ANSWER_SECONDS))
    yard.send(messages)
    # Not all at once: how soon a call is made differs by more than what the race is about.
    wait_until(lambda: yard.model.log.count("race") == JOBS, 60, "every job was asked")
    delays = {message: bench.random.uniform(0, ANSWER_SECONDS) for message in messages}
    asyncio.run(cancel_all(yard, messages, delays))
    cancelled = (
        "select count(*) from jobs join messages on job_id = id where state = 'cancelled' and message_id like 'race%'"
    )
    return yard.count(cancelled)


async def cancel_all(yard: Yard, messages: list[str], delays: Mapping[str, float]) -> dict[str, float]:
    """Over HTTP, each after its delay; returns when each was asked for."""
    job_ids = {row["message_id"]: row["job_id"] for row in await asyncio.to_thread(yard.rows, IDS, messages)}
    asked_at: dict[str, float] = {}
    gate = asyncio.Semaphore(CONNECTIONS)

    async def cancel(client: aiohttp.ClientSession, message: str) -> None:
        await asyncio.sleep(delays[message])
        url = f"http://127.0.0.1:{yard.api_port}/v1/jobs/{job_ids[message]}/cancel"
        async with gate:
            asked_at[message] = time.time()
            async with client.post(url) as response:
                response.raise_for_status()

    async with aiohttp.ClientSession() as client:
        await asyncio.gather(*(cancel(client, message) for message in messages))
    return asked_at


ROW = Row(14, "running jobs are cancelled", run)
