"""The mock says that it is one, and plays an outage on demand."""

from pathlib import Path

import pytest

from llm_pool.catalog import Deployment, ModelGroup
from llm_pool.pool import Pool
from shared.attempts import Usage
from shared.errors import ConfigurationError, LLMTimeoutError, LLMUnavailableError
from tests.fakes.scripted_provider import ask, build_catalog


def build_pool(**options: object) -> Pool:
    deployment = Deployment("mock", "mock", "mock", options=options)
    return Pool(build_catalog(ModelGroup("fast", (deployment,), retries=0)))


async def test_it_echoes_the_last_message_and_counts_words() -> None:
    response = await build_pool().complete(ask("fast", "first", "second words"))
    assert response.content == "[mock answer] second words"
    assert response.usage == Usage(3, 4)


async def test_it_follows_a_script_in_turn() -> None:
    pool = build_pool(answers=["one", "two"])
    answers = [(await pool.complete(ask())).content for _ in range(3)]
    assert answers == ["[mock answer] one", "[mock answer] two", "[mock answer] one"]


async def test_a_file_switches_an_outage_on_and_off(tmp_path: Path) -> None:
    switch = tmp_path / "outage"
    pool = build_pool(fail_while_exists=str(switch))
    await pool.complete(ask())
    switch.touch()
    with pytest.raises(LLMUnavailableError) as caught:
        await pool.complete(ask())
    assert caught.value.attempts[0].error_type == "LLMOverloadedError"
    switch.unlink()
    await pool.complete(ask())


async def test_it_may_think_for_too_long() -> None:
    with pytest.raises((LLMTimeoutError, LLMUnavailableError)) as caught:
        await build_pool(delay_seconds=5).complete(ask(timeout_seconds=0.05))
    assert caught.value.attempts[0].error_type == "LLMTimeoutError"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answer": ["x"]}, r"`options.answer` of deployment 'mock'.*knows answers, delay_seconds, fail_while_exists"),
        ({"delay_seconds": -1}, r"`options.delay_seconds`"),
    ],
)
def test_an_option_it_does_not_know_stops_the_start(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_pool(**options)
