"""How batches reach the workers, and what is done about slices that got lost."""

import asyncpg
import pytest

from orchestrator.batches import feeding
from orchestrator.batches.feeding import MOST_SLICES, decide_look_seconds, decide_room, feed
from orchestrator.batches.records import BatchState, Slice
from tests.integration.orchestrator.batches.bulk_yard import BulkYard
from tests.ledger import count

LONG_AGO = "update batches set fed_at = now() - interval '1 hour'"


def count_jobs(slices: list[Slice]) -> int:
    return sum(len(each.job_ids) for each in slices)


async def test_no_more_is_sent_than_the_queue_has_room_for(yard: BulkYard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "MOST_SLICES", 2)
    await yard.take_in([f'"q {n}"' for n in range(450)])
    assert [len(each.job_ids) for each in yard.queue.waiting] == [100, 100]
    assert await feed(yard.database, 2) == []
    assert count_jobs(await feed(yard.database, 1)) == 100
    assert count_jobs(await feed(yard.database, 0)) == 150
    assert await feed(yard.database, 0) == [], "each line is sent once"


async def test_nothing_is_sent_where_the_queue_cannot_be_asked(yard: BulkYard) -> None:
    yard.queue.is_away = True
    await yard.take_in(['"one"', '"two"'])
    assert yard.queue.sent == 0
    yard.queue.is_away = False
    assert count_jobs(await feed(yard.database, 0)) == 2


async def test_batches_share_the_queue(yard: BulkYard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.queue.is_away = True
    batches = [(await yard.take_in([f'"{name} {n}"' for n in range(900)])).batch.id for name in "ab"]
    monkeypatch.setattr(feeding, "MOST_SLICES", 4)
    first_jobs = [each.job_ids[0] for each in await feed(yard.database, 0)]
    assert [sum(job.int >> 32 == batch.int >> 32 for job in first_jobs) for batch in batches] == [2, 2]


async def test_lost_slices_are_sent_again_once_nothing_else_can_be_waited_for(
    yard: BulkYard, superuser: asyncpg.Connection
) -> None:
    await yard.take_in([f'"q {n}"' for n in range(250)])
    lost = yard.queue.waiting[1]
    yard.queue.waiting.remove(lost)
    await yard.work()
    assert await feed(yard.database, 0) == [], "it was sent but a moment ago"
    await superuser.execute(LONG_AGO)
    assert await feed(yard.database, 1) == [], "it may still be on the queue"
    assert await feed(yard.database, 0) == [lost]
    assert await feed(yard.database, 0) == []


async def test_a_batch_ends_with_its_last_line(yard: BulkYard, superuser: asyncpg.Connection) -> None:
    opened = await yard.take_in([f'"q {n}"' for n in range(250)])
    await yard.work(most_slices=2)
    await feed(yard.database, 0)
    batch = await yard.desk.get("default", opened.batch.id)
    assert (batch.settled_lines, batch.state) == (200, BatchState.RUNNING)
    await superuser.execute(LONG_AGO)
    yard.queue.send(await feed(yard.database, 0))
    await yard.work()
    await feed(yard.database, 0)
    batch = await yard.desk.get("default", opened.batch.id)
    assert (batch.settled_lines, batch.state, bool(batch.finished_at)) == (250, BatchState.DONE, True)


async def test_it_does_not_end_while_lines_are_still_taken_in(yard: BulkYard, superuser: asyncpg.Connection) -> None:
    opened = await yard.take_in(['"one"'])
    await superuser.execute("update batches set state = 'importing', total_lines = null")
    await yard.work()
    await feed(yard.database, 0)
    assert (await yard.desk.get("default", opened.batch.id)).state is BatchState.IMPORTING


async def test_what_a_dead_worker_had_is_found_again(yard: BulkYard, superuser: asyncpg.Connection) -> None:
    """The sweep gives it back as queued; should the message it then sends be lost, it is found here."""
    opened = await yard.take_in(['"one"', '"two"'])
    yard.queue.waiting = []
    await superuser.execute("update jobs set run = 1, crash_count = 1")
    await superuser.execute(LONG_AGO)
    yard.queue.send(await feed(yard.database, 0))
    assert await yard.work() == 2
    assert [line["state"] for line in await yard.write_out(opened.batch)] == ["succeeded", "succeeded"]


async def test_without_open_batches_it_reads_an_empty_index(yard: BulkYard, superuser: asyncpg.Connection) -> None:
    await yard.take_in(['"one"'])
    await yard.work()
    await feed(yard.database, 0)
    assert await feed(yard.database, 0) == []
    assert await count(superuser, "batches where finished_at is null") == 0
    async with superuser.transaction():
        await superuser.execute("set local enable_seqscan = off")
        plan = await superuser.fetch(f"explain {feeding._FIND_OPEN.text}")
    assert "batches_open_idx" in str(plan)


@pytest.mark.parametrize(
    ("backlog", "taken", "waiting", "room"),
    [
        (None, 0, 1, 0),
        (0, 0, 1, MOST_SLICES),
        (MOST_SLICES, 0, 1, 0),
        (MOST_SLICES + 9, 0, 1, 0),
        (50, 50, 2, (MOST_SLICES - 100) // 2),
    ],
)
def test_room(backlog: int | None, taken: int, waiting: int, room: int) -> None:
    assert decide_room(backlog, taken, waiting_batches=waiting) == room


def test_large_batches_are_searched_less_often() -> None:
    assert decide_look_seconds(100) < 16
    assert decide_look_seconds(1_000_000) > 100
