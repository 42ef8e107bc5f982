"""A real model server, first as it speaks by itself, then through our adapter for its dialect."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

pytestmark = pytest.mark.mlx

QUESTION = [{"role": "user", "content": "How many legs have three cats?"}]


def post(url: str, body: dict[str, Any]) -> tuple[int, str]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_server_answers_and_counts_tokens(mlx_server_url: str) -> None:
    body = {"model": "default_model", "messages": QUESTION, "max_tokens": 8}
    status, text = post(f"{mlx_server_url}/chat/completions", body)
    answer = json.loads(text)
    assert status == 200
    assert answer["choices"][0]["finish_reason"] in {"stop", "length"}
    assert answer["usage"]["prompt_tokens"] > len(QUESTION[0]["content"])
    assert 1 <= answer["usage"]["completion_tokens"] <= 8


def test_server_names_no_type_in_its_errors(mlx_server_url: str) -> None:
    status, text = post(f"{mlx_server_url}/chat/completions", {"model": "no-such-model", "messages": QUESTION})
    assert status == 404
    assert isinstance(json.loads(text)["error"], str)


def test_server_answers_an_unknown_path_with_text_called_json(mlx_server_url: str) -> None:
    status, text = post(f"{mlx_server_url}/no-such-path", {"model": "default_model", "messages": QUESTION})
    assert (status, text) == (404, "Not Found")
