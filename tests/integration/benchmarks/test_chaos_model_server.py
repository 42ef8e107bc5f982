"""The chaos bench's model server writes down what happened, and charges for what it did, whatever it is told to do."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal

import aiohttp
import pytest

from benchmarks.chaos.behaviour import Behaviour
from benchmarks.chaos.calls import Call, build_bill
from benchmarks.chaos.model import Model
from benchmarks.chaos.parts import wait_until


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    model = Model(tmp_path_factory.mktemp("model"))
    server = model.start()
    try:
        wait_until(server.is_ready, 20, "the model server listens")
        yield model
    finally:
        server.end()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(session: aiohttp.ClientSession, model: Model, question: str) -> tuple[int, str]:
    body = {"messages": [{"role": "user", "content": question}]}
    async with session.post(f"{model.url}/chat/completions", json=body) as response:
        return response.status, await response.text()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 (what is looked at is another process's file)
            await asyncio.sleep(0.01)


async def find_ended(model: Model, question: str) -> Call:
    await until(lambda: bool(model.log.calls(question)) and not model.log.open(question))
    (call,) = model.log.calls(question)
    return call


async def hang_up(session: aiohttp.ClientSession, model: Model, question: str, *, once_begun: bool) -> Call:
    asking = asyncio.create_task(ask(session, model, question))
    await until(lambda: any(call.began_at or not once_begun for call in model.log.calls(question)))
    asking.cancel()
    return await find_ended(model, question)


async def test_an_answer_is_charged_for(model: Model, session: aiohttp.ClientSession) -> None:
    status, text = await ask(session, model, "plain")
    assert (status, "answer to plain" in text) == (200, True)
    call = await find_ended(model, "plain")
    assert (call.ending, call.status, call.bill_usd) == ("answered", 200, build_bill("plain"))


async def test_a_refusal_is_not(model: Model, session: aiohttp.ClientSession) -> None:
    model.behave("limited", Behaviour(status=429, headers={"Retry-After": "7"}))
    assert (await ask(session, model, "limited"))[0] == 429
    call = await find_ended(model, "limited")
    assert (call.ending, call.status, call.bill_usd) == ("refused", 429, Decimal(0))


@pytest.mark.parametrize(("status", "kind"), [(429, "requests"), (503, "server_error")])
async def test_a_refusal_is_typed_as_providers_type_it(
    model: Model, session: aiohttp.ClientSession, status: int, kind: str
) -> None:
    model.behave("typed", Behaviour(status=status))
    _, text = await ask(session, model, "typed")
    assert json.loads(text)["error"]["type"] == kind


async def test_who_hangs_up_before_the_answer_pays_nothing(model: Model, session: aiohttp.ClientSession) -> None:
    model.behave("silent", Behaviour(hold=True))
    call = await hang_up(session, model, "silent", once_begun=False)
    assert (call.ending, call.began_at, call.bill_usd) == ("hung_up", None, Decimal(0))


async def test_who_hangs_up_in_the_middle_pays_for_the_prompt(model: Model, session: aiohttp.ClientSession) -> None:
    model.behave("half", Behaviour(hold_after_half=True))
    call = await hang_up(session, model, "half", once_begun=True)
    assert (call.ending, call.bill_usd) == ("hung_up", build_bill("half", 0))


async def test_a_held_call_goes_on_once_it_is_released(model: Model, session: aiohttp.ClientSession) -> None:
    model.behave("held", Behaviour(hold=True))
    asking = asyncio.create_task(ask(session, model, "held"))
    await until(lambda: bool(model.log.open("held")))
    assert not asking.done()
    model.release(model.log.open("held"))
    assert (await asking)[0] == 200


async def test_a_connection_is_cut_or_refused_when_told_so(model: Model, session: aiohttp.ClientSession) -> None:
    model.behave("cut", Behaviour(cut=True))
    with pytest.raises(aiohttp.ClientConnectionError):
        await ask(session, model, "cut")
    assert (await find_ended(model, "cut")).ending == "cut"
    await ask(session, model, "whose connection stays open")
    model.listen(is_wanted=False)
    with pytest.raises(aiohttp.ClientConnectionError):
        await ask(session, model, "nobody there")
    model.listen(is_wanted=True)
    assert (await ask(session, model, "there again"))[0] == 200
    assert model.log.count("nobody there") == 0
