"""Secrets are taken out of what is logged, and nothing else is."""

import pytest

from shared.redaction import REDACTED, redact_fields, redact_text

SECRETS = [
    ("redis://:geheim@host:6379/0", "geheim"),
    ("could not connect to postgresql://me:p%40ss:w@db:5432/llmyard?sslmode=require", "p%40ss:w"),
    ("amqps://guest:a@b@host//", "a@b"),
    ("Incorrect API key provided: sk-proj-abc_DEF-1234567890", "abc_DEF"),
    ("key sk-ant-api03-aaaa-bbbb is wrong", "api03"),
    ("gsk_abcdefghijklmnop1234", "abcdefghijkl"),
    ("hf_abcdefghijklmnopQRST", "abcdefghijkl"),
    ("AIzaSyA1234567890abcdefghijklmnopq", "SyA12345"),
    ("Authorization: Bearer abc.def-123456", "abc.def"),
    ("{'Authorization': 'Bearer abcdefgh12345'}", "abcdefgh"),
    ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjp"),
    ("{'x-api-key': 'abc123'}", "abc123"),
    ("Deployment(api_key='abc123', timeout_seconds=60.0)", "abc123"),
    (r'{"error": "got {\"api_key\": \"abc123\"}"}', "abc123"),
    ("https://host/v1?key=1&access_token=abc123&x=1", "abc123"),
    ("password=hunter2 host=db", "hunter2"),
    ("Cookie: session=abc123", "abc123"),
]
INNOCENT = [
    "prompt_tokens=12 completion_tokens=5 max_tokens: 100",
    "http://127.0.0.1:8000/v1/jobs?wait=5",
    "postgresql://db:5432/llmyard?application_name=a@b",
    "password authentication failed for user llmyard",
    "the tasks-and-risk-free sketch",
    "key_id=team-a request_id=0199f7a8-6f54-7c7e-9d9b-a7f2f3a2b111",
    '{"event": "request_answered", "cost_usd": "0.0012"}',
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_a_secret_in_a_text_is_taken_out(text: str, secret: str) -> None:
    redacted = redact_text(text)
    assert secret not in redacted
    assert REDACTED in redacted


@pytest.mark.parametrize("text", INNOCENT)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize("text", [text for text, _ in SECRETS])
def test_taking_out_twice_changes_nothing_more(text: str) -> None:
    assert redact_text(redact_text(text)) == redact_text(text)


def test_fields_named_like_a_secret_lose_their_value_however_deep() -> None:
    fields = {
        "api_key": "abc",
        "headers": {"Authorization": "abc", "X-Api-Key": "abc", "Accept": "text"},
        "accounts": [{"password": "abc", "name": "me"}],
        "prompt_tokens": 3,
        "token": None,
    }
    assert redact_fields(fields) == {
        "api_key": REDACTED,
        "headers": {"Authorization": REDACTED, "X-Api-Key": REDACTED, "Accept": "text"},
        "accounts": [{"password": REDACTED, "name": "me"}],
        "prompt_tokens": 3,
        "token": None,
    }
