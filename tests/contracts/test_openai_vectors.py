"""Embeddings in OpenAI's dialect."""

import base64
import struct

import pytest

from llm_pool.types import EmbeddingRequest
from shared import errors
from shared.attempts import Usage
from tests.contracts.served import opened
from tests.fakes.dialects import OPENAI
from tests.fakes.provider_server import send_json


def vectors_of(*entries: object) -> dict[str, object]:
    return {"object": "list", "data": list(entries), "model": "embedder", "usage": {"prompt_tokens": 7}}


@pytest.mark.parametrize(
    "entries",
    [
        [{"index": 0, "embedding": [0.5, 1.0]}, {"index": 1, "embedding": [2, 0.25]}],
        [{"index": 1, "embedding": [2, 0.25]}, {"index": 0, "embedding": [0.5, 1.0]}],
        [{"embedding": [0.5, 1.0]}, {"index": 1, "embedding": [2, 0.25]}],
        [
            {"index": 0, "embedding": base64.b64encode(struct.pack("<2f", 0.5, 1.0)).decode()},
            {"index": 1, "embedding": base64.b64encode(struct.pack("<2f", 2, 0.25)).decode()},
        ],
    ],
    ids=["in order", "out of order", "the first without its index", "base64"],
)
async def test_vectors(entries: list[object]) -> None:
    async with opened(OPENAI, provider="openai") as (provider, server):
        server.behave = send_json(vectors_of(*entries))
        answer = await provider.embed(EmbeddingRequest("fast", ("a", "b"), dimensions=2), 5)
    assert answer.vectors == ((0.5, 1.0), (2.0, 0.25))
    assert (answer.model, answer.usage) == ("embedder", Usage(7, 0))
    assert server.received[0].path == "/v1/embeddings"
    assert server.received[0].body == {
        "model": "model-as-configured",
        "input": ["a", "b"],
        "dimensions": 2,
        "encoding_format": "base64",
    }


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [{"index": 0, "embedding": [0.5]}],
        [{"index": 0, "embedding": [0.5]}, {"index": 1, "embedding": [0.5, 1.0]}],
        [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}],
        [{"index": 0, "embedding": ["a"]}, {"index": 1, "embedding": ["b"]}],
        [{"index": 0, "embedding": "AAA"}, {"index": 1, "embedding": "AAA"}],
        [{"index": 0, "embedding": None}, {"index": 1, "embedding": None}],
        [{"index": 0, "embedding": [10**400]}, {"index": 1, "embedding": [10**400]}],
        ["none", "none"],
    ],
)
async def test_what_is_no_vector_for_each_input_is_a_broken_answer(entries: list[object]) -> None:
    async with opened(OPENAI) as (provider, server):
        server.behave = send_json(vectors_of(*entries))
        with pytest.raises(errors.LLMBrokenAnswerError):
            await provider.embed(EmbeddingRequest("fast", ("a", "b")), 5)


async def test_who_has_no_embeddings_names_who_has() -> None:
    async with opened(OPENAI, provider="groq") as (provider, server):
        with pytest.raises(errors.LLMUnsupportedError, match="openai or ollama"):
            await provider.embed(EmbeddingRequest("fast", ("a",)), 5)
        assert server.received == []
