"""The short forms over a pool: a chat of one turn, JSON of a given shape, functions that the model calls."""

import asyncio
import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from llm_pool.asking.asking import as_messages
from llm_pool.asking.tool_rounds import ToolFunction, ToolRefusedError
from llm_pool.call import DEFAULT_RUN, RunConfig
from llm_pool.catalog import ModelGroup, Price
from llm_pool.json_text import parse_json
from llm_pool.pool import Pool
from llm_pool.types import ChatMessage, JsonFormat, ProviderAnswer, Tool, ToolCall
from shared.attempts import Usage
from shared.errors import InputError, LLMInvalidRequestError, LLMSchemaMismatchError
from tests.fakes.scripted_provider import Script, build_catalog, build_registry, deploy

PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
PRICE = Price(Decimal(1_000_000), Decimal(0))
"""A dollar for each token of the prompt."""


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def pool(script: Script) -> Pool:
    groups = (ModelGroup("quality", (deploy("a", price=PRICE),), retries=0),)
    return Pool(build_catalog(*groups), registry=build_registry({"a": script}))


def answer_with(*calls: ToolCall) -> ProviderAnswer:
    return ProviderAnswer("", "scripted-1", "tool_calls", Usage(3, 2), calls)


def weather(run: Any, name: str = "get_weather") -> ToolFunction:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return ToolFunction(Tool(name, "the weather now", parameters), run)


def tell_rain(city: str) -> str:
    return "rain"


def divide_by_zero(city: str) -> float:
    return 1 / 0


async def test_a_chat_of_one_turn(pool: Pool, script: Script) -> None:
    response = await pool.chat("hello", "be brief", temperature=0.5, tenant_id="acme")
    assert response.content == "fine"
    (request,) = script.asked
    assert request.messages == (ChatMessage("system", "be brief"), ChatMessage("user", "hello"))
    assert (request.model, request.temperature, request.tenant_id) == ("quality", 0.5, "acme")


@pytest.mark.parametrize(
    "content",
    [
        '{"age": 7}',
        '  {"age": 7}\n',
        '```json\n{"age": 7}\n```',
        '```\n{"age": 7}\n```',
        'Here you are:\n```JSON\n{\n "age": 7\n}\n```\nAnything else?',
    ],
)
async def test_json_is_read_however_it_is_wrapped(pool: Pool, script: Script, content: str) -> None:
    script.steps = [content]
    answer = await pool.json("how old?", PERSON)
    assert answer.value == {"age": 7}
    assert len(script.asked) == 1


async def test_the_shape_is_asked_for_in_both_ways(pool: Pool, script: Script) -> None:
    script.steps = ['{"age": 7}']
    await pool.json("how old?", PERSON)
    (request,) = script.asked
    assert request.json_format == JsonFormat(PERSON)
    assert request.messages[0].role == "system"
    assert json.dumps(PERSON) in request.messages[0].content
    assert "JSON" in request.messages[0].content


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ("seven", "it is no JSON"),
        ('{"age": NaN}', "NaN is no JSON"),
        ('{"age": "7"}', "$.age: '7' is not of type 'integer'"),
        ("{}", "'age' is a required property"),
        ('["age"]', "is not of type 'object'"),
    ],
)
async def test_a_wrong_answer_is_shown_to_the_model_with_what_is_wrong(
    pool: Pool, script: Script, wrong: str, fault: str
) -> None:
    script.steps = [wrong, '{"age": 7}']
    answer = await pool.json("how old?", PERSON)
    assert answer.value == {"age": 7}
    assert script.asked[1].messages[-2] == ChatMessage("assistant", wrong)
    assert fault in script.asked[1].messages[-1].content
    assert len(answer.response.attempts) == 2
    assert answer.response.cost_usd == 6


async def test_two_wrong_answers_are_an_error_that_carries_the_second(pool: Pool, script: Script) -> None:
    script.steps = ["seven", '{"age": "7"}']
    with pytest.raises(LLMSchemaMismatchError, match="is not of type 'integer'") as caught:
        await pool.json("how old?", PERSON)
    assert caught.value.content == '{"age": "7"}'
    assert len(caught.value.attempts) == 2
    assert len(script.asked) == 2


async def test_a_repair_that_fails_keeps_the_attempt_before_it(pool: Pool, script: Script) -> None:
    script.steps = ["seven", LLMInvalidRequestError("no")]
    with pytest.raises(LLMInvalidRequestError) as caught:
        await pool.json("how old?", PERSON)
    assert [attempt.error_type for attempt in caught.value.attempts] == [None, "LLMInvalidRequestError"]


async def test_without_a_schema_any_object_will_do(pool: Pool, script: Script) -> None:
    script.steps = ["[]", '{"any": []}']
    assert (await pool.json("anything")).value == {"any": []}


def test_a_turn_may_be_a_mapping_as_other_clients_have_it() -> None:
    turns = [{"role": "user", "content": "hello"}, ChatMessage("assistant", "hi"), {"role": "user", "content": "well?"}]
    assert as_messages(turns) == (
        ChatMessage("user", "hello"),
        ChatMessage("assistant", "hi"),
        ChatMessage("user", "well?"),
    )
    answered = {"role": "tool", "content": "rain", "name": "get_weather", "tool_call_id": "1"}
    assert as_messages([answered]) == (ChatMessage("tool", "rain", "get_weather", tool_call_id="1"),)


@pytest.mark.parametrize(
    ("turn", "field"),
    [({"content": "hello"}, "messages.1"), ("hello", "messages.1"), ({"role": "user", "text": "x"}, "messages.1.text")],
)
def test_a_mapping_that_is_no_turn_is_refused(turn: Any, field: str) -> None:
    with pytest.raises(InputError, match="use the keys role, content, name, tool_call_id") as caught:
        as_messages([ChatMessage("user", "hello"), turn])
    assert caught.value.field == field


@pytest.mark.parametrize("schema", [{"type": "objekt"}, {"properties": 7}, ["city"], "city"])
async def test_what_is_no_schema_is_refused_before_anyone_is_asked(
    pool: Pool, script: Script, schema: dict[str, object]
) -> None:
    with pytest.raises(InputError) as caught:
        await pool.json("how old?", schema)
    assert caught.value.field == "schema"
    assert script.asked == []


async def test_a_schema_elsewhere_is_not_fetched(pool: Pool, script: Script) -> None:
    fetched = asyncio.Event()

    script.steps = ["{}"]

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fetched.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        with pytest.raises(InputError, match="refers to http://"):
            await asyncio.wait_for(pool.json("x", {"$ref": f"http://{host}:{port}/schema"}), 5)
    assert not fetched.is_set()


@pytest.mark.parametrize("content", ["", "```json\n```", "{", "```json\n{]\n```"])
def test_what_is_no_json_is_said_so(content: str) -> None:
    with pytest.raises(ValueError, match="Expecting"):
        parse_json(content)


async def test_a_function_is_called_and_the_model_told(pool: Pool, script: Script) -> None:
    call = ToolCall("call-1", "get_weather", '{"city": "Bonn"}')
    script.steps = [answer_with(call), "It rains in Bonn."]
    answer = await pool.call_tools("Bonn?", [weather(lambda city: {"city": city, "rain": True})])
    assert answer.response.content == "It rains in Bonn."
    assert answer.messages == (
        ChatMessage("user", "Bonn?"),
        ChatMessage("assistant", "", tool_calls=(call,)),
        ChatMessage("tool", '{"city": "Bonn", "rain": true}', tool_call_id="call-1"),
        ChatMessage("assistant", "It rains in Bonn."),
    )
    assert (len(answer.response.attempts), answer.response.cost_usd) == (2, 6)


async def test_coroutines_and_blocking_functions_run_side_by_side(pool: Pool, script: Script) -> None:
    calls = (ToolCall("1", "soon", '{"city": "Bonn"}'), ToolCall("2", "block", '{"city": "Ulm"}'))
    script.steps = [answer_with(*calls), "done"]
    meeting = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def soon(city: str) -> str:
        await asyncio.wait_for(meeting.wait(), 5)
        return f"soon {city}"

    def block(city: str) -> str:
        loop.call_soon_threadsafe(meeting.set)
        return f"blocked {city}"

    answer = await pool.call_tools("?", [weather(soon, "soon"), weather(block, "block")])
    assert [message.content for message in answer.messages[2:4]] == ["soon Bonn", "blocked Ulm"]


async def test_a_choice_holds_for_the_first_round_only(pool: Pool, script: Script) -> None:
    script.steps = [answer_with(ToolCall("1", "get_weather", '{"city": "Bonn"}')), "done"]
    await pool.call_tools("?", [weather(tell_rain)], choice="get_weather")
    assert [request.tool_choice for request in script.asked] == ["get_weather", "auto"]


async def test_after_the_last_round_it_has_to_answer_in_words(pool: Pool, script: Script) -> None:
    script.steps = [answer_with(ToolCall("1", "get_weather", '{"city": "Bonn"}'))]
    answer = await pool.call_tools("?", [weather(tell_rain)], max_rounds=3)
    assert [request.tool_choice for request in script.asked] == ["auto", "auto", "auto", "none"]
    assert answer.response.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (ToolCall("1", "get_wether", "{}"), "Error: there is no function get_wether; use one of get_weather"),
        (ToolCall("1", "get_weather", "Bonn"), "Error: the arguments are no JSON"),
        (ToolCall("1", "get_weather", ""), "Error: the arguments do not fit: $: 'city' is a required property"),
        (ToolCall("1", "get_weather", '{"city": 7}'), "Error: the arguments do not fit: $.city: 7 is not of type"),
        (ToolCall("1", "get_weather", '{"city": "Atlantis"}'), "Error: it sank"),
    ],
)
async def test_the_model_is_told_what_was_wrong_with_its_call(
    pool: Pool, script: Script, call: ToolCall, told: str
) -> None:
    def run(city: str) -> str:
        raise ToolRefusedError("it sank")

    script.steps = [answer_with(call), "sorry"]
    answer = await pool.call_tools("?", [weather(run)])
    assert answer.messages[2].content.startswith(told)
    assert answer.response.content == "sorry"


async def test_what_a_function_raises_is_raised(pool: Pool, script: Script) -> None:
    script.steps = [answer_with(ToolCall("1", "get_weather", '{"city": "Bonn"}'))]
    with pytest.raises(ZeroDivisionError):
        await pool.call_tools("?", [weather(divide_by_zero)])


async def test_two_functions_of_one_name_are_refused(pool: Pool) -> None:
    with pytest.raises(InputError, match="two have the same name"):
        await pool.call_tools("?", [weather(print), weather(print)])


async def test_the_run_configuration_reaches_every_round(pool: Pool, script: Script) -> None:
    script.steps = [answer_with(ToolCall("1", "get_weather", '{"city": "Bonn"}')), "done"]
    configs: list[RunConfig] = []

    class Noting(Pool):
        async def complete(self, request: Any, config: RunConfig = DEFAULT_RUN) -> Any:
            configs.append(config)
            return await super().complete(request, config)

    noting = Noting(build_catalog(ModelGroup("quality", (deploy("a"),))), registry=build_registry({"a": script}))
    mine = RunConfig(use_cache=False)
    await noting.call_tools("?", [weather(tell_rain)], config=mine)
    assert configs == [mine, mine]


def test_the_schema_library_is_loaded_by_those_who_need_it_only() -> None:
    check = "import sys, llm_pool.pool; assert not {'jsonschema', 'fastapi', 'redis'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
