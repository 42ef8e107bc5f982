"""The pool on a real model server: HTTP/1.0, errors as `{"error": "text"}`, and answers that are any bytes at all."""

from collections.abc import AsyncIterator

import pytest

from llm_pool.catalog import Catalog, Deployment, ModelGroup
from llm_pool.pool import Pool
from llm_pool.types import ChatMessage, CompletionRequest
from shared.errors import LLMModelNotFoundError, LLMUnavailableError

pytestmark = pytest.mark.mlx

QUESTION = (ChatMessage("user", "How many legs have three cats?"),)


@pytest.fixture
async def pool(mlx_server_url: str) -> AsyncIterator[Pool]:
    def deploy(name: str, model: str, base_url: str) -> ModelGroup:
        # A random model may say nothing at all, which is no answer and asked again.
        return ModelGroup(name, (Deployment(name, "openai_compatible", model, base_url),), retries=5)

    groups = (
        deploy("tiny", "default_model", mlx_server_url),
        deploy("wrong-model", "no-such-model", mlx_server_url),
        deploy("wrong-path", "default_model", f"{mlx_server_url}/no-such-path"),
    )
    pool = Pool(Catalog({group.name: group for group in groups}))
    yield pool
    await pool.aclose()


async def test_answer(pool: Pool) -> None:
    response = await pool.complete(CompletionRequest("tiny", QUESTION, temperature=1.0, max_tokens=16))
    assert response.deployment == "tiny"
    assert response.finish_reason in {"stop", "length"}
    assert response.usage is not None
    assert response.usage.prompt_tokens > len(QUESTION[0].content)
    assert 1 <= response.usage.completion_tokens <= 16
    assert {attempt.deployment for attempt in response.attempts} == {"tiny"}


async def test_every_answer_can_be_stored(pool: Pool) -> None:
    """A model may say NUL, which no Postgres text can hold."""
    question = CompletionRequest("tiny", QUESTION, temperature=1.0, max_tokens=256)
    answers = [(await pool.complete(question)).content for _ in range(4)]
    assert not [answer for answer in answers if "\0" in answer]
    assert all(answer.encode() for answer in answers)


@pytest.mark.parametrize("group", ["wrong-model", "wrong-path"])
async def test_what_the_server_does_not_know_is_told_as_such(pool: Pool, group: str) -> None:
    with pytest.raises(LLMUnavailableError) as caught:
        await pool.complete(CompletionRequest(group, QUESTION))
    assert [attempt.error_type for attempt in caught.value.attempts] == [LLMModelNotFoundError.__name__]
