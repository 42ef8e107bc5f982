"""A shape that is wanted of the answer: never lost on the way to a model, and never kept wrong."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from llm_pool.call import RunConfig
from llm_pool.catalog import ModelGroup
from llm_pool.pool import Pool
from llm_pool.remote.remote import RemotePool
from llm_pool.service import create_app
from llm_pool.types import CompletionRequest, JsonFormat, ProviderAnswer, ToolCall
from shared.errors import LLMSchemaMismatchError
from tests.fakes.scripted_provider import Script, ask, build_catalog, build_registry, deploy
from tests.fakes.uvicorn_server import serve_app

PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
CACHED = RunConfig(use_cache=True)


@pytest.fixture
def script() -> Script:
    return Script()


def build_pool(script: Script, **fields: Any) -> Pool:
    catalog = build_catalog(ModelGroup("fast", (deploy("a", **fields),), retries=0))
    return Pool(catalog, registry=build_registry({"a": script}))


@pytest.fixture
def pool(script: Script) -> Pool:
    return build_pool(script)


@pytest.fixture(params=["in process", "behind HTTP"])
async def either(request: pytest.FixtureRequest, pool: Pool) -> AsyncIterator[Pool | RemotePool]:
    if request.param == "in process":
        yield pool
        return
    async with serve_app(create_app(build_catalog(), pool)) as url:
        remote = RemotePool(url)
        yield remote
        await remote.aclose()


def want(schema: Mapping[str, object] | None = PERSON) -> CompletionRequest:
    return replace(ask("fast"), json_format=JsonFormat(schema))


async def test_who_can_be_held_to_a_shape_is_asked_as_it_was_said(script: Script, pool: Pool) -> None:
    await pool.complete(want())
    assert script.asked == [want()]


@pytest.mark.parametrize("says", ["the provider", "the deployment"])
async def test_who_cannot_is_told_it_in_words_and_sent_no_field(script: Script, says: str) -> None:
    script.capabilities = frozenset({"chat", "stream"} if says == "the provider" else {"chat", "stream", "json"})
    pool = build_pool(script, supports=None if says == "the provider" else ("chat", "stream"))
    await pool.complete(want())
    async for _ in pool.stream(want()):
        pass
    for asked in script.asked:
        assert asked.json_format is None
        assert asked.messages[0].role == "system"
        assert '"required": ["age"]' in asked.messages[0].content
        assert asked.messages[1:] == want().messages
    assert len(script.asked) == 2


@pytest.mark.parametrize("schema", [None, MappingProxyType(PERSON)])
async def test_any_object_and_any_mapping_can_be_put_into_words(
    script: Script, schema: Mapping[str, object] | None
) -> None:
    script.capabilities = frozenset({"chat"})
    await build_pool(script).complete(want(schema))
    assert '"type": "object"' in script.asked[0].messages[0].content


@pytest.mark.parametrize("schema", [None, PERSON])
async def test_what_stands_there_in_words_already_is_not_said_twice(
    script: Script, schema: Mapping[str, object] | None
) -> None:
    script.capabilities = frozenset({"chat"})
    script.steps = ["seven", '{"age": 7}']
    await build_pool(script).json("how old?", schema, model="fast")
    assert [[message.role for message in asked.messages] for asked in script.asked] == [
        ["system", "user"],
        ["system", "user", "assistant", "user"],
    ]


async def test_a_wrong_answer_is_not_kept_and_a_repaired_one_is(script: Script, either: Pool | RemotePool) -> None:
    script.steps = ["seven", '{"age": 7}', "seven"]
    first = await either.json("how old?", PERSON, model="fast", config=CACHED)
    second = await either.json("how old?", PERSON, model="fast", config=CACHED)
    assert (first.value, second.value) == ({"age": 7}, {"age": 7})
    # The question was asked anew, and its repair found.
    assert (len(script.asked), first.response.cached, second.response.cached) == (3, False, True)


async def test_a_wrong_repair_is_not_kept_either(script: Script, either: Pool | RemotePool) -> None:
    script.steps = ["seven", '{"age": "7"}', '{"age": 7}']
    with pytest.raises(LLMSchemaMismatchError):
        await either.json("how old?", PERSON, model="fast", config=CACHED)
    assert (await either.json("how old?", PERSON, model="fast", config=CACHED)).value == {"age": 7}
    assert len(script.asked) == 3


async def test_a_fitting_answer_is_kept(script: Script, either: Pool | RemotePool) -> None:
    script.steps = ['```json\n{"age": 7}\n```']
    for _ in range(2):
        assert (await either.json("how old?", PERSON, model="fast", config=CACHED)).value == {"age": 7}
    assert len(script.asked) == 1


@pytest.mark.parametrize("content", ["[" * 100_000, '{"age": 7}'])
async def test_what_cannot_be_checked_is_not_kept(script: Script, pool: Pool, content: str) -> None:
    """It is told all the same: it was paid for."""
    script.steps = [content]
    strict = replace(CACHED, keeps_only_fitting=True)
    for schema in ({"type": "objekt"}, {"$ref": "http://elsewhere"}, {"$ref": "#"}):
        for _ in range(2):
            assert (await pool.complete(want(schema), strict)).content == content
    assert len(script.asked) == 6


async def test_what_is_called_in_the_place_of_an_answer_is_kept(script: Script, pool: Pool) -> None:
    script.steps = [ProviderAnswer("", "m", "tool_calls", tool_calls=(ToolCall("1", "look", "{}"),))]
    for _ in range(2):
        await pool.complete(want(), replace(CACHED, keeps_only_fitting=True))
    assert len(script.asked) == 1


async def test_who_checks_nothing_is_told_again_what_was_said(script: Script, pool: Pool) -> None:
    script.steps = ["seven"]
    for _ in range(2):
        assert (await pool.complete(want(), CACHED)).content == "seven"
    assert len(script.asked) == 1
