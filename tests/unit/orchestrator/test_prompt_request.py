"""What is asked for a message's own prompt: the same, whether the prompt is plain enough to be taken as it stands."""

from typing import Any

import pytest

from llm_pool.dialects.bodies import Caller
from orchestrator.agents.prompt_request import build_prompt_request
from orchestrator.messages import is_plain, read_prompt
from shared.errors import InputError
from tests.builders import build_message

QUESTION = {"role": "user", "content": "why?"}
TURNS = [{"role": "system", "content": "be brief"}, QUESTION, {"role": "assistant", "content": ""}, QUESTION]
PLAIN = [
    {"messages": [QUESTION], "model": "fast"},
    {"messages": TURNS, "model": "fast"},
    {"messages": [QUESTION], "model": "fast", "max_tokens": 7},
]


@pytest.mark.parametrize("prompt", PLAIN)
@pytest.mark.parametrize("model", [None, "quality"])
def test_a_plain_prompt_asks_for_what_a_full_reading_finds(prompt: dict[str, Any], model: str | None) -> None:
    assert is_plain(prompt)
    message = build_message(prompt=prompt, model=model, content="")
    assert build_prompt_request(message) == read_prompt(prompt, model).to_request(Caller(message.tenant_id))


@pytest.mark.parametrize("more", [{}, {"temperature": 0.5}])
def test_its_purse_goes_along(more: dict[str, Any]) -> None:
    purse = {"name": "batch-1", "limit_usd": "2.50"}
    message = build_message(prompt={"messages": [QUESTION], "model": "fast", **more}, purse=purse, content="")
    request = build_prompt_request(message)
    assert request.purse
    assert (request.purse.name, str(request.purse.limit_usd)) == ("batch-1", "2.50")


def test_a_plain_prompt_without_a_model_is_refused() -> None:
    message = build_message(prompt={"messages": [QUESTION], "model": "fast"}, content="")
    with pytest.raises(InputError, match="model: is missing"):
        build_prompt_request(message.model_copy(update={"prompt": {"messages": [QUESTION]}}))
