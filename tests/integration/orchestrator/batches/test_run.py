"""From a file to a file, and what an interruption in between costs."""

import asyncio
import json

import asyncpg
import pytest

from orchestrator.batches import importing
from orchestrator.batches.records import BatchState, Shape
from shared.errors import InputError, NotFoundError
from tests.integration.orchestrator.batches.bulk_yard import BulkYard
from tests.ledger import count

PROMPTS = [{"prompt": f"question {number}", "id": number} for number in range(1, 8)]


def build_openai(number: int) -> dict[str, object]:
    body = {"model": "fast", "messages": [{"role": "user", "content": f"question {number}"}]}
    return {"custom_id": f"r-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


async def run(yard: BulkYard, lines: list[object], **fields: object) -> None:
    """With a worker beside it."""
    opened = await yard.desk.open(yard.build_order(yard.write_input(lines), **fields))
    running = asyncio.ensure_future(yard.desk.run(opened, yard.directory / "out.jsonl", yard.seen.append))
    async with asyncio.timeout(20):
        while not running.done():
            await yard.work()
            await asyncio.sleep(0.02)
    await running


async def test_answers_come_out_in_the_order_of_the_input(yard: BulkYard) -> None:
    yard.pool.steps = [f"answer {number}" for number in range(1, 8)]
    await run(yard, list(PROMPTS))
    written = yard.read_output()
    assert [line["line"] for line in written] == list(range(1, 8))
    assert [line["content"] for line in written] == [f"answer {number}" for number in range(1, 8)]
    assert [line["id"] for line in written] == [str(number) for number in range(1, 8)]
    assert [request.messages[0].content for request in yard.pool.asked] == [f"question {n}" for n in range(1, 8)]
    last = yard.seen[-1]
    assert (last.finished, last.total, last.failed, last.tokens) == (7, 7, 0, 35)
    assert [path.name for path in yard.directory.iterdir() if "part" in path.name] == []


async def test_openai_s_lines_come_out_as_openai_s(yard: BulkYard) -> None:
    await run(yard, [build_openai(number) for number in range(5)])
    written = yard.read_output()
    assert [line["custom_id"] for line in written] == [f"r-{number}" for number in range(5)]
    assert {line["response"]["body"]["choices"][0]["message"]["content"] for line in written} == {"fine"}


async def test_each_line_has_a_job_of_its_own_with_its_batch(yard: BulkYard, superuser: asyncpg.Connection) -> None:
    opened = await yard.take_in(PROMPTS)
    jobs = await superuser.fetch("select id, batch_id, state, run, queued_at from jobs order by id")
    assert [job["id"].int - opened.batch.id.int for job in jobs] == list(range(1, 8))
    assert {(job["batch_id"], job["state"], job["run"], job["queued_at"]) for job in jobs} == {
        (opened.batch.id, "queued", 0, None)
    }
    assert await superuser.fetchval("select count(*) from messages join jobs on id = job_id") == 7


async def test_a_bad_line_comes_out_as_failed_and_the_others_are_asked(yard: BulkYard) -> None:
    await run(yard, ['{"prompt": "one"}', '{"promt": "two"}', "{", '{"prompt": "four"}'])
    assert [line["state"] for line in yard.read_output()] == ["succeeded", "failed", "failed", "succeeded"]
    assert yard.read_output()[1]["error"].startswith("InputError: line 2, prompt: is missing; ")
    assert yard.read_output()[2]["error"].startswith("InputError: line 3, line: is no JSON (")
    assert (len(yard.pool.asked), yard.seen[-1].failed) == (2, 2)


async def test_strict_makes_nothing_of_a_file_with_a_bad_line(yard: BulkYard, superuser: asyncpg.Connection) -> None:
    path = yard.write_input([*PROMPTS, "{"])
    with pytest.raises(InputError, match=r"line 8, line: is no JSON"):
        await yard.desk.open(yard.build_order(path, is_strict=True))
    assert await count(superuser, "batches") == 0


@pytest.mark.parametrize(
    ("lines", "options", "told"),
    [
        ([], {}, "input: 'in.jsonl' holds no line; put something to ask into it"),
        ([{"question": "x"}], {}, "line 1, prompt: is missing; add it, or name another with --column: question"),
        ([{"question": "x"}], {"column": "question", "template": "{{question}}"}, "template: stands beside a column"),
    ],
)
async def test_what_is_wrong_from_the_first_line_on_makes_no_batch(
    yard: BulkYard, superuser: asyncpg.Connection, lines: list[object], options: dict[str, str], told: str
) -> None:
    path = yard.write_input(lines)
    with pytest.raises(InputError) as refused:
        await yard.desk.open(yard.build_order(path, options=options))
    assert str(refused.value).startswith(told)
    assert await count(superuser, "batches") == 0


async def test_an_unknown_tenant(yard: BulkYard) -> None:
    order = yard.build_order(yard.write_input(PROMPTS))
    with pytest.raises(NotFoundError, match="no tenant 'nobody'"):
        await yard.desk.open(type(order)(order.path, "nobody", order.options))


async def test_the_same_again_is_the_same_batch_and_nothing_is_asked_twice(yard: BulkYard) -> None:
    await run(yard, list(PROMPTS))
    first = yard.read_output()
    await run(yard, list(PROMPTS))
    assert yard.read_output() == first
    assert len(yard.pool.asked) == 7
    assert len(await yard.desk.list_newest("default", 10)) == 1


async def test_other_options_or_another_file_or_the_user_s_wish_are_another_batch(yard: BulkYard) -> None:
    batches = {
        (await yard.take_in(PROMPTS)).batch.id,
        (await yard.take_in(PROMPTS, options={"temperature": 0.5})).batch.id,
        (await yard.take_in(PROMPTS[1:])).batch.id,
        (await yard.take_in(PROMPTS, is_anew=True)).batch.id,
        (await yard.take_in(PROMPTS)).batch.id,
    }
    assert len(batches) == 4, "the last is that of the one before"


async def test_a_client_that_was_killed_while_it_took_lines_in_goes_on_where_it_was(
    yard: BulkYard, superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "LINES_AT_ONCE", 2)
    order = yard.build_order(yard.write_input(PROMPTS))
    opened = await yard.desk.open(order)
    lots = importing._split(opened.maker, opened.input.read(opened.input.path), 0)
    for before in (0, 2):
        await importing._take_in(yard.database, opened.batch, before, next(lots))
    again = await yard.desk.open(order)
    assert (again.batch.id, again.batch.imported_lines, again.was_there) == (opened.batch.id, 4, True)
    await yard.desk.run(again, None, yard.seen.append)
    assert await count(superuser, "jobs") == await count(superuser, "messages") == 7
    assert (await yard.desk.get("default", again.batch.id)).total_lines == 7


async def test_two_clients_at_once_take_each_line_in_once(
    yard: BulkYard, superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "LINES_AT_ONCE", 5)
    order = yard.build_order(yard.write_input([f'"question {n}"' for n in range(203)]))
    both = [await yard.desk.open(order) for _ in range(2)]
    await asyncio.gather(*(yard.desk.run(opened, None, yard.seen.append) for opened in both))
    assert await count(superuser, "jobs") == 203
    batch = await yard.desk.get("default", both[0].batch.id)
    assert (batch.state, batch.total_lines) == (BatchState.RUNNING, 203)


async def test_the_finished_beginning_is_written_while_the_rest_runs(
    yard: BulkYard, superuser: asyncpg.Connection
) -> None:
    opened = await yard.take_in([f'"question {n}"' for n in range(250)])
    assert [len(each.job_ids) for each in yard.queue.waiting] == [100, 100, 50]
    yard.queue.waiting = [yard.queue.waiting[0], yard.queue.waiting[2]]
    await yard.work()
    following = asyncio.ensure_future(yard.desk.follow(opened.batch, yard.directory / "out.jsonl", yard.seen.append))
    async with asyncio.timeout(10):
        while not yard.seen or yard.seen[-1].written < 100:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.02)
    assert yard.seen[-1].finished == 150, "those behind the gap are counted too"
    following.cancel()
    await asyncio.wait([following])
    part = next(path for path in yard.directory.iterdir() if path.name.endswith(".part"))
    assert len(part.read_text().splitlines()) == 100
    await superuser.execute("update batches set fed_at = now() - interval '1 hour'")
    await yard.desk._feed()
    await yard.work()
    written = await yard.write_out(opened.batch)
    assert [line["line"] for line in written] == list(range(1, 251))
    assert len(yard.pool.asked) == 250
    assert (yard.seen[-1].tokens, yard.seen[-1].failed) == (1250, 0), "of both clients together"


async def test_what_is_missing_is_found_before_a_worker_asks(yard: BulkYard) -> None:
    opened = await yard.take_in([build_openai(1), {**build_openai(2), "url": "/v1/embeddings"}])
    assert opened.batch.shape is Shape.OPENAI
    assert yard.queue.sent == 1, "the line that cannot be asked is sent to nobody"
    await yard.work()
    written = await yard.write_out(opened.batch)
    assert json.loads(json.dumps(written[1]))["error"]["message"].startswith("line 2, url: is '/v1/embeddings'")
